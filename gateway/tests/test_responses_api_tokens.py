"""Input tokens are what the engine's tokenizer says."""

from __future__ import annotations

import json

from sluice_gateway.batches.runner_types import CollectedAnswer
from sluice_gateway.errors import Failure, Problem, problem
from sluice_gateway.identity import Key
from sluice_gateway.responses_api.token_counter import TokenCounter
from sluice_gateway.routes import Kind

KEY = Key(id="k")
BODY = json.dumps({"model": "m", "messages": [{"role": "user", "content": "hi"}], "stream": True}).encode()


class Engine:
    """Answers `/tokenize` with what it is given."""

    def __init__(self, status: int, body: bytes) -> None:
        self._answer = CollectedAnswer(status=status, body=body)
        self.asked: list[tuple[Kind, str, bytes]] = []

    async def __call__(
        self, kind: Kind, path: str, body: bytes, key: Key, *, request_id: str, priority: str
    ) -> CollectedAnswer:
        assert request_id.startswith("req_")
        self.asked.append((kind, path, body))
        return self._answer


async def test_the_prompt_is_counted_by_the_engine() -> None:
    engine = Engine(200, b'{"count": 7, "max_model_len": 4096, "tokens": [1]}')
    assert await TokenCounter(engine, bytes)(BODY, KEY) == 7
    kind, path, body = engine.asked[0]
    assert (kind, path) == ("tokenize", "/tokenize")
    assert set(json.loads(body)) == {"model", "messages"}


async def test_a_refusal_is_passed_on_as_it_is() -> None:
    refusal = problem(Failure.MODEL_NOT_FOUND, "No such model.", param="model")
    found = await TokenCounter(Engine(404, refusal.body()), bytes)(BODY, KEY)
    assert isinstance(found, Problem)
    assert (found.status, found.body()) == (404, refusal.body())


async def test_what_is_no_count_is_a_bad_gateway() -> None:
    for status, body in ((200, b'{"tokens": []}'), (502, b"<html>")):
        found = await TokenCounter(Engine(status, body), bytes)(BODY, KEY)
        assert isinstance(found, Problem)
        assert found.status == 502

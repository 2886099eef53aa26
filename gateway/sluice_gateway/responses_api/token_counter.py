"""How many tokens a request's prompt has: asked of an engine's own tokenizer, by the gateway's own way.

Source of the shape: vLLM's `/tokenize`, which takes a chat request's messages and tools.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from sluice_gateway.batches.runner_types import CollectedAnswer, Runner
from sluice_gateway.errors import Failure, Problem, problem
from sluice_gateway.identity import Key

_ASKED = ("model", "messages", "tools", "chat_template_kwargs")
_PATH = "/tokenize"
_ID_BYTES = 12


class _Counted(msgspec.Struct):
    count: int


class _Said(msgspec.Struct, frozen=True):
    message: str = "The engine did not count."
    type: str = "server_error"
    param: str | None = None
    code: str | None = None


class _Refusal(msgspec.Struct, frozen=True):
    error: _Said = _Said()


class TokenCounter:
    """See above."""

    def __init__(self, run: Runner, randomness: Callable[[int], bytes]) -> None:
        """`randomness` gives that many random bytes, for request ids."""
        self._run = run
        self._randomness = randomness

    async def __call__(self, chat_body: bytes, key: Key) -> int | Problem:
        """The prompt tokens of a chat request."""
        fields = msgspec.json.decode(chat_body)
        asked = msgspec.json.encode({name: fields[name] for name in _ASKED if name in fields})
        request_id = f"req_{self._randomness(_ID_BYTES).hex()}"
        answer = await self._run("tokenize", _PATH, asked, key, request_id=request_id, priority="interactive")
        return _read(answer)


def _read(answer: CollectedAnswer) -> int | Problem:
    try:
        if answer.status == 200:
            return msgspec.json.decode(answer.body, type=_Counted).count
        said = msgspec.json.decode(answer.body, type=_Refusal).error
    except (msgspec.DecodeError, UnicodeDecodeError):
        return problem(Failure.UPSTREAM_PROTOCOL, "The engine did not say how many tokens there are.")
    found = problem(Failure.UPSTREAM_ERROR, said.message, param=said.param)
    return msgspec.structs.replace(found, status=answer.status, type=said.type, code=said.code)

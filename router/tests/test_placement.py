"""The rules of the match and of the choice."""

from __future__ import annotations

import pytest

from sluice_router.breaker import Breaker
from sluice_router.cost import Cost
from sluice_router.matching import candidates, mismatch
from sluice_router.placement import least_loaded
from sluice_router.replica import Replica
from sluice_router.router import Router
from sluice_router.types import Capabilities, Endpoint, RequestFacts

FACTS = RequestFacts(request_id="r", kind="chat", model="tiny")
WORKER = Endpoint(id="w", backend="worker", url="http://w", models=("tiny",))
QUANTIZED = Endpoint(id="q", backend="worker", url="http://q", models=("tiny",), quant="int8")
ANYTHING = Endpoint(id="x", backend="echo", url="http://x")
EMBEDDER = Endpoint(
    id="e",
    backend="embedder",
    url="http://e",
    models=("vec",),
    capabilities=Capabilities(endpoints=frozenset({"embeddings"})),
)
ALL = (WORKER, QUANTIZED, ANYTHING, EMBEDDER)


def ids(**changes: object) -> list[str]:
    facts = RequestFacts(**{"request_id": "r", "kind": "chat", "model": "tiny", **changes})
    return [e.id for e in candidates(ALL, facts)]


def test_every_endpoint_that_names_the_model_is_a_candidate():
    assert ids() == ["w", "q"]


def test_an_endpoint_for_any_model_gives_way_to_those_that_name_it():
    assert ids(model="unheard-of") == ["x"]
    assert ids(backend="echo") == ["x"]


def test_backend_quant_kind_and_needs_narrow_the_choice():
    assert ids(quant="int8") == ["q"]
    assert ids(kind="embeddings", model="vec") == ["e"]
    assert ids(needs=frozenset({"images"})) == []
    assert ids(backend="worker", model="vec") == []


def test_a_key_may_be_held_to_some_backends():
    assert ids(allowed_backends=frozenset({"echo", "embedder"})) == ["x"]
    assert ids(allowed_backends=frozenset({"worker", "echo"})) == ["w", "q"]
    assert ids(allowed_backends=frozenset({"echo"}), backend="worker") == []
    assert ids(allowed_backends=frozenset()) == []


@pytest.mark.parametrize(
    ("changes", "field", "names"),
    [
        ({"backend": "nowhere"}, "backend", ("worker", "echo", "embedder")),
        ({"backend": "worker", "model": "huge"}, "model", ("tiny",)),
        ({"backend": "worker", "quant": "fp8"}, "quant", ("none", "int8")),
        ({"backend": "worker", "kind": "embeddings"}, "kind", ("chat", "completions")),
        ({"needs": frozenset({"tools", "images"})}, "needs", ("images", "tools")),
    ],
)
def test_a_mismatch_names_what_to_change_and_what_would_do(changes, field, names):
    facts = RequestFacts(**{"request_id": "r", "kind": "chat", "model": "tiny", **changes})

    found = mismatch(ALL, facts)

    assert found is not None
    assert found.field == field
    assert found.valid == names
    assert all(name in found.message for name in names)


PLAIN = Capabilities(endpoints=frozenset({"chat"}), logprobs=False)
SEEING = Capabilities(endpoints=frozenset({"chat"}), logprobs=False, images=True)
CALLING = Capabilities(endpoints=frozenset({"chat"}), tools=True)
SKILLED = (
    Endpoint(id="p", backend="plain", url="http://p", models=("m",), capabilities=PLAIN),
    Endpoint(id="s", backend="seeing", url="http://s", models=("m",), capabilities=SEEING),
    Endpoint(id="c", backend="calling", url="http://c", models=("m",), capabilities=CALLING),
    Endpoint(id="v", backend="vision", url="http://v", models=("v",), capabilities=SEEING, quant="int4"),
)


@pytest.mark.parametrize(
    ("changes", "blamed", "able", "words"),
    [
        ({"backend": "plain", "needs": {"tools"}}, ("tools",), ("calling",), "Backends that can: calling."),
        ({"backend": "plain", "needs": {"images"}}, ("images",), ("seeing",), "on backend 'plain'"),
        ({"backend": "seeing", "needs": {"images", "tools"}}, ("tools",), (), "Neither does any other"),
        ({"needs": {"images", "logprobs"}}, ("images", "logprobs"), (), "all of images, logprobs"),
        ({"backend": "calling", "needs": {"tools", "json_schema"}}, ("json_schema",), (), "'json_schema'"),
        (
            {"backend": "plain", "needs": {"images"}, "allowed_backends": frozenset({"plain", "vision"})},
            ("images",),
            ("vision",),
            "with other models (v): vision.",
        ),
        (
            {"needs": {"images"}, "allowed_backends": frozenset({"plain"})},
            ("images",),
            (),
            "Neither does any other",
        ),
        (
            {"backend": "plain", "needs": {"images"}, "allowed_quants": frozenset({"none"})},
            ("images",),
            ("seeing",),
            "Backends that can: seeing.",
        ),
    ],
)
def test_who_lacks_a_feature_is_told_who_has_it(changes, blamed, able, words):
    needs = frozenset(changes.pop("needs"))
    facts = RequestFacts(request_id="r", kind="chat", model="m", needs=needs, **changes)

    found = mismatch(SKILLED, facts)

    assert found is not None
    assert (found.field, found.valid, found.able) == ("needs", blamed, able)
    assert words in found.message


def test_who_lacks_an_endpoint_is_told_who_has_it():
    facts = RequestFacts(request_id="r", kind="embeddings", model="tiny", backend="worker")

    found = mismatch(ALL, facts)

    assert found is not None
    assert found.able == ("embedder",)
    assert found.message.endswith(
        "offered: chat, completions. Backends that can, with other models (vec): embedder."
    )


def test_who_only_prefers_a_backend_is_served_where_the_feature_is():
    wish = RequestFacts(
        request_id="r", kind="chat", model="m", backend="plain", prefer=True, needs=frozenset({"tools"})
    )

    assert mismatch(SKILLED, wish) is None
    ticket = Router(SKILLED, max_queue=1, queue_timeout_s=1.0).admit(wish, 0.0, lambda: None)
    assert ticket.endpoint is not None
    assert ticket.endpoint.backend == "calling"
    assert "reason=relaxed" in ticket.route


def test_a_router_without_endpoints_still_gives_a_reason():
    found = mismatch((), FACTS)

    assert found is not None
    assert found.message.endswith(".")


COST = Cost(prompt_tokens=10, output_tokens=10, work=30)


def replica(name: str, in_flight: int, size: int, last: int = 0) -> Replica:
    endpoint = Endpoint(id=name, backend="worker", url=f"http://{name}", max_in_flight=size)
    made = Replica(endpoint, Breaker(5, 5.0, 60.0, lambda: 0.5))
    made.in_flight, made.last_placed = in_flight, last
    return made


def test_load_is_relative_to_the_size_of_the_endpoint():
    small, large = replica("small", 1, 2), replica("large", 3, 16)

    assert least_loaded([small, large], COST, 0.0, 10.0) is large


def test_among_equals_the_one_not_used_for_longest_is_chosen():
    assert (
        least_loaded([replica("a", 1, 4, last=9), replica("b", 1, 4, last=3)], COST, 0.0, 10.0).endpoint.id
        == "b"
    )


def test_full_and_unhealthy_replicas_are_not_chosen():
    full, ill = replica("full", 2, 2), replica("ill", 0, 2)
    ill.healthy = False

    assert least_loaded([full, ill], COST, 0.0, 10.0) is None

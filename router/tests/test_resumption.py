"""Which cut streams go on elsewhere: a table, and where the rest may be asked."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from sluice_router.cost import COLD_OUTPUT_TOKENS
from sluice_router.matching import candidates
from sluice_router.resumption import ALWAYS, WITH_TEXT, Cut, Unsafe, facts_of_rest, straddles, unsafe
from sluice_router.router import Router
from sluice_router.ticket import Ticket
from sluice_router.types import (
    Capabilities,
    Choice,
    Endpoint,
    FailureClass,
    Outcome,
    Reject,
    RequestFacts,
    Usage,
)

PLAIN = Cut(kind="chat", text="Once upon a", tokens=3, left_s=100.0)
LEGACY = Cut(kind="completions", text="Once upon a", tokens=3, max_tokens=16, left_s=100.0)


def but(cut: Cut = PLAIN, **changes: Any) -> Cut:
    return msgspec.structs.replace(cut, **changes)


@pytest.mark.parametrize(
    ("cut", "reason"),
    [
        (PLAIN, None),
        (LEGACY, None),
        (but(max_tokens=4), None),
        (but(stops=("a time", "\n")), Unsafe.STOP_STRING),
        (but(stops=("time", "\n")), None),
        (but(read=False), Unsafe.UNREAD),
        (but(kept=False), Unsafe.TOO_LONG),
        (but(text="", tokens=0), None),
        (but(text="", tokens=0, guided=True, logprobs=True, penalties=True, one_prompt=False), None),
        (but(text="", tokens=0, unknown=True, thinks=True), None),
        (but(text="", tokens=0, reasoning=True), Unsafe.REASONING),
        (but(text="", tokens=0, calls=True), Unsafe.TOOL_CALL),
        (but(text="", tokens=0, several=True), Unsafe.SEVERAL),
        (but(text="", tokens=0, left_s=-1.0), Unsafe.LATE),
        (but(finished=True), Unsafe.COMPLETE),
        (but(calls=True), Unsafe.TOOL_CALL),
        (but(reasoning=True), Unsafe.REASONING),
        (but(thinks=True), Unsafe.REASONING),
        (but(text="<think>\nOnce"), Unsafe.MARKUP),
        (but(text="Once <|im_end|>"), Unsafe.MARKUP),
        (but(text="Once < twice | thrice"), None),
        (but(unknown=True), Unsafe.UNKNOWN),
        (but(counted=False), None),
        (but(counted=False, max_tokens=100), Unsafe.BOUND),
        (but(guided=True), Unsafe.GUIDED),
        (but(several=True), Unsafe.SEVERAL),
        (but(logprobs=True), Unsafe.LOGPROBS),
        (but(penalties=True), Unsafe.PENALTIES),
        (but(one_prompt=False), Unsafe.PROMPT),
        (but(LEGACY, max_tokens=None), Unsafe.BOUND),
        (but(max_tokens=3), Unsafe.SPENT),
        (but(max_tokens=2), Unsafe.SPENT),
        (but(left_s=0.0), Unsafe.LATE),
        (but(read=False, finished=True), Unsafe.UNREAD),
    ],
)
def test_a_cut_stream_is_resumed_or_not(cut: Cut, reason: Unsafe | None) -> None:
    assert unsafe(cut) is reason


def test_every_reason_has_a_rule() -> None:
    assert sorted(reason for reason, _ in ALWAYS + WITH_TEXT) == sorted(Unsafe)


def test_a_text_straddles_a_stop_string_if_some_text_after_it_completes_one() -> None:
    stops = ("aab", "ba", "c")

    for text in ("", "a", "aa", "b", "c", "aab", "xba", "xa", "xb", "ca a"):
        begun = any(
            (text + stop[length:]).endswith(stop) and text.endswith(stop[:length])
            for stop in stops
            for length in range(1, len(stop))
        )
        assert straddles(text, stops) is begun, text


WORKER = Capabilities(continues_chat=True, continues_space=True)
VLLM = Capabilities(continues_chat=True)
FACTS = RequestFacts(request_id="r", kind="messages", via="chat", model="alias", prompt_tokens_estimate=10)


def endpoint(name: str, capabilities: Capabilities = VLLM, **more: Any) -> Endpoint:
    return Endpoint(id=name, backend=name, url="", models=("m",), capabilities=capabilities, **more)


FLEET = (
    endpoint("worker", WORKER),
    endpoint("vllm"),
    endpoint("quantized", quant="awq"),
    endpoint("plain", Capabilities()),
    endpoint("echo", Capabilities(continues_text=False)),
)


def names(facts: RequestFacts) -> list[str]:
    return [e.id for e in candidates(FLEET, facts)]


def test_the_rest_is_asked_of_engines_that_can_go_on_with_the_same_model() -> None:
    facts = msgspec.structs.replace(
        FACTS, choices=(Choice(model="m"), Choice(model="other")), prefer=True, backend="gone"
    )

    rest = facts_of_rest(facts, but(max_tokens=8), "m", FLEET[1])

    assert names(rest) == ["worker", "vllm"]
    assert (rest.max_tokens, rest.prompt_tokens_estimate) == (5, 13)
    assert names(facts_of_rest(facts, but(text="It is. "), "m", FLEET[1])) == ["worker"]
    assert names(facts_of_rest(facts, but(text="\n\nIt is."), "m", FLEET[1])) == ["worker"]
    assert names(facts_of_rest(facts, but(text="", tokens=0), "m", FLEET[1])) == names(
        msgspec.structs.replace(FACTS, kind="chat", model="m", quant="none")
    )
    assert names(facts_of_rest(facts, LEGACY, "m", FLEET[1])) == ["worker", "vllm", "plain"]
    assert names(facts_of_rest(facts, PLAIN, "m", FLEET[2])) == ["quantized"]


def test_a_backend_that_was_asked_for_stays_asked_for() -> None:
    facts = msgspec.structs.replace(FACTS, backend="vllm")

    assert names(facts_of_rest(facts, PLAIN, "m", FLEET[1])) == ["vllm"]


def test_a_ticket_moves_with_its_rest_within_the_attempts() -> None:
    router = Router(FLEET, max_queue=1, queue_timeout_s=1.0)
    ticket = router.admit(
        msgspec.structs.replace(FACTS, kind="chat", model="m", backend="vllm"), 0.0, lambda: None
    )
    failed = ticket.endpoint
    assert failed is not None
    facts = msgspec.structs.replace(ticket.facts, backend=None)

    ticket.resume(1.0, FailureClass.BROKEN, facts_of_rest(facts, PLAIN, "m", failed), lambda: None)

    assert ticket.endpoint is not None
    assert ticket.endpoint.id == "worker"
    assert "reason=resume,retry:2," in ticket.route
    ticket.resume(2.0, FailureClass.BROKEN, ticket.facts, lambda: None)
    assert isinstance(ticket.decision, Reject)
    assert ticket.outcome is Outcome.EXHAUSTED
    assert all(replica.in_flight == 0 for replica in router.snapshot().replicas)


def ask(router: Router, now: float) -> Ticket:
    facts = RequestFacts(request_id="r", kind="chat", model="m", stream=True, prompt_tokens_estimate=100)
    return router.admit(facts, now, lambda: None)


def test_nothing_is_learned_from_an_answer_of_two_engines() -> None:
    router = Router(FLEET[:2], max_queue=1, queue_timeout_s=1.0)
    for number in range(30):
        now = 10.0 * number
        ticket = ask(router, now)
        ticket.first_token(now + 0.5)
        ticket.resume(now + 1.0, FailureClass.BROKEN, ticket.facts, lambda: None)
        ticket.first_token(now + 1.5)
        ticket.settle(now + 2.0, Usage(prompt_tokens=200, completion_tokens=1000))

    snapshot = router.snapshot()
    assert [r.work.itl_s for r in snapshot.replicas] == [None, None]
    assert sum(r.usage.completion_tokens for r in snapshot.replicas) == 30_000
    estimated = ask(router, 300.0).cost
    assert (estimated.prompt_tokens, estimated.output_tokens) == (100, COLD_OUTPUT_TOKENS)
    assert estimated.work == 100 + 2 * COLD_OUTPUT_TOKENS


def test_the_rest_costs_what_has_to_be_read_anew() -> None:
    router = Router(FLEET[:2], max_queue=1, queue_timeout_s=1.0)
    ticket = ask(router, 0.0)
    assert ticket.endpoint is not None
    cut = but(tokens=50, max_tokens=60)

    ticket.resume(
        1.0, FailureClass.BROKEN, facts_of_rest(ticket.facts, cut, "m", ticket.endpoint), lambda: None
    )

    assert (ticket.cost.prompt_tokens, ticket.cost.output_tokens) == (150, 10)


def test_who_was_served_for_long_has_patience_anew() -> None:
    fleet = [msgspec.structs.replace(e, max_in_flight=1) for e in FLEET[:2]]
    router = Router(fleet, max_queue=5, queue_timeout_s=1000.0)
    now = 0.0
    for _ in range(30):
        ticket = ask(router, now)
        ticket.first_token(now + 0.1)
        ticket.settle(now + 1.0, Usage(prompt_tokens=100, completion_tokens=10))
        now += 1.0
    cut, other = ask(router, now), ask(router, now)
    cut.first_token(now + 0.1)
    other.first_token(now + 0.1)
    now += 60.0

    cut.resume(now, FailureClass.BROKEN, cut.facts, lambda: None)
    assert cut.decision is None
    router.expire(now + 5.0)
    assert cut.decision is None
    other.settle(now + 6.0, None)

    assert cut.endpoint == other.endpoint

from __future__ import annotations

import pytest

from sluice_bench.journeys.blocking_client import BlockingClient
from sluice_bench.journeys.capabilities import Choice, Findings
from sluice_bench.journeys.prompts import Prompts
from sluice_bench.journeys.visitor import NEEDS, Visitor, World
from sluice_bench.workloads.corpus import load_corpus

EVERYTHING = Findings(
    model="small",
    tools_model="small",
    embeddings_model="small",
    choices=(
        Choice(header="X-Backend", value="gpu", model="small"),
        Choice(header="X-Quant", value="none", model="small"),
    ),
)


@pytest.fixture
def visit():
    """Go on journeys and return what was reported, and how often the user paused."""
    clients = []

    def go(target, *journeys, findings=EVERYTHING, api_key=None):
        events, pauses = [], []
        world = World(target, findings, Prompts(load_corpus(), 1), api_key)
        clients.append(BlockingClient(target, 5.0))
        visitor = Visitor(world, clients[-1], events.append, lambda: pauses.append(len(events)))
        for journey in journeys:
            visitor.go(journey)
        return events, pauses

    yield go
    for client in clients:
        client.close()


def kinds(events):
    return [(event.kind, event.name) for event in events]


def test_a_chat_has_three_figures_and_sends_the_key(engine, visit):
    fake, target = engine(key="alice", pause_s=0.02, pieces=10)

    events, _ = visit(target, "chat", api_key="alice")

    assert kinds(events) == [("ttft", "chat"), ("tpot", "chat"), ("e2e", "chat")]
    ttft, tpot, e2e = (event.ms for event in events)
    assert 0 < ttft < e2e
    assert 0 < tpot < e2e
    assert events[2].n_bytes == 30
    assert fake.asked[0][2]["stream"] is True


def test_a_conversation_pauses_between_turns_and_keeps_its_session(engine, visit):
    fake, target = engine()

    _, pauses = visit(target, "multi-turn", "multi-turn")
    sessions = [headers["x-session-id"] for _, headers, _ in fake.asked]
    turns = [sessions.count(session) for session in dict.fromkeys(sessions)]

    assert len(turns) == 2
    assert all(2 <= number <= 5 for number in turns)
    assert len(pauses) == sum(turns) - 2
    grown = [len(body["messages"]) for _, _, body in fake.asked]
    assert grown == [1 + 2 * turn for number in turns for turn in range(number)]


def test_a_turn_that_fails_ends_the_conversation(engine, visit):
    fake, target = engine(mute=["small"])

    events, pauses = visit(target, "multi-turn")

    assert [(event.kind, event.ms) for event in events] == [("e2e", None)]
    assert events[0].failure == "http_status: small does not chat."
    assert (len(fake.asked), pauses) == (1, [])


def test_a_call_is_answered_with_its_result(engine, visit):
    fake, target = engine(calls=True, pause_s=0.02, pieces=10)

    events, _ = visit(target, "tools")
    first, second = (body for _, _, body in fake.asked)

    assert kinds(events) == [("e2e", "tools"), ("ttft", "tools"), ("tpot", "tools"), ("e2e", "tools")]
    assert first["tool_choice"] == "required"
    assert first["tools"] == second["tools"]
    assert [message["role"] for message in second["messages"]][-3:] == ["user", "assistant", "tool"]
    assert second["messages"][-1]["tool_call_id"] == second["messages"][-2]["tool_calls"][0]["id"]


def test_no_call_is_a_failure(engine, visit):
    _, target = engine(calls=False)

    events, _ = visit(target, "tools")

    assert [(event.ms, event.failure) for event in events] == [(None, "no function was called")]


@pytest.mark.parametrize(("embeds", "failure"), [("small", ""), ("", "No vectors. (status 400)")])
def test_embeddings_have_a_time_or_a_failure(engine, visit, embeds, failure):
    _, target = engine(embeds=embeds)

    (event,) = visit(target, "embeddings")[0]

    assert (event.kind, event.name, event.failure) == ("e2e", "embeddings", failure)
    assert (event.ms is None) == bool(failure)


def test_toggles_take_turns(engine, visit):
    fake, target = engine()

    events, _ = visit(target, *["toggle"] * 4)
    headers = [(asked.get("x-backend"), asked.get("x-quant")) for _, asked, _ in fake.asked]

    assert headers == [("gpu", None), (None, "none")] * 2
    assert not any(event.failure for event in events)


def test_another_backend_than_asked_for_is_a_failure(engine, visit):
    _, target = engine(says="cpu")

    (event,) = visit(target, "toggle")[0]

    assert event.failure == "protocol: asked for backend gpu, answered by cpu"


def test_leaving_is_an_event_of_its_own_kind(engine, visit):
    _, target = engine(pause_s=0.02, pieces=30)

    events, _ = visit(target, *["cancel"] * 5)

    assert kinds(events) == [("left", "cancel")] * 5
    assert all(event.ms < 20 * 30 for event in events)


def test_nobody_leaves_a_refusal_unreported(engine, visit):
    _, target = engine(mute=["small"])

    (event,) = visit(target, "cancel")[0]

    assert (event.kind, event.failure) == ("e2e", "http_status: small does not chat.")


@pytest.mark.parametrize("journey", NEEDS)
def test_every_journey_reports_when_nobody_is_there(visit, engine, journey):
    _, target = engine()
    target = type(target)(host=target.host, port=1)

    events, _ = visit(target, journey)

    assert len(events) == 1
    assert events[0].ms is None
    assert events[0].failure.startswith("connect_failed")

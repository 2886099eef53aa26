"""A recorded router decides as one that is not, and its log makes another one decide the same again."""

from __future__ import annotations

import ast
import os
import random
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from hypothesis import settings
from hypothesis.stateful import initialize, rule

import sluice_router
from sluice_router.decision_log import CALLS, READS, Decided, Start, encode
from sluice_router.decision_replay import LogError, replay
from sluice_router.recorded_router import RecordedHedges, RecordedRouter
from sluice_router.router import Router
from sluice_router.router_options import Options
from sluice_router.routing import Hedging
from sluice_router.types import Endpoint, EngineLoad, FailureClass, RequestFacts, Usage

from .test_router_properties import ENDPOINTS, FAILOVER, MAX_QUEUE, POLICY, TIMEOUT_S, RouterMachine


def nothing() -> None:
    pass


def facts(**changes: object) -> RequestFacts:
    defaults = {
        "request_id": "r",
        "kind": "chat",
        "model": "m",
        "stream": True,
        "prompt_tokens_estimate": 100,
    }
    return RequestFacts(**{**defaults, **changes})


def recorded(names: str = "ab", size: int = 1, seed: int = 1) -> tuple[RecordedRouter, list[bytes]]:
    log: list[bytes] = []
    endpoints = [
        Endpoint(id=n, backend="b", url=f"http://{n}", max_in_flight=size, hedging=True) for n in names
    ]
    options = Options(max_queue=3, queue_timeout_s=10.0)
    return RecordedRouter(endpoints, log.append, random=random.Random(seed).random, options=options), log


def busy_hour(seed: int = 1, names: str = "abcdef") -> list[bytes]:
    """Requests of several tenants with shared prefixes, failures and readings, on engines that are full."""
    source = random.Random(seed)
    router, log = recorded(names, size=2, seed=seed)
    now, tickets = 0.0, []
    for number in range(400):
        now += source.expovariate(5.0)
        chain = tuple(source.getrandbits(63) for _ in range(2))
        asked = facts(
            tenant=source.choice("xyz"),
            prefix=source.choice([(), (1, 2), (1, *chain)]),
            priority=source.choice(["interactive", "default", "bulk"]),
            prompt_tokens_estimate=source.randrange(2000),
            max_tokens=100,
        )
        tickets.append(router.admit(asked, now, nothing))
        ticket = source.choice(tickets)
        if source.random() < 0.2:
            ticket.retry(now, FailureClass.BROKEN, nothing)
        elif source.random() < 0.1:
            rest = msgspec.structs.replace(ticket.facts, prompt_tokens_estimate=2000, max_tokens=50)
            ticket.resume(now, FailureClass.BROKEN, rest, nothing)
        elif source.random() < 0.6:
            ticket.first_token(now)
        else:
            tickets.remove(ticket)
            ticket.settle(now, Usage(prompt_tokens=100, completion_tokens=source.randrange(100)))
        if number % 20 == 0:
            name = source.choice(names)
            running = sum(not t.closed and t.endpoint is not None and t.endpoint.id == name for t in tickets)
            router.record_load(name, EngineLoad(running=running, kv_used_ratio=0.5), now)
            router.set_health(name, source.random() < 0.8, now)
            router.expire(now)
    return log


class Opened(RecordedRouter):
    """Shows the inside of the router within, for the invariants that look there."""

    def __getattr__(self, name: str) -> object:
        return getattr(self._router, name)


class RecordedMachine(RouterMachine):
    """The router's own torture, recorded; and at the end of each run replayed."""

    @initialize()
    def start(self) -> None:
        super().start()
        self.log: list[bytes] = []
        options = Options(max_queue=MAX_QUEUE, queue_timeout_s=TIMEOUT_S, failover=FAILOVER, admission=POLICY)
        self.router = Opened(ENDPOINTS, self.log.append, random=lambda: 0.5, options=options)

    @rule()
    def its_first_token_is_late(self) -> None:
        """It changes tickets behind the log's back; for hedges see below."""

    def teardown(self) -> None:
        if hasattr(self, "log"):
            replayed = replay(self.log)
            assert replayed.difference is None
            assert replayed.calls == sum(b'"line":"call"' in line for line in self.log)
            assert replayed.decisions == sum(b'"line":"decided"' in line for line in self.log)


TestRecorded = RecordedMachine.TestCase
TestRecorded.settings = settings(max_examples=25, stateful_step_count=40, deadline=None)


def test_every_call_of_a_router_is_recorded_or_changes_nothing():
    """A call or an option that is new in `Router` has to be added to `CALLS`, `READS` or `Options`."""
    public = {name for name in dir(Router) if not name.startswith("_")} - {"hedges"}
    of_hedges = {name for name in dir(Hedging) if not name.startswith("_")}

    assert public | {f"hedges.{name}" for name in of_hedges} == READS | CALLS.keys()
    assert all(hasattr(RecordedRouter, name) for name in public)
    assert all(hasattr(RecordedHedges, name) for name in of_hedges)
    assert _parameters() == {"endpoints", "random", *Options.__struct_fields__}


def _parameters() -> set[str]:
    """What a router is made with. Read from the source: compiled classes do not tell."""
    tree = ast.parse((Path(sluice_router.__file__).parent / "router.py").read_text())
    made = next(n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef) and n.name == "__init__")
    return {a.arg for a in (*made.args.args, *made.args.kwonlyargs)} - {"self"}


def test_a_busy_hour_is_replayed_to_the_same_decisions():
    log = busy_hour()

    replayed = replay(log)

    assert replayed.difference is None
    assert replayed.calls > 500
    assert replayed.decisions > 400
    assert any(b'"line":"drawn"' in line for line in log)
    assert sum(b'"name":"resume"' in line for line in log) > 5
    assert any(b"reason=resume,retry:2," in line for line in log)


def test_a_recorded_router_decides_as_one_that_is_not():
    router, log = recorded()
    plain = Router([msgspec.structs.replace(e) for e in _endpoints(log)], max_queue=3, queue_timeout_s=10.0)

    routes = [[r.admit(facts(), float(n), nothing).route for n in range(3)] for r in (router, plain)]

    assert routes[0] == routes[1]
    assert router.snapshot() == plain.snapshot()


def _endpoints(log: list[bytes]) -> tuple[Endpoint, ...]:
    return msgspec.json.decode(log[0], type=Start).endpoints


def test_another_process_decides_the_same_whatever_its_hashes_of_strings_are(tmp_path):
    log = tmp_path / "log"
    log.write_bytes(b"".join(busy_hour(seed=2)))
    code = (
        "import sys; from sluice_router.decision_replay import replay;"
        "print(replay(open(sys.argv[1], 'rb')).difference)"
    )

    for seed in ("1", "2"):
        ran = subprocess.run(
            [sys.executable, "-c", code, str(log)],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        )
        assert ran.stdout == "None\n"


def test_a_decision_that_was_another_is_found_and_told():
    log = busy_hour()
    line = next(i for i, text in enumerate(log) if b'"line":"decided"' in text and b'"endpoint"' in text)
    was = msgspec.json.decode(log[line], type=Decided)
    log[line] = encode(msgspec.structs.replace(was, endpoint="elsewhere"))

    difference = replay(log).difference

    assert difference is not None
    assert difference.line == line + 1
    assert "elsewhere" in difference.logged
    assert f'"endpoint":"{was.endpoint}"' in difference.now


def test_another_random_number_leads_elsewhere_or_is_missed():
    log = busy_hour()
    line = next(i for i, text in enumerate(log) if b'"line":"drawn"' in text)

    difference = replay(log[:line] + log[line + 1 :]).difference

    assert difference is not None
    assert (difference.line, difference.now) == (line + 1, "(draws a random number)")


def test_a_log_that_was_cut_off_is_replayed_as_far_as_it_goes():
    whole = b"".join(busy_hour())
    for cut in (len(whole) // 2, len(whole) // 3):
        replayed = replay(whole[:cut].splitlines(keepends=True))

        assert replayed.difference is None
        assert replayed.decisions > 50


def test_errors_of_a_caller_are_part_of_the_log():
    router, log = recorded()
    with pytest.raises(KeyError):
        router.set_health("nobody", True, 1.0)

    assert replay(log).difference is None


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ([], "Line 1 is no start"),
        ([b"prompt\n"], "Line 1 is no line"),
        ([b'{"line":"call","name":"admit","args":[]}\n'], "Line 1 is no start"),
    ],
)
def test_what_is_no_log_is_said_to_be_none(lines: list[bytes], words: str):
    with pytest.raises(LogError, match=words):
        replay(lines)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (b'{"line":"call","name":"launch","args":[1]}\n', "Line 2: there is no call 'launch'"),
        (b'{"line":"call","name":"expire","args":["soon"]}\n', "Line 2: Expected `float`"),
        (b'{"line":"call","name":"cancel","args":[7,1.0]}\n', "Line 2: ticket 7 was not issued"),
        (b'{"line":"drawn","number":0.5}\n', "Line 2 belongs to no call"),
    ],
)
def test_a_line_that_makes_no_sense_is_named(line: bytes, words: str):
    _, log = recorded()

    with pytest.raises(LogError, match=words):
        replay([*log, line])


@pytest.mark.parametrize("end", ["won", "lost", "failed", "rescued", "left"])
def test_second_attempts_are_replayed(end: str):
    router, log = recorded(size=2)
    now = 0.0
    for place in range(80):
        ticket = router.admit(facts(repeatable=True), now, nothing)
        now += 0.4 if place % 10 == 0 else 0.3
        ticket.first_token(now)
        ticket.settle(now, Usage(prompt_tokens=100, completion_tokens=10))
    ticket = router.admit(facts(repeatable=True), now, nothing)
    first, now = ticket.endpoint, router.hedges.due_at(ticket, now)
    second = router.hedges.begin(ticket, now)
    assert second is not None
    assert second != first

    if end == "won":
        router.hedges.won(ticket, now + 0.1)
        assert ticket.endpoint == second
    elif end == "failed":
        router.hedges.failed(ticket, FailureClass.BROKEN, now + 0.1)
    elif end == "rescued":
        ticket.retry(now + 0.1, FailureClass.BROKEN, nothing)
        assert ticket.endpoint == second
    elif end == "lost":
        ticket.first_token(now + 0.1)
    ticket.settle(now + 0.2, Usage(prompt_tokens=100, completion_tokens=10))
    router.expire(now + 0.3)

    replayed = replay(log)

    assert replayed.difference is None
    assert replayed.calls == sum(b'"line":"call"' in line for line in log)
    begun = next(place for place, line in enumerate(log) if b"hedges.begin" in line)
    log[begun + 1] = log[begun + 1].replace(second.id.encode(), first.id.encode())
    assert replay(log).difference.line == begun + 2
    assert router.hedges.due_at(ticket, now) is None, "nothing comes of a closed one"


def test_what_is_over_is_not_remembered():
    router, log = recorded()
    for number in range(20):
        ticket = router.admit(facts(), float(number), nothing)
        (ticket.settle if number % 2 else ticket.cancel)(*((number, None) if number % 2 else (number,)))
        ticket.settle(float(number), None)

    assert router._recorder._numbers == {}
    assert sum(b'"name":"settle"' in line for line in log) == 10
    assert set(CALLS) >= {"settle", "cancel"}

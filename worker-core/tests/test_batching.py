"""The batching ladder: who may join when, and that a request's tokens do not depend on it."""

from __future__ import annotations

import random
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from tiny_models import VOCAB_SIZE, SaveModel

from sluice_worker.batching import BatchingMode, make_batching
from sluice_worker.block_pool import BlockPool
from sluice_worker.config import EngineConfig
from sluice_worker.engine import Engine
from sluice_worker.engine_messages import Abort, Add, encode, event_decoder
from sluice_worker.engine_process import CommandChannel, run_engine
from sluice_worker.errors import ConfigError
from sluice_worker.kv_allocation import PagedAllocation
from sluice_worker.outputs import EngineRequest
from sluice_worker.request import Request
from sluice_worker.sampling_params import SamplingParams
from sluice_worker.scheduler import Scheduler


class Clock:
    """A clock that goes on when it is told to."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


class Desk:
    """A scheduler with a clock, whose requests live until they are said to be done."""

    def __init__(self, mode: BatchingMode, tick_s: float = 0.0) -> None:
        self.now_s = 0.0
        self.requests: dict[str, Request] = {}
        self.scheduler = Scheduler(
            PagedAllocation(BlockPool(100, block_size=4)),
            make_batching(mode, max_batch=3, wait_s=0.05),
            max_num_seqs=8,
            max_num_batched_tokens=64,
            max_chunk=64,
            tick_s=tick_s,
        )

    def add(self, names: str, *, alone: bool = False) -> None:
        for name in names:
            asked = EngineRequest(
                request_id=name, prompt_token_ids=[ord(name)] * 3, params=SamplingParams(), alone=alone
            )
            self.requests[name] = Request(asked, self.now_s)
            self.scheduler.add(self.requests[name])

    def done(self, names: str) -> None:
        for name in names:
            self.scheduler.finish(self.requests.pop(name))

    def step(self, at_s: float) -> str:
        """Who computes in the step at this time."""
        self.now_s = at_s
        step = self.scheduler.schedule(at_s)
        self.scheduler.advance(step)
        for request, _ in step:
            request.append(7)
        self.scheduler.check_integrity()
        return "".join(request.request_id for request, _ in step)


# ---- who joins when ---------------------------------------------------------------------------------------


def test_none_runs_one_request_after_another() -> None:
    desk = Desk("none")
    desk.add("abc")
    assert [desk.step(0.0), desk.step(0.1)] == ["a", "a"]
    desk.done("a")
    assert desk.step(0.2) == "b"
    desk.scheduler.abort("b")
    assert desk.step(0.3) == "c"


def test_continuous_lets_everybody_join_at_the_next_step() -> None:
    desk = Desk("continuous")
    desk.add("ab")
    assert desk.step(0.0) == "ab"
    desk.add("c")
    assert desk.step(0.1) == "abc"


@pytest.mark.parametrize("mode", ["static", "dynamic"])
def test_a_full_batch_starts_at_once_and_nobody_joins_until_all_of_it_are_done(mode: BatchingMode) -> None:
    desk = Desk(mode)
    desk.add("abcdefg")
    assert desk.step(0.0) == "abc"
    desk.done("ab")
    assert desk.step(0.1) == "c"
    desk.done("c")
    assert desk.step(0.2) == "def"


@pytest.mark.parametrize("mode", ["static", "dynamic"])
def test_a_batch_that_is_not_full_waits_for_companions_but_not_forever(mode: BatchingMode) -> None:
    desk = Desk(mode)
    assert desk.scheduler.wait_s(0.0) is None
    desk.add("a")
    assert desk.step(0.0) == ""
    assert desk.scheduler.wait_s(0.02) == pytest.approx(0.03)
    desk.now_s = 0.04
    desk.add("b")
    assert desk.scheduler.wait_s(0.04) == pytest.approx(0.01)  # the first one's window, not the second's
    assert desk.step(0.049) == ""
    assert desk.scheduler.wait_s(0.051) == 0
    assert desk.step(0.051) == "ab"


def test_after_a_batch_dynamic_counts_the_time_spent_waiting_behind_it_and_static_does_not() -> None:
    for mode, starts_at_s in (("dynamic", 1.0), ("static", 1.05)):
        desk = Desk(mode)
        desk.add("abc")
        desk.step(0.0)
        desk.add("d")
        desk.done("abc")
        wait_s = desk.scheduler.wait_s(1.0)
        assert wait_s == pytest.approx(starts_at_s - 1.0)
        assert desk.step(starts_at_s + 1e-6) == "d", mode


def test_who_is_aborted_while_a_batch_gathers_leaves_no_gap() -> None:
    desk = Desk("dynamic")
    desk.add("ab")
    desk.step(0.0)
    desk.scheduler.abort("a")
    desk.now_s = 0.03
    desk.add("cd")
    assert desk.step(0.03) == "bcd"
    desk.add("e")
    for name in "bcd":
        desk.scheduler.abort(name)
    assert desk.step(0.2) == "e"


def test_a_request_that_runs_alone_does_not_wait_for_companions() -> None:
    desk = Desk("static")
    desk.add("x", alone=True)
    assert desk.step(0.0) == "x"


@pytest.mark.parametrize("mode", ["static", "dynamic", "continuous"])
def test_a_request_that_runs_alone_keeps_its_place_and_has_no_company(mode: BatchingMode) -> None:
    desk = Desk(mode)
    desk.add("a")
    desk.add("x", alone=True)
    desk.add("bcd")
    assert desk.step(0.0) == "a"  # a batch that nobody can join any more does not wait
    desk.done("a")
    assert [desk.step(0.1), desk.step(0.2)] == ["x", "x"]
    desk.done("x")
    assert desk.step(0.3) == "bcd"


def test_a_tick_gathers_newcomers_while_the_others_go_on() -> None:
    desk = Desk("continuous", tick_s=0.02)
    desk.add("a")
    assert desk.step(0.0) == "a"
    desk.add("b")
    assert desk.step(0.01) == "a"
    desk.add("c")
    assert desk.step(0.02) == "abc"
    desk.done("abc")
    desk.add("d")
    assert desk.scheduler.wait_s(0.03) == pytest.approx(0.01)
    assert desk.scheduler.wait_s(5.0) == 0  # long after the last admission there is nothing to wait for


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"max_batch": 0}, "max_batch is 0"),
        ({"batch_wait_ms": -1}, "batch_wait_ms is -1; choose milliseconds from 0"),
        ({"schedule_tick_ms": float("nan")}, "schedule_tick_ms is nan"),
    ],
)
def test_a_setting_that_cannot_work_is_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        EngineConfig(model="m", **settings)


# ---- the same tokens in every mode ------------------------------------------------------------------------

RUNGS = [(mode, kv) for mode in ("none", "static", "dynamic", "continuous") for kv in ("paged", "dense")]


def make_engine(save_model: SaveModel, clock: Clock, **settings: Any) -> Engine:
    _, folder = save_model("llama")
    shape = {"model": str(folder), "block_size": 8, "num_kv_blocks": 20, "max_num_seqs": 4}
    return Engine(EngineConfig(**{**shape, "max_chunk": 13, "max_batch": 3, **settings}), clock)


def traffic() -> Iterator[EngineRequest]:
    """Greedy and sampled requests, some behind a shared prefix, some alone."""
    rng = random.Random(3)
    shared = [rng.randrange(VOCAB_SIZE) for _ in range(20)]
    for index in range(16):
        prompt = shared[: rng.choice([0, 20])] + [rng.randrange(VOCAB_SIZE) for _ in range(1 + 2 * index)]
        params = SamplingParams(temperature=index % 2, seed=index, max_tokens=rng.randint(1, 30))
        yield EngineRequest(
            request_id=f"r{index}", prompt_token_ids=prompt, params=params, alone=index in (5, 11)
        )


def replay(engine: Engine, clock: Clock) -> dict[str, list[int]]:
    """Tokens of the traffic, arriving at random while the engine runs."""
    rng = random.Random(4)
    waiting, got = list(traffic()), {request.request_id: [] for request in traffic()}
    while waiting or engine.has_unfinished():
        if waiting and rng.random() < 0.4:
            engine.add_request(waiting.pop(0))
        for delta in engine.step().deltas:
            got[delta.request_id] += delta.new_token_ids
        engine.check_integrity()
        clock.now_s += 0.01
    return got


@pytest.fixture(scope="module")
def alone(save_model: SaveModel) -> dict[str, list[int]]:
    """What each request of the traffic gets with an engine to itself."""
    engine = make_engine(save_model, Clock(), enable_prefix_caching=False)
    return {
        asked.request_id: engine.generate([asked.prompt_token_ids], asked.params)[0].token_ids
        for asked in traffic()
    }


@pytest.mark.parametrize(("mode", "kv"), RUNGS)
def test_a_request_gets_the_same_tokens_in_every_mode(
    save_model: SaveModel, alone: dict[str, list[int]], mode: BatchingMode, kv: str
) -> None:
    clock = Clock()
    engine = make_engine(save_model, clock, batching=mode, kv=kv)
    assert replay(engine, clock) == alone
    stats = engine.stats()
    assert (stats.kv_blocks_used, stats.num_running, stats.num_waiting) == (0, 0, 0)
    assert (engine.model_info().batching, engine.model_info().kv) == (mode, kv)
    assert (stats.sequence_steps_total == stats.steps_total) == (mode == "none")


@pytest.mark.parametrize(("mode", "kv"), RUNGS)
def test_an_abort_anywhere_frees_everything(save_model: SaveModel, mode: BatchingMode, kv: str) -> None:
    rng, clock = random.Random(5), Clock()
    engine = make_engine(save_model, clock, batching=mode, kv=kv)
    for _ in range(12):
        asked = list(traffic())[:6]
        for request in asked:
            engine.add_request(request)
        for _ in range(rng.randrange(20)):
            engine.step()
            clock.now_s += 0.01
        rng.shuffle(asked)
        for request in asked:
            engine.abort(request.request_id)
            engine.check_integrity()
        assert engine.stats().kv_blocks_used == 0
        assert engine.wait_s() is None


def test_offline_generation_waits_for_a_batch_that_is_not_full(save_model: SaveModel) -> None:
    engine = make_engine(save_model, time.monotonic, batching="static", batch_wait_ms=5)  # type: ignore[arg-type]
    results = engine.generate([[1], [2, 3]], SamplingParams(temperature=0, max_tokens=4))
    assert [len(result.token_ids) for result in results] == [4, 4]


# ---- the engine process sleeps ----------------------------------------------------------------------------


class CountingEngine(Engine):
    """Counts how often it is asked how long to wait: a loop that polls asks again and again."""

    asked = 0

    def wait_s(self) -> float | None:
        self.asked += 1
        return super().wait_s()


def test_the_process_sleeps_until_a_batch_is_due_or_a_command_comes(save_model: SaveModel) -> None:
    _, folder = save_model("llama")
    config = EngineConfig(model=str(folder), num_kv_blocks=8, batching="dynamic", batch_wait_ms=200)
    engine = CountingEngine(config)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        thread = threading.Thread(target=serve_until_closed, args=(engine, theirs))
        thread.start()
        params = SamplingParams(temperature=0, max_tokens=1)
        for name in ("gone", "stays"):
            ours.sendall(encode(Add(EngineRequest(request_id=name, prompt_token_ids=[1], params=params))))
        ours.sendall(encode(Abort("gone")))
        read_until_token(ours)
        asked = engine.asked
        ours.shutdown(socket.SHUT_WR)
        thread.join()
    assert asked <= 12  # two for each command, two for the deadline, two for what follows


def serve_until_closed(engine: Engine, sock: socket.socket) -> None:
    with pytest.raises(EOFError):
        run_engine(engine, CommandChannel(sock))


def read_until_token(sock: socket.socket) -> None:
    """Skip events until the first that carries a token."""
    decoder, stream = event_decoder(), sock.makefile("rb")
    while True:
        length = int.from_bytes(stream.read(4))
        event = decoder.decode(stream.read(length))
        if event.outputs.deltas:  # type: ignore[union-attr]
            return

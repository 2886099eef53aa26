"""Put one load on one loaded engine and read its figures: `measure_step` is one repeat of one step.

Every request is checked: no failure, as many prompt and output tokens as asked, and none of the prompt from a
cache unless the load is about that. A repeat that fails the check keeps its figures and says why it does not
count; where an engine does not tell what came from a cache, the figures say of how many requests. Prompts
come from plain tokens, are the same for all contestants of a repeat, and never come twice.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise

from sluice_bench.answers import read_answers
from sluice_bench.load_run import run_blocking
from sluice_bench.loops import ClosedLoop, LoadPlan, OpenLoop
from sluice_bench.metrics import Objective, arrivals, summarise, ttft_service_s
from sluice_bench.peers.hf_generate import Task
from sluice_bench.processes import ForeignCpu, ServerFailed, pinned, two_cores
from sluice_bench.records import RequestRecord
from sluice_bench.stats.percentile import percentile_of
from sluice_bench.target import Target, WireRequest
from sluice_bench.worker_plan import Extension, Intrusion, Row, Step, Streams
from sluice_bench.worker_targets import MODEL_NAME, BatchContestant, Contestant, ServedContestant
from sluice_bench.workload import Asking, chosen_token_prompts, token_requests

CACHE_UNTOLD = "cache_untold_requests"
"""A figure: requests whose engine did not tell what came from a prompt cache."""

_REQUEST_LIMIT_S = 600.0
_WAKE_UP = Streams(prompt_tokens=16, output_tokens=2)
"""One request after a pause, not measured: caches are warm again, threads are awake."""


class Prompts:
    """Prompts of plain tokens, drawn by name: the same name gives the same prompts, another name others."""

    def __init__(self, ids: Sequence[int]) -> None:
        self._ids = ids

    def draw(self, name: str, count: int, length: int) -> list[tuple[int, ...]]:
        """`count` prompts of `length` ids."""
        return chosen_token_prompts(count, length, self._ids, seed=zlib.crc32(name.encode()))


def measure_step(step: Step, contestant: Contestant, prompts: Prompts, draw: str, repeat: int) -> Row:
    """One repeat of one step; `draw` names its prompts. The contestant is paused before and after."""
    contestant.resume()
    try:
        wake_up(contestant, prompts, f"{draw} {step.contestant}")
        foreign = ForeignCpu(os.getpid())  # engines and hog are our children
        figures, problem = _measured(step, contestant, prompts, draw)
        foreign_cores = foreign.cores()
    finally:
        contestant.pause()
    return Row(
        contestant=step.contestant,
        label=step.label,
        repeat=repeat,
        figures=figures,
        problem=problem,
        foreign_cores=foreign_cores,
    )


def wake_up(contestant: Contestant, prompts: Prompts, draw: str, load: Streams = _WAKE_UP) -> None:
    """Requests that are not measured. Raises `ServerFailed` when one goes wrong."""
    _, problem = _streams(contestant, load, prompts, f"awake {draw}")
    if problem:
        tail = contestant.server.tail() if isinstance(contestant, ServedContestant) else ""
        raise ServerFailed(f"{contestant.name} failed its warm-up: {problem}\n{tail}")


def _measured(
    step: Step, contestant: Contestant, prompts: Prompts, draw: str
) -> tuple[dict[str, float], str]:
    match step.load:
        case Streams() as load:
            with _hog() if load.hog else _nothing():
                return _streams(contestant, load, prompts, draw)
        case Extension() as load:
            return _extension(_served(contestant), load, prompts, draw)
        case Intrusion() as load:
            return _intrusion(_served(contestant), load, prompts, draw)
        case _:
            raise TypeError(f"{type(step.load).__name__} is not put on a loaded engine")


def _served(contestant: Contestant) -> ServedContestant:
    if not isinstance(contestant, ServedContestant):
        raise TypeError(f"{contestant.name} is not asked over HTTP")
    return contestant


# --- closed loops ----------------------------------------------------------------------------------------


def _streams(
    contestant: Contestant, load: Streams, prompts: Prompts, draw: str
) -> tuple[dict[str, float], str]:
    drawn = prompts.draw(draw, load.requests, load.prompt_tokens)
    if isinstance(contestant, BatchContestant):
        return _batch(contestant, load, drawn)
    server = _served(contestant).server
    cpu_before, client_before = server.cpu_s(), time.process_time()
    records = requested(server.url, drawn, load.output_tokens, load.streams)
    client_cpu_s, cpu_s = time.process_time() - client_before, server.cpu_s() - cpu_before
    summary = summarise(records, Objective(), load.streams)
    problem = next(filter(None, (problem_of(r, load.prompt_tokens, load.output_tokens) for r in records)), "")
    if summary.whole is None:
        return {}, problem or "no request ended"
    figures = {
        "seconds": summary.whole.seconds,
        "engine_cores": cpu_s / summary.whole.seconds,
        "client_cores": client_cpu_s / summary.whole.seconds,
        "resident_mb": server.largest_resident_bytes() / 1e6,
        CACHE_UNTOLD: float(summary.requests_without_cached_tokens),
    }
    if summary.whole.tokens_per_s is not None and summary.whole.output_tokens is not None:
        figures["tokens_per_s"] = summary.whole.tokens_per_s
        figures["cpu_ms_per_token"] = cpu_s * 1000 / max(1, summary.whole.output_tokens)
    if summary.ttft_service_ms is not None and summary.ttft_service_ms.p50 is not None:
        figures["ttft_p50_ms"] = summary.ttft_service_ms.p50
        figures["prefill_tokens_per_s"] = load.prompt_tokens * 1000 / summary.ttft_service_ms.p50
    if summary.tpot_ms is not None and summary.tpot_ms.p50 is not None:
        figures["tpot_p50_ms"] = summary.tpot_ms.p50
    return figures, problem


def _batch(
    contestant: BatchContestant, load: Streams, drawn: Sequence[Sequence[int]]
) -> tuple[dict[str, float], str]:
    task = Task(
        prompts=[list(prompt) for prompt in drawn],
        output_tokens=load.output_tokens,
        batching=contestant.batching,
    )
    result = contestant.peer.run(task)
    asked = load.output_tokens * len(drawn)
    problem = "" if result.output_tokens == asked else f"{result.output_tokens} output tokens, not {asked}"
    return {"tokens_per_s": result.output_tokens / result.seconds, "seconds": result.seconds}, problem


def problem_of(record: RequestRecord, prompt_tokens: int, output_tokens: int, cached_tokens: int = 0) -> str:
    """What was not as asked; empty when all was.

    Not every engine tells what came from a cache. That it does not is no problem where nothing should have
    (`CACHE_UNTOLD` counts such requests), and is one where the load is about the cache.
    """
    if record.failure is not None:
        return f"{record.failure}: {record.message}"
    for what, found, asked in (
        ("prompt tokens", record.prompt_tokens, prompt_tokens),
        ("output tokens", record.output_tokens, output_tokens),
        ("cached tokens", record.cached_tokens, cached_tokens),
    ):
        untold_zero = what == "cached tokens" and found is None and asked == 0
        if found != asked and not untold_zero:
            return f"{'unknown' if found is None else found} {what}, not {asked}"
    return ""


def requested(
    url: str, prompts: Sequence[Sequence[int]], output_tokens: int, streams: int
) -> list[RequestRecord]:
    """Ask for all prompts in a closed loop."""
    target = Target.parse(url)
    return _run(target, _requests(target, prompts, output_tokens), ClosedLoop(streams))


def _requests(target: Target, prompts: Sequence[Sequence[int]], output_tokens: int) -> list[WireRequest]:
    """Each request has a connection of its own: llama-server ends them unannounced after a stream."""
    asking = Asking(model=MODEL_NAME, ignore_eos=True, headers=(("Connection", "close"),))
    return token_requests(target, prompts, output_tokens, asking)


def _run(target: Target, requests: Sequence[WireRequest], loop: ClosedLoop | OpenLoop) -> list[RequestRecord]:
    streams = loop.concurrency if isinstance(loop, ClosedLoop) else len(requests)
    plan = LoadPlan(
        target=target,
        requests=requests,
        loop=loop,
        warm_connections=min(streams, len(requests)),
        request_timeout_s=_REQUEST_LIMIT_S,
        hard_stop_s=2 * _REQUEST_LIMIT_S,
    )
    return read_answers(run_blocking(plan))


@contextmanager
def _nothing() -> Iterator[None]:
    yield


@contextmanager
def _hog() -> Iterator[None]:
    """A process that does nothing else than keep one core busy."""
    cores = two_cores()
    with pinned(cores[0] if cores else None):
        hog = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        yield
    finally:
        hog.kill()
        hog.wait()


# --- behind a cached prefix ------------------------------------------------------------------------------


def _extension(
    contestant: ServedContestant, load: Extension, prompts: Prompts, draw: str
) -> tuple[dict[str, float], str]:
    """The time to one token of a prompt of which all but the last tokens are cached: one step of the engine
    over so many tokens of one sequence, as when drafted tokens are verified, and the request around it."""
    [prefix] = prompts.draw(f"{draw} prefix", 1, load.prefix_tokens)
    tails = prompts.draw(f"{draw} tail", load.requests, load.new_tokens)
    url = contestant.server.url
    requested(url, [prefix], 1, 1)
    records = requested(url, [prefix + tail for tail in tails], 1, 1)
    length = load.prefix_tokens + load.new_tokens
    problem = next(filter(None, (problem_of(r, length, 1, load.prefix_tokens) for r in records)), "")
    times = [s * 1000 for record in records if (s := ttft_service_s(record)) is not None]
    return ({"ttft_p50_ms": percentile_of(times, 0.5)} if times else {}), problem


# --- a long prompt beside a stream -----------------------------------------------------------------------


def _intrusion(
    contestant: ServedContestant, load: Intrusion, prompts: Prompts, draw: str
) -> tuple[dict[str, float], str]:
    target = Target.parse(contestant.server.url)
    [running] = prompts.draw(f"{draw} running", 1, load.prompt_tokens)
    [long] = prompts.draw(f"{draw} long", 1, load.intruder_tokens)
    requests = [*_requests(target, [running], load.output_tokens), *_requests(target, [long], 1)]
    stream, intruder = _run(target, requests, OpenLoop((0, round(load.after_s * 1e9))))
    problem = problem_of(stream, load.prompt_tokens, load.output_tokens)
    problem = problem or problem_of(intruder, load.intruder_tokens, 1)
    if problem or intruder.written_ns is None or intruder.first_token_ns is None:
        return {}, problem or "the long prompt was never sent"
    before, during = gaps_around(stream, intruder.written_ns, intruder.first_token_ns)
    if not before or not during:
        return {}, "the stream was not running while the long prompt was read"
    idle, busy = _p99_ms(before), _p99_ms(during)
    return {
        "idle_gap_p99_ms": idle,
        "busy_gap_p99_ms": busy,
        "busy_gap_max_ms": max(during) * 1000,
        "busy_gaps": float(len(during)),
        "intruder_ttft_ms": (intruder.first_token_ns - intruder.written_ns) / 1e6,
        CACHE_UNTOLD: float(sum(record.cached_tokens is None for record in (stream, intruder))),
    }, ""


def gaps_around(record: RequestRecord, start_ns: int, end_ns: int) -> tuple[list[float], list[float]]:
    """Seconds between two arrivals of a stream's text: those wholly before `start_ns`, and those of which a
    part lies between `start_ns` and `end_ns`."""
    stamps = [stamp for stamp, _ in arrivals(record)]
    before = [(b - a) / 1e9 for a, b in pairwise(stamps) if b <= start_ns]
    during = [(b - a) / 1e9 for a, b in pairwise(stamps) if b > start_ns and a < end_ns]
    return before, during


def _p99_ms(gaps: Sequence[float]) -> float:
    """Nearest-rank; of fewer than a hundred gaps it is the longest."""
    return percentile_of(gaps, 0.99) * 1000

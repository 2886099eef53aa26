"""Twenty-four ways to mismeasure a language-model server. Each test's number is that of its trap.

Times are compared in one direction only: a server that was silent for a while was silent at least so long,
on however busy a machine.
"""

from __future__ import annotations

import ast
import asyncio
import gc
import math
import os
import re
import signal
import socket
import time
from pathlib import Path
from typing import Any

import msgspec
import psutil
import pytest
from typer.testing import CliRunner

import sluice_bench
from sluice_bench import arrivals, metrics
from sluice_bench.answers import read_answers
from sluice_bench.api_calls import Server
from sluice_bench.audit.auditing import AuditSettings, audit
from sluice_bench.calibration import calibrate, calibrate_shards
from sluice_bench.cli import app
from sluice_bench.connection import Connection, Exchange
from sluice_bench.load_run import LoadRun, run_blocking
from sluice_bench.loops import ClosedLoop, LoadPlan, OpenLoop
from sluice_bench.metrics import Objective, summarise
from sluice_bench.processes import null_server_process
from sluice_bench.records import Chunk, Failure, RequestRecord, TokenSource
from sluice_bench.run_load import LoadOptions, choose_load
from sluice_bench.run_table import summary_lines
from sluice_bench.runs.live import LiveCounts
from sluice_bench.runs.measured_run import RunSettings, load_plan
from sluice_bench.runs.shards import MODULE, run_sharded
from sluice_bench.schedule_options import ScheduleOptions
from sluice_bench.stats.percentile import percentile
from sluice_bench.stats.timeline import count_windows, lowest_rate, peak_rate
from sluice_bench.target import Target
from sluice_bench.workload import Asking, Shape, chat_requests, geometric_lengths
from sluice_bench.workloads import suites
from sluice_bench.workloads.corpus import SuiteName, load_corpus
from sluice_bench.workloads.prepared import prepare

from ..http_double import serving
from .adversary import LONG_EVENTS, LONG_TEXT, PAUSE_S, Adversary, asking, listening
from .cheats import Trick, WordServer

OPEN: dict[int, str] = {}
"""Traps without a test, because what they could spoil does not exist."""

PARTLY_OPEN: dict[int, str] = {}

PAUSE_NS = round(PAUSE_S * 1e9 * 0.9)
"""What a silence is at least, whatever the clocks' steps."""


async def ask(behaviour: str, count: int = 1, loop: Any = None, **settings: Any) -> list[RequestRecord]:
    stream = settings.pop("stream", True)
    asked_tokens = settings.pop("asked_tokens", None)
    build = asking(behaviour, stream=stream, asked_tokens=asked_tokens)
    async with listening(settings.pop("adversary", Adversary())) as target, asyncio.timeout(60):
        plan = LoadPlan(
            target=target, requests=[build(target)] * count, loop=loop or ClosedLoop(1), **settings
        )
        return read_answers(await LoadRun(plan).run())


async def ask_once(behaviour: str, **settings: Any) -> RequestRecord:
    [record] = await ask(behaviour, **settings)
    return record


def ns(stamp: int | None) -> int:
    assert stamp is not None
    return stamp


async def test_trap_01_a_role_only_delta_is_no_first_token() -> None:
    record = await ask_once("role-first")
    assert ns(record.first_token_ns) - ns(record.first_choice_ns) >= PAUSE_NS
    assert len(record.chunks) == 2


async def test_trap_02_comments_are_neither_tokens_nor_events() -> None:
    record = await ask_once("comments")
    assert ns(record.first_token_ns) - ns(record.first_byte_ns) >= PAUSE_NS
    assert len(record.chunks) == 2
    assert record.n_events == 5  # two words, finish, usage, [DONE]
    [(gap_s, tokens)] = metrics.token_gaps(record)
    assert (gap_s * 1e9 >= PAUSE_NS, tokens) == (True, 1)


async def test_trap_03_a_late_usage_event_makes_no_answer_longer() -> None:
    record = await ask_once("late-usage")
    assert ns(record.end_ns) - ns(record.last_token_ns) >= PAUSE_NS
    assert metrics.e2e_s(record) == (ns(record.last_token_ns) - record.scheduled_ns) * metrics.NS
    assert record.output_tokens == 2


async def test_trap_04_a_chunk_of_four_tokens_is_four_tokens() -> None:
    record = await ask_once("four-a-chunk")
    span_s = (ns(record.last_token_ns) - ns(record.first_token_ns)) * metrics.NS
    assert record.token_source is TokenSource.LOGPROBS
    assert metrics.tpot_s(record) == pytest.approx(span_s / 8)
    gaps = list(metrics.token_gaps(record))
    assert sum(tokens for _, tokens in gaps) == 8
    assert sum(gap * tokens for gap, tokens in gaps) == pytest.approx(span_s)
    whole = metrics.whole_window([record])
    assert whole is not None and whole.output_tokens == 12


async def test_trap_04_the_peak_counts_tokens_and_not_chunks() -> None:
    """Three chunks of four tokens within a second, then silence until the run is longer than that."""
    record = await ask_once("four-a-chunk")
    later = msgspec.structs.replace(record, end_ns=record.scheduled_ns + 1_500_000_000)
    assert ns(record.last_token_ns) - record.scheduled_ns < 10**9, "the machine stood still for a second"
    assert metrics.peak_tokens_per_s([later]) == 12


async def test_trap_05_words_cut_into_chunks_keep_the_servers_count() -> None:
    record = await ask_once("cut-words")
    assert record.token_source is TokenSource.USAGE_SPREAD
    assert sum(chunk.n_tokens for chunk in record.chunks) == record.output_tokens == 7


def test_trap_06_while_the_load_runs_nothing_is_parsed() -> None:
    """The modules that run meanwhile cannot reach a JSON, SSE or token reader."""
    reached: set[str] = set()
    ahead = ["load_run"]
    while ahead:
        module = ahead.pop()
        reached.add(module)
        ahead += [name for name in _own_imports(module) if name not in reached]
    assert reached == set(HOT_PATH)


async def test_trap_07_a_long_answer_arrives_whole_and_at_the_servers_pace() -> None:
    """No read buffer that fills up, nothing shared between requests: the server is never made to wait."""
    records = await ask("long", count=2, loop=ClosedLoop(2))
    assert [record.failure for record in records] == [None, None]
    for record in records:
        assert record.text_bytes == LONG_EVENTS * len(LONG_TEXT)
        assert sum(chunk.n_tokens for chunk in record.chunks) == LONG_EVENTS
    assert "pause_reading" not in (PACKAGE / "connection.py").read_text()


async def test_trap_08_the_client_limits_no_connections() -> None:
    adversary = Adversary(hold=300)
    records = await ask("one-token", 300, OpenLoop((0,) * 300), adversary=adversary)
    assert [record.failure for record in records] == [None] * 300
    assert adversary.most_in_flight == 300


def test_trap_9_a_client_process_that_is_held_back_delays_nobody_else(tmp_path: Path) -> None:
    """One of three stands still for a second: what the others were to send leaves on schedule."""
    held: list[int] = []
    stamps: list[int] = []

    def hold_one(counts: LiveCounts) -> None:
        if not held:
            held.append(next(child.pid for child in psutil.Process().children() if MODULE in child.cmdline()))
            os.kill(held[0], signal.SIGSTOP)
            stamps.append(time.perf_counter_ns())
        elif len(stamps) == 1 and counts.sent > 70:
            stamps.append(time.perf_counter_ns())
            os.kill(held[0], signal.SIGCONT)

    with null_server_process(tmp_path) as null:
        target = Target.parse(null.url)
        shape = Shape(prompt_words=14, output_tokens=1)
        plan = LoadPlan(
            target=target,
            requests=chat_requests(target, shape, Asking(model="null"), 180, seed=1),
            loop=OpenLoop(arrivals.constant(60, 180)),
            warm_connections=6,
            hard_stop_s=60,
        )
        found = run_sharded(plan, 3, target, enough_probes=1, on_counts=hold_one)
    assert [record.failure for record in found.records] == [None] * 180
    stopped, resumed = stamps
    meanwhile = [r for r in found.records if stopped < r.scheduled_ns < resumed - 5 * PAUSE_NS]
    assert {record.shard for record in meanwhile} == {0, 1, 2}
    assert len({record.shard for record in meanwhile if ns(record.dispatched_ns) >= resumed}) == 1


async def test_trap_10_a_wait_in_the_client_is_in_the_users_latency_and_voids_the_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    start = Connection.start

    def busy(self: Connection, exchange: Exchange) -> None:
        start(self, exchange)
        if exchange.index == 0:
            time.sleep(0.3)

    monkeypatch.setattr(Connection, "start", busy)
    records = await ask("one-token", 4, OpenLoop((0, 100_000_000, 110_000_000, 120_000_000)))
    late = [record for record in records if (metrics.dispatch_lag_s(record) or 0) > 0.1]
    assert len(late) == 3
    for record in late:
        user, service = metrics.ttft_user_s(record), metrics.ttft_service_s(record)
        assert user is not None and service is not None and user - service > 0.1
    assert calibrate(records, records[:1]).void


def test_trap_11_poisson_gaps_are_exponential_and_never_rescaled() -> None:
    offsets = arrivals.poisson(50.0, 20_000, seed=11)
    assert offsets[:500] == arrivals.poisson(50.0, 500, seed=11)
    gaps = sorted((b - a) / 1e9 for a, b in zip((0, *offsets), offsets, strict=False))
    expected = [1 - math.exp(-50.0 * gap) for gap in gaps]
    distance = max(abs((rank + 1) / len(gaps) - share) for rank, share in enumerate(expected))
    assert distance < 1.63 / math.sqrt(len(gaps))  # Kolmogorov and Smirnov, 1 %


def test_trap_12_lengths_stay_in_their_range_and_keep_their_mean() -> None:
    lengths = geometric_lengths(20_000, mean=64, low=16, high=1_000, seed=1)
    assert min(lengths) == 16 and max(lengths) <= 1_000
    assert sum(lengths) / len(lengths) == pytest.approx(64, rel=0.03)


def test_trap_13_there_is_no_default_rate() -> None:
    result = CliRunner().invoke(app, ["run", "--url", "http://127.0.0.1:1", "--model", "m"])
    assert result.exit_code == 1
    assert "either --concurrency N" in result.output and "--rate N" in result.output


def test_trap_14_ramp_and_drain_are_not_in_the_steady_throughput() -> None:
    """Two users, a token a second each: while both run 2 tokens/s, over the whole run less."""
    s = 10**9
    records = [
        _timed(index, scheduled=start * s, stamps=[(start + i) * s for i in range(1, 11)])
        for index, start in enumerate((0, 4, 10, 14))
    ]
    summary = summarise(records, Objective(), initial=2)
    assert summary.whole is not None and summary.steady is not None
    assert summary.whole.tokens_per_s == pytest.approx(40 / 24)
    assert summary.steady.tokens_per_s == pytest.approx(2.0)


async def test_trap_15_an_answer_of_one_token_has_no_tpot_and_meets_no_objective_for_it() -> None:
    record = await ask_once("one-token")
    assert record.failure is None and metrics.tpot_s(record) is None
    assert not metrics.is_good(record, Objective(tpot_ms=1e9))
    assert summarise([record], Objective()).tpot_ms is None


async def test_trap_16_a_step_of_the_wall_clock_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    jumping = iter(range(10**6, 0, -1))
    monkeypatch.setattr(time, "time", lambda: float(next(jumping)))
    record = await ask_once("role-first")
    stamps = [record.scheduled_ns, ns(record.first_token_ns), ns(record.last_token_ns), ns(record.end_ns)]
    assert stamps == sorted(stamps) and 0 < (metrics.e2e_s(record) or 0) < 60
    for module in (*HOT_PATH, "answers", "metrics", "calibration", "arrivals"):
        source = (PACKAGE / f"{module}.py").read_text()
        assert not re.search(r"\btime\.time(_ns)?\b|\bdatetime\b", source), module


@pytest.mark.parametrize("suite", ["short", "multi-turn", "shared-prefix"])
def test_trap_17_no_prompt_of_a_warm_up_begins_like_one_that_is_measured(suite: SuiteName) -> None:
    load = choose_load(
        LoadOptions(
            requests=200,
            warm_up=200,
            seed=1,
            concurrency=2,
            arrivals=ScheduleOptions(),
            suite=suite,
            preset=None,
            fit=None,
        )
    )
    plan = load_plan(
        RunSettings(target=Target(host="h", port=1), asking=Asking(model="m"), load=load, concurrency=2)
    )
    assert [request.phase for request in plan.requests] == ["warm_up"] * 200 + ["measured"] * 200
    beginnings = [
        msgspec.json.decode(request.wire.partition(b"\r\n\r\n")[2])["messages"][0]["content"][:14]
        for request in plan.requests
    ]
    assert not set(beginnings[:200]) & set(beginnings[200:])


async def test_trap_17_no_prompt_helps_another_and_cache_hits_are_named() -> None:
    target, asked = Target(host="h", port=1), Asking(model="m")
    beginnings = [
        msgspec.json.decode(request.wire.partition(b"\r\n\r\n")[2])["messages"][0]["content"][:16]
        for seed in (1, 2)
        for request in prepare(target, suites.build(load_corpus(), "short", 200, seed), asked)
    ]
    assert len(set(beginnings)) == 400
    page = "\n".join(summary_lines(summarise([await ask_once("cached")], Objective())))
    assert "Prompt tokens from a cache: 12 of 16" in page


async def test_trap_18_a_server_that_stops_early_is_named() -> None:
    summary = summarise(await ask("stops-early", 2, asked_tokens=64), Objective())
    assert summary.shorter_than_asked == 2
    assert any("shorter than asked: 2 of 2" in line for line in summary_lines(summary))


@pytest.mark.parametrize(("trick", "verdict"), [(None, "pass"), ("ignores the seed", "fail")])
def test_trap_19_a_server_that_ignores_the_seed_is_found_by_an_audit(
    trick: Trick | None, verdict: str
) -> None:
    with serving(WordServer(trick).answer) as url:
        server = Server(target=Target.parse(url), model="words")
        record = audit(
            AuditSettings(server=server, seed=19, pairs=4, max_tokens=8), load_corpus(), lambda step: None
        )
    assert [finding.verdict for finding in record.findings if finding.check == "seed"] == [verdict]


def test_trap_20_percentiles_are_values_that_occurred() -> None:
    """Interpolation would say 90.1, and the mean of two halves' p90 would say 70."""
    values = [(float(value), 1) for value in range(1, 101)]
    assert percentile(values, 0.9) == 90.0
    halves = [percentile(half, 0.9) for half in (values[:50], values[50:])]
    assert sum(halves) / 2 == 70.0


def test_trap_20_of_several_processes_all_requests_count_and_no_p99_is_averaged() -> None:
    """One process saw the slow ones: the mean of the two p99 would be 505 ms, and nobody waited so long."""
    fast = [_timed(0, 0, [10_000_000])] * 500
    slow = [_timed(0, 0, [1_000_000_000])] * 4
    assert calibrate_shards([(fast, []), (slow, [])]).reference_p99_ms == pytest.approx(10.0)
    assert sum(calibrate(part, []).reference_p99_ms or 0 for part in (fast, slow)) / 2 == pytest.approx(505)


def test_trap_21_no_garbage_is_collected_while_the_load_runs() -> None:
    seen: list[bool] = []
    plan = LoadPlan(
        target=Target(host="127.0.0.1", port=_closed_port()),
        requests=chat_requests(
            Target(host="h", port=1), Shape(prompt_words=16, output_tokens=1), Asking(model="m"), 3, 1
        ),
        loop=ClosedLoop(1),
    )
    run_blocking(plan, lambda finished: seen.append(gc.isenabled()))
    assert seen == [False] * 3 and gc.isenabled()


async def test_trap_22_neither_compression_nor_handshake_nor_nagle_is_in_the_servers_time() -> None:
    adversary = Adversary()
    fresh, reused = await ask("one-token", 2, adversary=adversary)
    assert all(b"accept-encoding" not in head.lower() for head in adversary.heads)
    assert ns(fresh.dispatched_ns) < ns(fresh.connected_ns) <= ns(fresh.written_ns)
    assert (fresh.reused_connection, reused.reused_connection) == (False, True)
    assert ns(reused.connected_ns) == ns(reused.dispatched_ns)
    for record in (fresh, reused):
        service = metrics.ttft_service_s(record)
        assert service == (ns(record.first_token_ns) - ns(record.written_ns)) * metrics.NS


async def test_trap_22_a_compressed_answer_is_refused() -> None:
    record = await ask_once("gzip")
    assert record.failure is Failure.PROTOCOL
    assert "gzip" in record.message


async def test_trap_22_names_are_looked_up_before_the_clock_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    asked_ns: list[int] = []
    look_up = socket.getaddrinfo

    def spied(host: str, *arguments: Any, **options: Any) -> Any:
        asked_ns.append(time.perf_counter_ns())
        return look_up("127.0.0.1", *arguments, **options)

    async with listening(Adversary()) as address:
        monkeypatch.setattr(socket, "getaddrinfo", spied)
        target = Target(host="server.example", port=address.port)
        plan = LoadPlan(target=target, requests=[asking("one-token")(target)] * 2, loop=OpenLoop((0, 0)))
        records = read_answers(await LoadRun(plan).run())
    assert [record.failure for record in records] == [None, None]
    assert len(asked_ns) == 1 and asked_ns[0] < records[0].scheduled_ns


async def test_trap_22_segments_are_sent_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[int] = []
    start = Connection.start

    def spied(self: Connection, exchange: Exchange) -> None:
        opened = self._transport.get_extra_info("socket")
        found.append(opened.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
        start(self, exchange)

    monkeypatch.setattr(Connection, "start", spied)
    await ask("one-token", 2)
    assert len(found) == 2 and all(found)


def test_trap_23_a_partial_window_is_marked_and_is_neither_the_most_nor_the_least() -> None:
    """Ten tokens in each of two seconds; then six in a tenth, which are no 60 tokens/s, or none."""
    s, tenth = 10**9, 10**8
    steady = [second * s + step * tenth for second in (0, 1) for step in range(1, 11)]
    for stamps in ([*steady, *(2 * s + step * tenth // 6 for step in range(1, 7))], steady):
        record = _timed(0, scheduled=0, stamps=stamps)
        record = msgspec.structs.replace(record, end_ns=2 * s + tenth)
        windows = count_windows(metrics.all_token_stamps([record]), 0, 2 * s + tenth)
        assert [window.partial for window in windows] == [False, False, True]
        assert (peak_rate(windows), lowest_rate(windows)) == (10, 10)
        assert metrics.peak_tokens_per_s([record]) == 10


async def test_trap_24_what_was_not_told_is_not_zero() -> None:
    told, untold = await ask_once("cached"), await ask_once("untold-cache")
    assert (told.cached_tokens, untold.cached_tokens) == (12, None)
    assert b'"cached_tokens":null' in msgspec.json.encode(untold)
    assert summarise([told, untold], Objective()).cached_tokens is None
    silent = summarise([await ask_once("no-usage", stream=False)], Objective())
    assert (silent.prompt_tokens, silent.output_tokens, silent.requests_without_usage) == (None, None, 1)


def test_every_trap_is_tested_or_named_as_open() -> None:
    names = [name for name in globals() if name.startswith("test_trap_")]
    tested = {int(name.split("_")[2]) for name in names}
    assert tested | set(OPEN) == set(range(1, 25))
    assert not tested & set(OPEN) and set(PARTLY_OPEN) <= tested


def test_the_docs_list_the_traps_and_what_is_open() -> None:
    page = (Path(__file__).parents[3] / "docs" / "measuring.md").read_text()
    rows = re.findall(r"^\| (\d+) \| [^|]+ \| ([^|]+) \|$", page, re.MULTILINE)
    assert [int(number) for number, _ in rows] == list(range(1, 25))
    assert {int(number) for number, said in rows if said.startswith("*open:*")} == set(OPEN)
    assert {int(number) for number, said in rows if "; *open:*" in said} == set(PARTLY_OPEN)


# --- shared ----------------------------------------------------------------------------------------------

PACKAGE = Path(sluice_bench.__file__).parent
HOT_PATH = ("load_run", "connection", "due_timer", "loops", "target", "http_wire", "records")


def _own_imports(module: str) -> set[str]:
    tree = ast.parse((PACKAGE / f"{module}.py").read_text())
    froms = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    assert not any(node.module == "sluice_bench" for node in froms)
    names = [node.module or "" for node in froms]
    return {name.removeprefix("sluice_bench.") for name in names if name.startswith("sluice_bench.")}


def _timed(index: int, scheduled: int, stamps: list[int]) -> RequestRecord:
    return RequestRecord(
        index=index,
        stream=True,
        scheduled_ns=scheduled,
        dispatched_ns=scheduled,
        first_token_ns=stamps[0],
        last_token_ns=stamps[-1],
        end_ns=stamps[-1],
        chunks=tuple(Chunk(stamp, 1, 1) for stamp in stamps),
        output_tokens=len(stamps),
    )


def _closed_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    return port

"""Ending a run when enough is known: the rule, the order of looking, and what remains of the run."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any

import pytest
from typer.testing import CliRunner

from sluice_bench.answers import read_answers
from sluice_bench.cli import app
from sluice_bench.connection import Exchange
from sluice_bench.load_run import LoadRun
from sluice_bench.loops import ClosedLoop, LoadPlan, OpenLoop
from sluice_bench.processes import ServerProcess, null_server_process
from sluice_bench.recording.run_file import read_run
from sluice_bench.runs.answer_reader import answer_reader
from sluice_bench.runs.latency_figure import LatencyFigure
from sluice_bench.runs.shard import watching
from sluice_bench.runs.stopping import EarlyStop, Precision, StopRule, share_of
from sluice_bench.target import WireRequest

BODY = b'{"choices": [{"index": 0, "message": {"content": "hi"}}], "usage": {"completion_tokens": 1}}'
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (
    len(BODY),
    BODY,
)
runner = CliRunner()


@pytest.mark.parametrize("text", ["ttft-p50:5%", "e2e-mean:3%", "tpot-p99:0.5%"])
def test_a_rule_is_read_and_written(text: str) -> None:
    assert StopRule.parse(text).name == text


@pytest.mark.parametrize("text", ["ttft-p50", "ttft-p50:", "ttft-p50:0", "ttft-p50:100%", "ttft:5%", "x:y"])
def test_what_is_no_rule_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is no"):
        StopRule.parse(text)


def test_a_share_is_a_percentage_or_a_number() -> None:
    assert share_of("5%") == share_of("0.05") == 0.05


def test_requests_without_the_figure_are_passed_over() -> None:
    precision = Precision(StopRule.parse("ttft-mean:5%"), planned=100)
    for index in range(200):
        precision.add(None if index % 2 else 1.0)
    found = precision.estimate()
    assert found is not None and found.n == 100
    assert Precision(StopRule.parse("ttft-mean:5%"), planned=100).estimate() is None


@pytest.mark.parametrize("rule", ["ttft-p50:10%", "ttft-mean:10%"])
def test_a_narrower_interval_needs_more_requests(rule: str) -> None:
    def needed(text: str) -> int:
        source, precision = Random(3), Precision(StopRule.parse(text), planned=2000)
        for index in range(5000):
            precision.add(source.lognormvariate(0, 0.4))
            if index % 10 == 9 and precision.reached:
                return index
        raise AssertionError("never")

    assert 2 * needed(rule) < needed(rule.replace("10%", "5%"))


def answered(index: int, ended: bool = True) -> Exchange:
    """A plain answer that took a second, or takes still."""
    exchange = Exchange(index, WireRequest(b"", stream=False), 0)
    exchange.dispatched_ns = exchange.written_ns = 0
    if ended:
        exchange.reads, exchange.end_ns = [(10**9, ANSWER)], 10**9
    return exchange


async def test_answers_count_in_the_order_of_their_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    """A slow one holds up what was due after it: else quick answers would be seen first."""
    monkeypatch.setattr("sluice_bench.runs.stopping.LOOK_EVERY_S", 0.005)
    run = SimpleNamespace(exchanges=[answered(index, ended=index != 3) for index in range(60)], stopped=[])
    run.stop_sending = lambda: run.stopped.append(len(run.exchanges))
    with answer_reader(LatencyFigure.parse("e2e-p50")) as reader:
        stop = EarlyStop(StopRule.parse("e2e-p50:50%"), 1000, reader)
        task = asyncio.create_task(stop.watch(run))  # type: ignore[arg-type]
        await asyncio.sleep(0.1)
        assert run.stopped == []
        run.exchanges[3] = answered(3)
        async with asyncio.timeout(10):
            await task
    assert run.stopped == [60]
    found = stop.outcome([])
    assert found.reached and found.estimate is not None
    assert (found.estimate.n, found.estimate.value) == (60, 1.0)


async def test_a_reader_that_is_gone_is_told_and_not_waited_for() -> None:
    with answer_reader(LatencyFigure.parse("e2e-p50")) as reader:
        assert await reader.seconds(answered(0)) == 1.0
        assert await reader.seconds(Exchange(1, WireRequest(b"", stream=True), 0)) is None
        reader._channel.send(b"\x08\x00\x00\x00nonsense")  # it dies of this
        with pytest.raises(OSError, match=r"ended|reset|[Pp]ipe"):
            await reader.seconds(answered(2))


@pytest.mark.parametrize(
    "loop", [ClosedLoop(3), OpenLoop(tuple(range(0, 10**10, 10**7))), ClosedLoop(3, think_s=0.02)]
)
async def test_a_run_that_is_stopped_is_one_of_fewer_requests(
    loop: Any, scripted: Any, listen: Any, requests_to: Callable[..., list[WireRequest]]
) -> None:
    server = scripted([0.05, ANSWER])
    async with listen(server.handle) as target:
        plan = LoadPlan(target=target, requests=requests_to(target, 1000), loop=loop, hard_stop_s=30)
        run = LoadRun(plan, on_progress=lambda done: run.stop_sending() if done == 6 else None)
        exchanges = await run.run()
    assert 6 <= len(exchanges) < 100
    assert [exchange.index for exchange in exchanges] == list(range(len(exchanges)))
    assert [exchange.failure for exchange in exchanges] == [None] * len(exchanges)
    assert len(server.requests) == len(exchanges)


async def test_the_hard_stop_after_an_early_one_cuts_off_only_what_is_in_flight(
    scripted: Any, listen: Any, requests_to: Callable[..., list[WireRequest]]
) -> None:
    async with listen(scripted([30.0]).handle) as target:
        plan = LoadPlan(target=target, requests=requests_to(target, 9), loop=ClosedLoop(2), hard_stop_s=0.3)
        run = LoadRun(plan)
        asyncio.get_running_loop().call_later(0.1, run.stop_sending)
        records = read_answers(await run.run())
    assert [record.failure for record in records] == ["cut_off"] * 2


async def test_a_defect_of_whoever_watches_is_not_swallowed(
    scripted: Any, listen: Any, requests_to: Callable[..., list[WireRequest]]
) -> None:
    async def broken(run: LoadRun) -> None:
        raise RuntimeError("broken")

    async with listen(scripted([ANSWER]).handle) as target:
        run = LoadRun(LoadPlan(target=target, requests=requests_to(target, 2), loop=ClosedLoop(1)))
        with pytest.raises(RuntimeError, match="broken"):
            async with watching(run, broken):
                await run.run()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with null_server_process(tmp_path_factory.mktemp("null"), 3, 5.0, more=["--first-ms", "20"]) as process:
        yield process


@pytest.mark.usefixtures("few_probes")
def test_run_stops_when_enough_is_known_and_records_what_was_asked(
    server: ServerProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sluice_bench.runs.stopping.LOOK_EVERY_S", 0.2)
    stopped, whole = tmp_path / "stopped.parquet", tmp_path / "whole.parquet"

    def run(path: Path, count: int, *more: str) -> str:
        loop = ["--rate", "200", "--requests", str(count)]
        result = runner.invoke(app, ["run", "--url", server.url, *loop, "--output", str(path), *more])
        assert result.exit_code in (0, 3), result.output
        return result.output.replace("\n", " ")

    page = run(stopped, 5000, "--stop-when", "e2e-p50:40%")
    kept = read_run(stopped)
    count = len(kept.requests)
    assert 11 <= count < 5000
    assert f"Stopped after {count} of 5000 requests, e2e-p50 known to 40%" in page
    stopping = kept.meta.stopping
    assert stopping is not None and stopping.reached and stopping.estimate is not None
    assert stopping.estimate.within(0.4) and stopping.estimate.n <= count
    assert all(request.failure is None for request in kept.requests)
    assert runner.invoke(app, ["verify", str(stopped)]).exit_code == 0

    run(whole, count)
    same = read_run(whole).meta
    assert (same.requests_sha256, same.workload_sha256) == (
        kept.meta.requests_sha256,
        kept.meta.workload_sha256,
    )
    assert same.load.schedule_sha256 == kept.meta.load.schedule_sha256


@pytest.mark.usefixtures("few_probes")
def test_run_says_when_the_bound_was_not_reached(server: ServerProcess) -> None:
    loop = ["--concurrency", "4", "--requests", "8", "--stop-when", "ttft-p50:1%"]
    result = runner.invoke(app, ["run", "--url", server.url, *loop])
    assert result.exit_code in (0, 3), result.output
    assert "Not stopped early: ttft-p50 was not known to 1% after 8 answers" in result.output.replace(
        "\n", " "
    )


@pytest.mark.parametrize("option", [["--processes", "2"], ["--sessions", "--suite", "multi-turn"]])
def test_requests_out_of_order_cannot_be_stopped_early(server: ServerProcess, option: list[str]) -> None:
    loop = ["--concurrency", "4", "--stop-when", "e2e-p50:5%"]
    result = runner.invoke(app, ["run", "--url", server.url, *loop, *option])
    assert result.exit_code == 1
    assert "leave out --processes and --sessions" in " ".join(result.output.split())


def test_a_rule_that_is_none_gets_a_sentence(server: ServerProcess) -> None:
    result = runner.invoke(app, ["run", "--url", server.url, "--rate", "1", "--stop-when", "soon"])
    assert result.exit_code == 1
    assert "--stop-when FIGURE:SHARE" in result.output

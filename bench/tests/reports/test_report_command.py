"""The command as a user types it, on run files."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from pathlib import Path

import msgspec
import pytest
from typer.testing import CliRunner

from sluice_bench.cli import app
from sluice_bench.recording.run_file import write_run
from sluice_bench.reports.search_plot import read_search
from sluice_bench.runs.rate_search import ProbePoint, RateSearch
from sluice_bench.stats.slo_profiles import PROFILES

from .invented_runs import closed_run
from .test_figures import quality_file
from .test_html_page import COMPARISON, SEARCH

runner = CliRunner()


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("runs")
    paths = [folder / "one.parquet", folder / "four.parquet"]
    for path, users in zip(paths, (1, 4), strict=True):
        write_run(closed_run(users, 40, variant="int4"), path)
    return [str(path) for path in paths]


def test_everything_is_written(files: list[str], tmp_path: Path) -> None:
    ab, search = tmp_path / "ab.json", tmp_path / "search.json"
    side = {"url": "http://h", "model": "m", "headers": ["X-Quant: int4"]}
    ab.write_bytes(
        msgspec.json.encode({"a": side, "b": side, "run": {"comparisons": [COMPARISON], "slots": []}})
    )
    search.write_bytes(msgspec.json.encode(SEARCH))
    arguments = [
        *("--output", str(tmp_path / "out" / "report.html"), "--csv", str(tmp_path / "rows.csv")),
        *("--png", str(tmp_path / "png"), "--svg", str(tmp_path / "svg")),
        *("--ab", str(ab), "--search", str(search), "--quality", str(quality_file(tmp_path / "q.json"))),
        *("--price", "a100-80gb", "--price", "2", "--title", "A <title>"),
    ]
    result = runner.invoke(app, ["report", *files, *arguments])
    assert result.exit_code == 0, result.output
    page = (tmp_path / "out" / "report.html").read_text()
    assert "<h1>A &lt;title&gt;</h1>" in page
    for heading in ("A against B", "The highest rate", "Quality beside speed", "Cost per million tokens"):
        assert f">{heading}" in page
    assert (tmp_path / "rows.csv").read_text().count("\n") == 81
    drawn = sorted(path.stem for path in (tmp_path / "svg").iterdir())
    assert drawn == sorted(path.stem for path in (tmp_path / "png").iterdir())
    assert {"a-against-b-1", "search", "cost-1", "cost-2", "timeline-1", "lanes-2"} <= set(drawn)
    for path in (tmp_path / "svg").iterdir():
        ElementTree.parse(path)


def test_a_search_file_is_read_as_the_search_writes_it(tmp_path: Path) -> None:
    point = ProbePoint(
        rate=2.0, overload_rate=None, settled=True, scheduled=9, failures={}, void=False, ttft_ms=None,
        tpot_ms=None, strain=None, ttft_p50_ms=None, tpot_p50_ms=None, e2e_p50_ms=None, tokens_per_s=50.0,
        complete_per_s=1.9, good_share=0.5,
    )  # fmt: skip
    written = RateSearch(
        profile=PROFILES[0], low=1.0, high=9.0, points=(point,), rate=None, met=None, failed=2.0,
        cliff=False, recovers=None, void=False,
    )  # fmt: skip
    path = tmp_path / "search.json"
    path.write_bytes(msgspec.json.encode(written))
    found = read_search(path)
    assert (found.failed, found.points[0].rate, found.points[0].verdict) == (2.0, 2.0, "not met")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "Say what to write"),
        (["--output", "{}/r.html", "--price", "gold"], "--price takes USD per hour"),
        (["--output", "{}/r.html", "--price", "1", "--prices", "{}/none.json"], "No such file"),
        (["--output", "{}/r.html", "--ab", "{}/none.json"], "No such file"),
        (["--output", "{}/r.html", "--ab", "{}/empty.json"], "is not what `ab --output` writes"),
        (["--output", "{}/r.html", "--ab", "{}/few.json"], "compares nothing; too few of its blocks"),
        (["--output", "{}/r.html", "--search", "{}/empty.json"], "is not what `search --output` writes"),
        (["--output", "{}/r.html", "--quality", "{}/empty.json"], "is not what `quality --output` writes"),
        (["--output", "{}/empty.json/r.html"], "cannot be written"),
    ],
)
def test_bad_input_is_one_sentence(
    files: list[str], tmp_path: Path, arguments: list[str], sentence: str
) -> None:
    (tmp_path / "empty.json").write_text("{}")
    side = '{"url": "u", "model": "m"}'
    (tmp_path / "few.json").write_text(f'{{"a": {side}, "b": {side}, "run": {{"comparisons": []}}}}')
    filled = [argument.format(tmp_path) for argument in arguments]
    result = runner.invoke(app, ["report", *files, *filled])
    assert result.exit_code == 1
    assert sentence in " ".join(result.output.split())
    assert "Traceback" not in result.output


def test_what_is_no_run_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "no.parquet"
    path.write_text("no")
    result = runner.invoke(app, ["report", str(path), "--csv", str(tmp_path / "x.csv")])
    assert result.exit_code == 1
    assert "is not a parquet file" in " ".join(result.output.split())


def test_png_without_pillow_is_status_2(
    files: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "PIL", None)
    result = runner.invoke(app, ["report", *files, "--png", str(tmp_path)])
    assert result.exit_code == 2
    assert "pip install 'sluice-bench[png]'" in result.output

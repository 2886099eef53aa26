"""A record that was tampered with, or a definition that changed, is noticed."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from typer.testing import CliRunner

from sluice_bench import metrics
from sluice_bench.cli import app
from sluice_bench.recording.run_file import write_run
from sluice_bench.recording.verification import complaints, number_of_figures

from .invented_run import small_run


def test_an_honest_run_gives_no_complaint() -> None:
    run = small_run()
    assert complaints(run) == []
    assert number_of_figures(run) > 50


def test_a_changed_stamp_shows_in_the_digest_and_in_the_figures() -> None:
    run = small_run()
    first, *others = run.requests
    slower = msgspec.structs.replace(first, first_token_ns=(first.first_token_ns or 0) + 1)
    found = complaints(msgspec.structs.replace(run, requests=(slower, *others)))
    assert "the requests have the digest" in found[0]
    assert any(sentence.startswith("ttft_user_ms.mean is ") for sentence in found)


def test_a_changed_figure_is_named() -> None:
    run = small_run()
    prettier = run.figures.replace(b'"complete":5', b'"complete":6')
    assert prettier != run.figures
    found = complaints(msgspec.structs.replace(run, figures=prettier))
    assert "the figures have the digest" in found[0]
    assert found[1:] == ["complete is 6 in the file, and 5 from its requests"]


def test_a_changed_definition_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    run = small_run()
    monkeypatch.setattr(metrics, "NS", 1e-9 * (1 + 1e-15))
    assert any(sentence.startswith("e2e_ms.") for sentence in complaints(run))


def test_a_run_without_requests_and_figures_that_are_none_are_complaints() -> None:
    run = small_run()
    assert "there are no requests" in complaints(msgspec.structs.replace(run, requests=()))
    assert complaints(msgspec.structs.replace(run, figures=b"?"))


def test_the_command_says_what_it_checked_and_fails_by_name(tmp_path: Path) -> None:
    good, bad = tmp_path / "good.parquet", tmp_path / "bad.parquet"
    run = small_run()
    write_run(run, good)
    write_run(msgspec.structs.replace(run, figures=run.figures.replace(b'"good":4', b'"good":5')), bad)
    result = CliRunner().invoke(app, ["verify", str(good)])
    assert result.exit_code == 0, result.output
    assert f"6 requests, {number_of_figures(run)} figures, all as recorded" in result.output
    result = CliRunner().invoke(app, ["verify", str(good), str(bad)])
    assert result.exit_code == 1
    assert f"{bad}: good is 5 in the file, and 4 from its requests." in result.output


def test_a_file_that_is_no_run_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "x.parquet").write_text("x")
    for name in ("x.parquet", "nothing.parquet"):
        result = CliRunner().invoke(app, ["verify", str(tmp_path / name)])
        assert result.exit_code == 1
        assert name in result.output and "Traceback" not in result.output

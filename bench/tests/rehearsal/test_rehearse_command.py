"""The command `sluice-bench rehearse` and its page, with invented findings."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from typer.testing import CliRunner

from sluice_bench.cli import app
from sluice_bench.commands import rehearse_command
from sluice_bench.environment import describe
from sluice_bench.rehearsal.finding import Check, Finding
from sluice_bench.rehearsal.page import Rehearsal, render


def rehearsal(*good: bool) -> Rehearsal:
    """A scene for each; those that are not good have broken one of their two promises."""
    return Rehearsal(
        command="sluice-bench rehearse",
        played_at="2001-01-01T00:00+00:00",
        environment=describe(),
        compiled=True,
        findings=[
            Finding(
                title=f"Scene {number}",
                promise=f"Promise {number}.",
                header=("n",),
                rows=(("12",),),
                checks=(Check("12 came", True), Check("nobody left", kept)),
            )
            for number, kept in enumerate(good, start=1)
        ],
    )


def played(monkeypatch: pytest.MonkeyPatch, found: Rehearsal, *options: str) -> tuple[int, str]:
    monkeypatch.setattr(rehearse_command, "_played", lambda *_: found)
    monkeypatch.setattr(rehearse_command, "need_stack", lambda: None)
    monkeypatch.setattr("signal.signal", lambda *_: None)
    result = CliRunner().invoke(app, ["rehearse", *options])
    return result.exit_code, result.output


def test_it_ends_well_when_every_promise_was_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    status, said = played(monkeypatch, rehearsal(True, True))

    assert status == 0
    assert "Promise 2." in said
    assert "Wrote" not in said


def test_a_broken_promise_is_an_exit_status_and_the_page_is_written_nevertheless(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    found, page = rehearsal(True, False), tmp_path / "page.md"
    status, said = played(monkeypatch, found, "--output", str(page))

    assert status == 1
    assert "BROKEN: nobody left" in said
    assert "1 of the above" in said
    assert page.read_text() == render(found, "page.json")
    assert msgspec.json.decode(page.with_suffix(".json").read_bytes(), type=Rehearsal) == found


def test_a_scene_that_there_is_not_is_one_sentence() -> None:
    result = CliRunner().invoke(app, ["rehearse", "--scene", "fly"])

    assert result.exit_code == 1
    assert result.output.startswith("--scene does not know fly; choose from slow-worker, ")


def test_the_page_says_how_it_was_played_and_which_promise_was_kept() -> None:
    page = render(rehearsal(True, False), "page.json").splitlines()

    assert "sluice-bench rehearse" in page
    assert "| Scene 1 | Promise 1. | yes |" in page
    assert "| Scene 2 | Promise 2. | **no** |" in page
    assert page.index("## Scene 1") < page.index("- ok: nobody left") < page.index("- BROKEN: nobody left")
    assert any("[page.json](page.json)" in line for line in page)

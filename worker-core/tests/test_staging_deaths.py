"""A stager that is killed at any moment: what is there then, and what the next run makes of it."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from staging_tools import FILES, Deadly, Silent, content, in_child, is_whole, make_model, stage

from sluice_worker.errors import StagingError
from sluice_worker.staging.manifest import read_manifest


def test_killed_anywhere_the_folder_is_absent_or_whole_and_the_next_run_ends_the_same(tmp_path: Path) -> None:
    model = make_model(tmp_path / "m")
    for after in range(100):
        out = tmp_path / f"v{after}" / "out"
        status = in_child(lambda: stage(model, out, Deadly(after)))  # noqa: B023
        assert status in (0, 9)
        assert not out.exists() or is_whole(out)
        stage(model, out)
        assert content(out) == FILES and is_whole(out)
        assert sorted(path.name for path in out.parent.iterdir()) == [".out.lock", "out"]
        if status == 0:
            break
    assert 20 < after < 99


def test_killed_while_replacing_the_folder_is_the_old_or_the_new_one(tmp_path: Path) -> None:
    old, new = make_model(tmp_path / "old"), make_model(tmp_path / "new", {**FILES, "config.json": b"{}"})
    moments = set()
    for after in range(100):
        out = tmp_path / f"v{after}" / "out"
        stage(old, out)
        status = in_child(lambda: stage(new, out, Deadly(after)))  # noqa: B023
        moments.add(content(out).get("config.json") if out.exists() else None)
        assert not out.exists() or is_whole(out)
        stage(new, out)
        assert content(out) == {**FILES, "config.json": b"{}"} and is_whole(out)
        if status == 0:
            break
    assert moments == {FILES["config.json"], None, b"{}"}  # None: between two renames


def test_between_the_renames_even_a_run_that_fails_puts_the_finished_folder_in_place(tmp_path: Path) -> None:
    old, new, out = make_model(tmp_path / "old"), make_model(tmp_path / "new"), tmp_path / "out"
    stage(old, out)
    for after in range(100):
        assert in_child(lambda: stage(new, out, Deadly(after))) == 9  # noqa: B023
        if not out.exists():
            break
    with pytest.raises(StagingError, match="There is no model folder"):
        stage(tmp_path / "gone", out)
    manifest = read_manifest(out)
    assert manifest is not None and manifest.request.source == str(new) and is_whole(out)


@settings(max_examples=15, deadline=None)
@given(deaths=st.lists(st.integers(0, 30), min_size=1, max_size=4))
def test_any_number_of_deaths(deaths: list[int], tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("deaths")
    model, out = make_model(folder / "m"), folder / "v" / "out"
    for after in deaths:
        in_child(lambda: stage(model, out, Deadly(after)))  # noqa: B023
        assert not out.exists() or is_whole(out)
    stage(model, out)
    assert content(out) == FILES
    assert sorted(path.name for path in out.parent.iterdir()) == [".out.lock", "out"]
    shutil.rmtree(folder)


def test_what_came_before_a_death_is_not_fetched_again(tmp_path: Path) -> None:
    model, out, counted = make_model(tmp_path / "m"), tmp_path / "out", Silent()
    stage(model, tmp_path / "whole", counted)
    noted = counted.steps.index("note model.safetensors")
    assert noted > 0

    class DiesAtNotes(Silent):
        def step(self, name: str) -> None:
            if name == "note sub/notes.txt":
                os._exit(9)

    assert in_child(lambda: stage(model, out, DiesAtNotes())) == 9
    reporter = Silent()
    stage(model, out, reporter)
    assert [step for step in reporter.steps if step.startswith("fetch")] == ["fetch sub/notes.txt"]

"""Names of run files: by variant and start, none twice, the oldest first."""

from __future__ import annotations

from pathlib import Path

from sluice_bench.experiments.results_folder import new_run_file, run_files


def test_a_second_run_of_a_second_gets_a_number(tmp_path: Path) -> None:
    names = []
    for _ in range(11):
        path = new_run_file(tmp_path, "paged", "2026-01-02T03:04:05+00:00")
        path.parent.mkdir(exist_ok=True)
        path.touch()
        names.append(path.name)
    earlier = new_run_file(tmp_path, "paged", "2026-01-02T04:04:04+01:00")
    earlier.touch()

    assert names[:2] == ["20260102T030405Z.parquet", "20260102T030405Z-2.parquet"]
    assert [path.name for path in run_files(tmp_path, "paged")] == ["20260102T030404Z.parquet", *names]
    assert run_files(tmp_path, "dense") == []

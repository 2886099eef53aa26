"""What is written is read; what is no run file is refused with the reason."""

from __future__ import annotations

import random
from pathlib import Path

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sluice_bench.recording.run_file import BadRunFile, read_run, write_run
from sluice_bench.recording.run_record import SCHEMA, recorded
from sluice_bench.records import RequestRecord

from .invented_run import run_of, small_run, streamed


def test_a_run_survives_its_file(tmp_path: Path) -> None:
    run = small_run()
    write_run(run, tmp_path / "variant" / "run.parquet")
    assert read_run(tmp_path / "variant" / "run.parquet") == run
    assert [path.name for path in (tmp_path / "variant").iterdir()] == ["run.parquet"]


def test_unknown_is_null_and_zero_is_zero(tmp_path: Path) -> None:
    write_run(small_run(), tmp_path / "run.parquet")
    columns = pq.read_table(tmp_path / "run.parquet").to_pydict()
    assert columns["cached_tokens"] == [0, 0, 0, 0, None, None]
    assert columns["output_tokens"] == [9, 9, 9, 9, None, None]
    assert columns["failure"] == [None] * 5 + ["not_sent"]
    assert columns["text_sha256"][4] is None


def test_every_field_of_a_record_has_a_column(tmp_path: Path) -> None:
    write_run(small_run(), tmp_path / "run.parquet")
    columns = set(pq.read_schema(tmp_path / "run.parquet").names)
    fields = {field.name for field in msgspec.structs.fields(RequestRecord)}
    assert fields - columns == {"chunks"}
    assert columns - fields == {"chunk_gap_ns", "chunk_tokens", "chunk_bytes"}


def test_a_token_takes_few_bytes(tmp_path: Path) -> None:
    source = random.Random(1)
    run = run_of(*(streamed(index, 1_000, source) for index in range(100)))
    write_run(run, tmp_path / "run.parquet")
    assert (tmp_path / "run.parquet").stat().st_size < 8 * 100_000


def test_what_is_no_run_file_is_refused_with_the_reason(tmp_path: Path) -> None:
    path = tmp_path / "run.parquet"
    path.write_text("no parquet")
    with pytest.raises(BadRunFile, match="is not a parquet file"):
        read_run(path)
    pq.write_table(pa.table({"a": [1]}), path)
    with pytest.raises(BadRunFile, match="but not of a run"):
        read_run(path)


def test_a_file_of_a_later_version_is_refused(tmp_path: Path) -> None:
    run = small_run()
    later = msgspec.structs.replace(run.meta, schema=SCHEMA + 1)
    write_run(msgspec.structs.replace(run, meta=later), tmp_path / "run.parquet")
    with pytest.raises(BadRunFile, match="newer sluice-bench"):
        read_run(tmp_path / "run.parquet")


def test_records_are_written_in_the_order_of_their_index(tmp_path: Path) -> None:
    run = small_run()
    shuffled = recorded(run.meta, run.requests[::-1])
    assert shuffled == run

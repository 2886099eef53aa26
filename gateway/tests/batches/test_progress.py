"""What a batch has achieved survives crashes at any byte, and counts once."""

from __future__ import annotations

import asyncio
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sluice_gateway.batches import progress
from sluice_gateway.batches.progress import ProgressLog, Record, decode, encode

LINES = st.binary(max_size=60).map(lambda line: line.replace(b"\n", b" "))
RECORDS = st.lists(st.builds(Record, st.integers(0, 9), st.sampled_from(["o", "e"]), LINES), max_size=12)


@given(st.builds(Record, st.integers(0, 10**9), st.sampled_from(["o", "e"]), LINES))
def test_a_record_reads_as_it_was_written(record: Record) -> None:
    assert decode(encode(record)) == record


@given(st.builds(Record, st.integers(0, 99), st.sampled_from(["o", "e"]), LINES), st.data())
def test_a_record_that_is_not_whole_is_none(record: Record, data: st.DataObject) -> None:
    whole = encode(record)
    cut = data.draw(st.integers(0, len(whole) - 1))
    assert decode(whole[:cut]) is None
    assert decode(whole[:cut] + bytes([whole[cut] ^ 1]) + whole[cut + 1 :]) is None


@given(st.binary(max_size=40))
def test_any_bytes_are_a_record_or_none(data: bytes) -> None:
    assert decode(data) is None or encode(decode(data) or Record(0, "o", b"")) == data


async def written(folder: Path, epoch: int, records: list[Record]) -> ProgressLog:
    log = ProgressLog(folder, "batch_1", epoch)
    await log.open()
    await asyncio.gather(*[log.append(record) for record in records])
    return log


@settings(max_examples=60, deadline=None)
@given(RECORDS, RECORDS, st.integers(0, 200))
def test_a_crash_at_any_byte_loses_only_what_was_torn(
    first: list[Record], second: list[Record], torn: int
) -> None:
    async def story(folder: Path) -> None:
        before = await written(folder, 1, first)
        await before.aclose()
        path = folder / "batch_1.00000001.progress"
        kept = path.read_bytes()[: max(0, path.stat().st_size - torn)]
        path.write_bytes(kept)
        survivors = _first_of_each(first[: kept.count(b"\n")])
        after = ProgressLog(folder, "batch_1", 2)
        await after.open()
        assert after.done == {record.index for record in survivors}
        assert after.failed == sum(record.destination == "e" for record in survivors)
        for record in second:
            await after.append(record)
        assert [*after.records()] == _first_of_each([*survivors, *second])
        await after.aclose()

    with TemporaryDirectory() as folder:
        asyncio.run(story(Path(folder)))


def _first_of_each(records: list[Record]) -> list[Record]:
    firsts: dict[int, Record] = {}
    for record in records:
        firsts.setdefault(record.index, record)
    return [*firsts.values()]


async def test_an_owner_that_was_thought_dead_writes_into_the_void(tmp_path: Path) -> None:
    zombie = await written(tmp_path, 1, [Record(0, "o", b"first")])
    owner = ProgressLog(tmp_path, "batch_1", 2)
    await owner.open()
    await zombie.append(Record(1, "o", b"too late"))
    await owner.append(Record(1, "e", b"mine"))
    assert [record.line for record in owner.records()] == [b"first", b"mine"]
    await zombie.aclose()
    await owner.aclose()


async def test_a_result_stays_although_its_writer_was_cancelled(tmp_path: Path) -> None:
    log = await written(tmp_path, 1, [])
    task = asyncio.create_task(log.append(Record(0, "o", b"x")))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await log.append(Record(1, "o", b"y"))
    assert log.done == {0, 1}
    await log.aclose()


async def test_a_log_that_cannot_be_written_says_so_from_then_on(tmp_path: Path) -> None:
    log = await written(tmp_path, 1, [Record(0, "o", b"x")])
    await log.aclose()
    for _ in range(2):
        with pytest.raises(OSError, match="progress"):
            await log.append(Record(1, "o", b"y"))
    assert log.done == {0}


async def test_removing_takes_all_files_of_one_batch(tmp_path: Path) -> None:
    other = ProgressLog(tmp_path, "batch_2", 1)
    await other.open()
    for epoch in (1, 2):
        await (await written(tmp_path, epoch, [])).aclose()
    assert progress.batch_ids(tmp_path) == {"batch_1", "batch_2"}
    progress.remove(tmp_path, "batch_1")
    assert progress.batch_ids(tmp_path) == {"batch_2"}
    await other.aclose()

"""One answer, many readers: all get the same bytes and the same end."""

from __future__ import annotations

import asyncio
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sluice_gateway.replay.shared_answer import SharedAnswer
from sluice_gateway.wire import Header

from .clients import SSE, MemoryWire

MIB = 1_048_576


def same(headers: list[Header]) -> list[Header]:
    return headers


class Shared(SharedAnswer):
    """With a count of how often it was deserted."""

    __slots__ = ("desertions",)

    def __init__(self, max_bytes: int = MIB) -> None:
        self.desertions = 0
        super().__init__(max_bytes, self._note)

    def _note(self) -> None:
        self.desertions += 1


async def turns(count: int = 5) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def test_a_late_reader_gets_what_is_there_and_then_follows() -> None:
    shared, early, late = Shared(), MemoryWire(), MemoryWire()
    first = asyncio.create_task(shared.follow(early, same))
    shared.start(200, [SSE])
    shared.write(b"one ")
    await turns()
    assert early.body == b"one "

    second = asyncio.create_task(shared.follow(late, same))
    await turns()
    assert late.body == b"one "
    shared.write(b"two ")
    await turns()
    assert (early.body, late.body) == (b"one two ", b"one two ")
    shared.finish(b"three")

    assert all(await asyncio.gather(first, second))
    assert early.body == late.body == b"one two three"
    assert shared.desertions == 0


async def test_a_whole_answer_stays_whole() -> None:
    shared, wire = Shared(), MemoryWire()
    reader = asyncio.create_task(shared.follow(wire, same))
    await turns()
    shared.whole(404, [SSE], b"{}")
    assert await reader
    assert (wire.status, wire.body, wire.was_whole) == (404, b"{}", True)


async def test_a_cut_is_a_cut_for_everybody() -> None:
    shared, wires = Shared(), [MemoryWire(), MemoryWire()]
    readers = [asyncio.create_task(shared.follow(wire, same)) for wire in wires]
    shared.start(200, [SSE])
    shared.write(b"half")
    await turns()
    shared.end()
    assert not any(await asyncio.gather(*readers))
    assert [(wire.body, wire.finished) for wire in wires] == [(b"half", False)] * 2
    assert shared.answer(0.0) is None


async def test_nothing_made_is_nothing_written() -> None:
    shared, wire = Shared(), MemoryWire()
    reader = asyncio.create_task(shared.follow(wire, same))
    await turns()
    shared.end()
    assert await reader is False
    assert wire.status == 0


async def test_only_the_last_reader_to_leave_deserts_it() -> None:
    shared = Shared()
    readers = [asyncio.create_task(shared.follow(MemoryWire(), same)) for _ in range(3)]
    shared.start(200, [SSE])
    await turns()
    for number, reader in enumerate(readers):
        assert shared.desertions == 0
        reader.cancel()
        await asyncio.gather(reader, return_exceptions=True)
        assert shared.readers == 2 - number
    assert shared.desertions == 1


async def test_readers_of_a_finished_answer_do_not_desert_it() -> None:
    shared, wire = Shared(), MemoryWire()
    reader = asyncio.create_task(shared.follow(wire, same))
    shared.whole(200, [SSE], b"{}")
    assert await reader
    assert shared.desertions == 0
    assert not shared.deserted


async def test_past_the_bound_the_slowest_reader_sets_the_pace() -> None:
    gate = asyncio.Event()
    shared, quick, slow = Shared(max_bytes=100), MemoryWire(), MemoryWire(gate.wait)
    readers = [asyncio.create_task(shared.follow(wire, same)) for wire in (quick, slow)]

    async def produce() -> None:
        shared.start(200, [SSE])
        for number in range(50):
            waiting = shared.write(bytes([number]) * 10)
            if waiting is not None:
                await waiting
        shared.finish()

    producer = asyncio.create_task(produce())
    await turns(200)
    assert not producer.done()
    assert shared.overflowed
    assert len(quick.body) <= 130

    gate.set()
    async with asyncio.timeout(10):
        await producer
        assert all(await asyncio.gather(*readers))
    assert quick.body == slow.body == b"".join(bytes([number]) * 10 for number in range(50))
    assert shared.answer(0.0) is None


async def test_a_producer_does_not_wait_for_readers_who_left() -> None:
    gate = asyncio.Event()
    shared = Shared(max_bytes=10)
    reader = asyncio.create_task(shared.follow(MemoryWire(gate.wait), same))
    shared.start(200, [SSE])
    await turns()
    waiting = shared.write(b"x" * 100)
    assert waiting is not None
    producer = asyncio.ensure_future(waiting)
    await turns()
    assert not producer.done()
    reader.cancel()
    async with asyncio.timeout(10):
        await producer
    assert shared.desertions == 1


@settings(max_examples=150, deadline=None)
@given(
    pieces=st.lists(st.binary(min_size=1, max_size=30), max_size=12),
    readers=st.integers(1, 5),
    end=st.sampled_from(["finish", "cut", "whole"]),
    max_bytes=st.sampled_from([20, 80, MIB]),
    seed=st.integers(0, 2**32),
)
def test_any_interleaving_gives_everybody_the_same(
    pieces: list[bytes], readers: int, end: str, max_bytes: int, seed: int
) -> None:
    """Readers join and leave, read quickly or slowly, at any moment."""
    asyncio.run(_interleave(pieces, readers, end, max_bytes, random.Random(seed)))


async def _interleave(
    pieces: list[bytes], count: int, end: str, max_bytes: int, chance: random.Random
) -> None:
    shared = Shared(max_bytes)
    expected = b"".join(pieces)

    async def pause() -> None:
        for _ in range(chance.randrange(6)):
            await asyncio.sleep(0)

    async def produce() -> None:
        await pause()
        if end == "whole":
            shared.whole(200, [SSE], expected)
        else:
            shared.start(200, [SSE])
            for piece in pieces:
                await pause()
                waiting = shared.write(piece)
                if waiting is not None:
                    await waiting
            if end == "finish":
                shared.finish()
        await pause()
        shared.end()

    async def read(wire: MemoryWire, leaves: bool) -> bool | None:
        async def join() -> bool | None:
            return None if shared.overflowed or shared.deserted else await shared.follow(wire, same)

        await pause()
        reading = asyncio.ensure_future(join())
        if leaves:
            await pause()
            reading.cancel()
        try:
            return await reading
        except asyncio.CancelledError:
            return None

    wires = [MemoryWire(pause if chance.random() < 0.5 else None) for _ in range(count)]
    async with asyncio.timeout(30):
        found = await asyncio.gather(produce(), *(read(wire, leaves=chance.random() < 0.3) for wire in wires))
    for wire, whole in zip(wires, found[1:], strict=True):
        assert expected.startswith(wire.body)
        if whole is not None:
            assert whole == wire.finished == (end != "cut")
            assert wire.body == expected
            assert wire.was_whole == (end == "whole")
    assert shared.desertions == int(shared.deserted)
    assert shared.readers == 0
    kept = shared.answer(1.0)
    assert (kept is not None) == (end != "cut" and not shared.overflowed)
    if kept is not None:
        assert kept.body == expected


@pytest.mark.parametrize("readers", [500])
async def test_many_readers(readers: int) -> None:
    shared, wires = Shared(), [MemoryWire() for _ in range(readers)]
    tasks = [asyncio.create_task(shared.follow(wire, same)) for wire in wires]
    shared.start(200, [SSE])
    for number in range(20):
        shared.write(b"%d " % number)
        await turns(1)
    shared.finish()
    assert all(await asyncio.gather(*tasks))
    assert {wire.body for wire in wires} == {b"".join(b"%d " % number for number in range(20))}

"""The wire over ASGI's `send`."""

from __future__ import annotations

import gc

from sluice_gateway.wire import AsgiWire, Message


async def test_a_head_that_nobody_waited_for_is_not_sent_and_not_missed() -> None:
    """A relay that is cancelled between making what to wait for, and waiting, drops it."""
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    wire = AsgiWire(send)
    wire.start(200, [])
    gc.collect()  # a coroutine would complain here
    assert sent == []
    await wire.start(200, [(b"a", b"b")])
    assert sent == [{"type": "http.response.start", "status": 200, "headers": [(b"a", b"b")]}]

"""What the server process and the engine process say to each other, and how it is framed.

One local stream socket carries both directions. A frame is a four-byte big-endian length and that many bytes
of msgpack; each direction has its own tagged union. The server sends one `Configure` first and then `Add` and
`Abort` at any time; the engine answers one `Ready`, then a `Stepped` after every step and a `Refused` for a
request it will not run. `Failed` is the engine's last word. The end of the stream is the end of the other
process: there is no farewell message to be lost.

This module knows neither asyncio nor torch.
"""

from __future__ import annotations

import struct

import msgspec

from sluice_worker.config import EngineConfig
from sluice_worker.outputs import EngineRequest, EngineStats, ModelInfo, StepOutputs

_LENGTH = struct.Struct(">I")


class Configure(msgspec.Struct, frozen=True, tag=True):
    """Build the engine. Always the first command."""

    config: EngineConfig


class Add(msgspec.Struct, frozen=True, tag=True):
    """Start a sequence."""

    request: EngineRequest


class Abort(msgspec.Struct, frozen=True, tag=True):
    """Drop a sequence; unknown or finished ids are ignored."""

    request_id: str


class Ready(msgspec.Struct, frozen=True, tag=True):
    """The model is loaded and commands are served."""

    model_info: ModelInfo
    stats: EngineStats


class Stepped(msgspec.Struct, frozen=True, tag=True):
    """All that one step produced; without deltas when only the gauges changed."""

    outputs: StepOutputs


class Refused(msgspec.Struct, frozen=True, tag=True):
    """An `Add` that the engine will not run, and why."""

    request_id: str
    message: str
    code: str | None


class Failed(msgspec.Struct, frozen=True, tag=True):
    """The engine could not start or cannot go on. One sentence, for the operator."""

    message: str


Command = Configure | Add | Abort
Event = Ready | Stepped | Refused | Failed


class FrameBuffer:
    """Cuts a byte stream into frames."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        """Add what was read; returns the payloads that are now complete, in order."""
        self._buffer += data
        payloads = []
        start = 0
        while len(self._buffer) - start >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(self._buffer, start)
            end = start + _LENGTH.size + length
            if len(self._buffer) < end:
                break
            payloads.append(bytes(self._buffer[start + _LENGTH.size : end]))
            start = end
        del self._buffer[:start]
        return payloads


def encode(message: Command | Event) -> bytes:
    """One message as a frame."""
    payload = msgspec.msgpack.encode(message)
    return _LENGTH.pack(len(payload)) + payload


def command_decoder() -> msgspec.msgpack.Decoder[Command]:
    """Decodes payloads on the engine's side."""
    return msgspec.msgpack.Decoder(Command)


def event_decoder() -> msgspec.msgpack.Decoder[Event]:
    """Decodes payloads on the server's side."""
    return msgspec.msgpack.Decoder(Event)

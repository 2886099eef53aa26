"""What a cut stream had told its client, read from its transcript."""

from __future__ import annotations

from typing import Any

import msgspec

from sluice_gateway.resumption.transcript import Transcript
from sluice_gateway.sse import DONE, event_data

_STRING = msgspec.json.Decoder(str)
_OBJECT = msgspec.json.Decoder(dict[str, Any])
_COMMON = ("id", "object", "created", "model", "system_fingerprint", "service_tier")
"""What all events of a stream have alike."""
_REASONING = ("reasoning_content", "reasoning")
_BYTES_PER_TOKEN = 5
"""About what a token has on average; rarely fewer tokens are counted by it than there were."""
_BYTES_PER_EVENT = 8
"""More than that, beyond `_LONG_WORD_BYTES`, no engine has on average that sends a token an event."""
_LONG_WORD_BYTES = 16


class Delivered(msgspec.Struct, kw_only=True):
    """Everything that went to the client."""

    text: str = ""
    pieces: int = 0
    """Events that held some of it."""
    envelope: dict[str, Any] = msgspec.field(default_factory=dict)
    """The stream's id, its time, its model and so on, as the first event had them."""
    read: bool = True
    """All of it was understood, and was of one choice."""
    finished: bool = False
    calls: bool = False
    reasoning: bool = False
    logprobs: bool = False

    @property
    def tokens(self) -> int:
        """The text in tokens: its events, or an estimate by its length where they must have held several."""
        return self.pieces if self.counted else max(self.pieces, -(-self._bytes // _BYTES_PER_TOKEN))

    @property
    def counted(self) -> bool:
        """Every event may have been one token."""
        return self._bytes <= self.pieces * _BYTES_PER_EVENT + _LONG_WORD_BYTES

    @property
    def _bytes(self) -> int:
        return len(self.text.encode("utf-8", "surrogatepass"))


def read(transcript: Transcript) -> Delivered:
    """What is in it. Never raises: what cannot be read is said to be so."""
    transcript.close()
    found = Delivered(read=transcript.whole)
    parts: list[str] = []
    for events, data in transcript.blocks:
        try:
            if events:
                found.pieces += events
                parts.append(_STRING.decode(b'"%b"' % data))
            else:
                _read_event(data, found, parts)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            found.read = False
    found.text = "".join(parts)
    return found


def _read_event(event: bytes, found: Delivered, parts: list[str]) -> None:
    data = event_data(event)
    if data is None:
        return
    if data == DONE:
        found.finished = True
        return
    fields = _OBJECT.decode(data)
    if not found.envelope:
        found.envelope = {name: fields[name] for name in _COMMON if name in fields}
    for choice in fields.get("choices") or ():
        _read_choice(choice, found, parts)


def _read_choice(choice: Any, found: Delivered, parts: list[str]) -> None:
    if not isinstance(choice, dict) or choice.get("index") not in (None, 0):
        found.read = False
        return
    delta = choice.get("delta") or {}
    text = choice.get("text") or (delta.get("content") if isinstance(delta, dict) else None)
    if not isinstance(delta, dict) or not isinstance(text, str | None) or delta.get("refusal"):
        found.read = False
        return
    if text:
        found.pieces += 1
        parts.append(text)
    found.finished |= bool(choice.get("finish_reason"))
    found.calls |= bool(delta.get("tool_calls") or delta.get("function_call"))
    found.reasoning |= any(delta.get(name) for name in _REASONING)
    found.logprobs |= choice.get("logprobs") is not None

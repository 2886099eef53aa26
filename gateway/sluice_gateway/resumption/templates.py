"""What an event of text is like around its text.

The event is decoded strictly, once; what has the same bytes around another text then means the same. Not
compiled, because it defines what is decoded.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import msgspec

from sluice_gateway.sse import event_data

_ABSENT = msgspec.Raw(b"null")
_TEXT = re.compile(rb'"(?:content|text)": ?"((?:[^"\\\n]|\\.)+)"')


class _Delta(msgspec.Struct):
    content: str | None = None
    reasoning_content: None = None
    reasoning: None = None
    refusal: None = None
    tool_calls: None = None
    function_call: None = None


class _Choice(msgspec.Struct):
    index: int = 0
    delta: _Delta | None = None
    text: str | None = None
    finish_reason: None = None
    logprobs: None = None


class _TextEvent(msgspec.Struct):
    choices: Sequence[_Choice]
    usage: None = None
    error: None = None


_EVENT = msgspec.json.Decoder(_TextEvent)
_STRING = msgspec.json.Decoder(str)


def template(event: bytes) -> tuple[bytes, bytes] | None:
    """The bytes before and after the text of an event that is one choice's piece of text and nothing else;
    `None` for any other event."""
    if not event.startswith(b"data: {") or event.find(b"\n") != len(event) - 2 or b"\r" in event:
        return None
    found = _TEXT.findall(event)
    data = event_data(event)
    if len(found) != 1 or data is None:
        return None
    try:
        choices = _EVENT.decode(data).choices
        text = _STRING.decode(b'"%b"' % found[0])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    if len(choices) != 1 or _shown(choices[0]) != text:
        return None
    match = _TEXT.search(event)
    assert match is not None
    return event[: match.start(1)], event[match.end(1) :]


def _shown(choice: _Choice) -> str | None:
    """The text, if there is one and in one place."""
    if choice.index != 0:
        return None
    if choice.delta is None:
        return choice.text
    return choice.delta.content if choice.text is None else None

"""Ids of tool calls, which the two APIs write differently and which must come back as the engine made them.

An engine's `abc` is shown as `toolu_abc` and read back as `abc`: some chat templates insist on their own
form.
Ids that an engine left out or used twice in one answer are made from the answer's own id.
"""

from __future__ import annotations

_PREFIX = "toolu_"


def to_chat(tool_use_id: str) -> str:
    """The engine's own id again."""
    return tool_use_id.removeprefix(_PREFIX) or tool_use_id


class CallIds:
    """Gives out the ids of one answer's calls; no two are equal."""

    __slots__ = ("_message_id", "_used")

    def __init__(self, message_id: str) -> None:
        self._message_id = message_id
        self._used: set[str] = set()

    def of(self, chat_id: str | None) -> str:
        """The id of the next call, which the engine calls `chat_id`."""
        shown = f"{_PREFIX}{(chat_id or '').removeprefix(_PREFIX)}"
        number = len(self._used)
        while shown == _PREFIX or shown in self._used:
            shown = f"{_PREFIX}{self._message_id.removeprefix('msg_')}_{number}"
            number += 1
        self._used.add(shown)
        return shown

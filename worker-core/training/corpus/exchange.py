"""The data that every skill produces: messages, exchanges and whole documents."""

from dataclasses import dataclass, field
from typing import Any

Json = dict[str, Any]


@dataclass(frozen=True)
class Message:
    """One turn: a role, its text, and for an assistant the tool calls it makes."""

    role: str
    content: str
    tool_calls: tuple[Json, ...] = ()

    def as_openai(self) -> Json:
        """Return the message in the shape of the chat completions API."""
        message: Json = {"role": self.role, "content": self.content}
        if self.tool_calls:
            message["tool_calls"] = [{"type": "function", "function": call} for call in self.tool_calls]
        return message


@dataclass(frozen=True)
class Exchange:
    """One question with its answer, the slots it was filled with, and the context it needs.

    `turns` starts with a user message and ends with an assistant message; `slots` decides the split.
    """

    skill: str
    slots: tuple[object, ...]
    turns: tuple[Message, ...]
    system: str | None = None
    tools: tuple[Json, ...] = ()

    @property
    def prompt(self) -> str:
        """The text of the last user turn."""
        return [turn.content for turn in self.turns if turn.role == "user"][-1]


@dataclass(frozen=True)
class Document:
    """A training document: plain text (`text`), a `sheet` of questions with answers, or a conversation."""

    text: str = ""
    sheet: tuple[tuple[str, str], ...] = ()
    messages: tuple[Message, ...] = ()
    tools: tuple[Json, ...] = field(default=())


def ask(
    skill: str, slots: tuple[object, ...], question: str, answer: str, system: str | None = None
) -> Exchange:
    """Build the commonest exchange: one question, one answer."""
    return Exchange(skill, slots, (Message("user", question), Message("assistant", answer)), system)

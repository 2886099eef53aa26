"""A Messages request as clients send it: the fields that chat completions say differently.

Blocks and sources are told apart by their `type`; one that is not declared here cannot be translated. Of what
passes through unchanged (tool schemas, tool inputs) the client's own bytes are kept. Source: the Messages API
reference, and the request types of the `anthropic` package 2.11.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from sluice_gateway.dialects.messages.refusal import from_json_error

ABSENT = msgspec.Raw(b"null")


class Base64Source(msgspec.Struct, frozen=True, tag_field="type", tag="base64"):
    """An image or a PDF in the request itself."""

    media_type: str
    data: str


class UrlSource(msgspec.Struct, frozen=True, tag_field="type", tag="url"):
    """One that the engine has to fetch."""

    url: str


class TextSource(msgspec.Struct, frozen=True, tag_field="type", tag="text"):
    """A document that is plain text."""

    data: str


class Text(msgspec.Struct, frozen=True, tag_field="type", tag="text"):
    """Text."""

    text: str


class Image(msgspec.Struct, frozen=True, tag_field="type", tag="image"):
    """An image."""

    source: Base64Source | UrlSource


class ContentSource(msgspec.Struct, frozen=True, tag_field="type", tag="content"):
    """A document made of blocks."""

    content: str | list[Text | Image]


class Document(msgspec.Struct, frozen=True, tag_field="type", tag="document"):
    """A document, with what the client says about it."""

    source: Base64Source | TextSource | ContentSource
    title: str | None = None
    context: str | None = None


class SearchResult(msgspec.Struct, frozen=True, tag_field="type", tag="search_result"):
    """Something the client found for the model to read."""

    source: str
    title: str
    content: list[Text]


class ToolUse(msgspec.Struct, frozen=True, tag_field="type", tag="tool_use"):
    """A call that the model made."""

    id: str
    name: str
    input: msgspec.Raw


class ToolResult(msgspec.Struct, frozen=True, tag_field="type", tag="tool_result"):
    """What came of a call."""

    tool_use_id: str
    content: str | list[Text | Image | Document | SearchResult] | None = None
    is_error: bool | None = None


class Thinking(msgspec.Struct, frozen=True, tag_field="type", tag="thinking"):
    """The model's own reasoning, handed back."""

    thinking: str


class RedactedThinking(msgspec.Struct, frozen=True, tag_field="type", tag="redacted_thinking"):
    """Reasoning that only Anthropic can read."""


Block = Text | Image | Document | SearchResult | ToolUse | ToolResult | Thinking | RedactedThinking


class Message(msgspec.Struct, frozen=True):
    """One turn, or part of one."""

    role: Literal["user", "assistant", "system"]
    content: str | list[Block]

    @property
    def blocks(self) -> list[Block]:
        """The content; a string is short for one text block."""
        return [Text(self.content)] if isinstance(self.content, str) else self.content


class Tool(msgspec.Struct, frozen=True):
    """A tool that the client runs; one with a `type` of Anthropic's own has no schema."""

    name: str
    type: str | None = None
    description: str | None = None
    input_schema: msgspec.Raw = ABSENT
    strict: bool | None = None


class ToolChoice(msgspec.Struct, frozen=True):
    """Whether, and which, tool is to be called."""

    type: Literal["auto", "any", "tool", "none"]
    name: str | None = None
    disable_parallel_tool_use: bool | None = None


class ThinkingConfig(msgspec.Struct, frozen=True):
    """Whether the model is to reason first, and whether that is shown."""

    type: str
    display: str | None = None


class OutputFormat(msgspec.Struct, frozen=True):
    """The shape asked of the answer."""

    type: Literal["json_schema"]
    schema: msgspec.Raw


class OutputConfig(msgspec.Struct, frozen=True):
    """How hard to try, and the answer's shape."""

    effort: str | None = None
    format: OutputFormat | None = None


class Metadata(msgspec.Struct, frozen=True):
    """About the request."""

    user_id: str | None = None


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """The fields that have to be translated. All others are looked at by name only."""

    model: str
    messages: list[Message]
    max_tokens: int | None = None
    """Checked where it matters: counting tokens goes without."""
    system: str | list[Text] | None = None
    stop_sequences: list[str] | None = None
    stream: bool | None = None
    tools: list[Tool] | None = None
    tool_choice: ToolChoice | None = None
    thinking: ThinkingConfig | None = None
    output_config: OutputConfig | None = None
    output_format: OutputFormat | None = None
    """The older name of `output_config.format`."""
    metadata: Metadata | None = None

    @property
    def shows_thinking(self) -> bool:
        """Whether the client wants to see what the model reasoned."""
        return self.thinking is None or self.thinking.display != "omitted"


_REQUEST = msgspec.json.Decoder(Request)
_FIELDS = msgspec.json.Decoder(dict[str, msgspec.Raw])


def decode(body: bytes) -> tuple[Request, dict[str, msgspec.Raw]]:
    """The request, and all of its top-level fields as they were sent. Raises `Untranslatable`."""
    try:
        return _REQUEST.decode(body), _FIELDS.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise from_json_error(error) from None

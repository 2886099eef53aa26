"""Renders a conversation into the prompt text that the model was trained on.

Templates are Jinja programs that come with a model, so they run sandboxed and cannot change what they are
given. The environment follows transformers' conventions: trimmed blocks, `raise_exception`, `strftime_now`, a
`tojson` that does not escape HTML, loop controls, and the `generation` tag, which only marks text.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

import jinja2
import jinja2.ext
import jinja2.nodes
import jinja2.parser
import msgspec
from jinja2.sandbox import ImmutableSandboxedEnvironment

from sluice_worker.errors import CheckpointError
from sluice_worker.loading.model_folder import ModelFolder
from sluice_worker.server.errors import ApiError, invalid
from sluice_worker.server.requests import ChatMessage
from sluice_worker.server.tokenizer import Tokenizer

_ROLE_IN_TEMPLATES = {"developer": "system", "function": "tool"}
"""OpenAI's newer and older names of roles that templates know by one name."""
_END_OF_TEXT = "\ue000end of text\ue000"
"""Marks where the last message's text ends in the rendered prompt: no template trims or escapes it."""


class ChatTemplate:
    """One compiled template. Rendering is pure but for the clock passed in."""

    def __init__(self, source: str, special_tokens: Mapping[str, str], now: Callable[[], datetime]) -> None:
        """Raises `jinja2.TemplateSyntaxError`. `now` gives the local time that templates may print."""
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True,
            lstrip_blocks=True,
            extensions=[_GenerationTag, jinja2.ext.loopcontrols],
        )
        environment.filters["tojson"] = _to_json
        environment.globals["raise_exception"] = _raise_exception
        environment.globals["strftime_now"] = lambda layout: now().strftime(layout)
        self._template = environment.from_string(source)
        self._special_tokens = dict(special_tokens)

    def render(
        self,
        messages: list[ChatMessage],
        tools: list[dict[str, Any]] | None = None,
        options: Mapping[str, Any] | None = None,
        *,
        add_generation_prompt: bool = True,
        continue_final_message: bool = False,
    ) -> str:
        """The prompt, up to where the assistant's answer begins, or, with `continue_final_message`, up to
        where the last message's text ends.

        `options` are further variables for the template. Raises `ApiError` 400 when the template refuses the
        conversation.
        """
        conversation = [_for_template(message) for message in messages]
        if continue_final_message:
            conversation[-1]["content"] += _END_OF_TEXT
        variables: dict[str, Any] = {
            **self._special_tokens,
            "documents": None,
            "add_generation_prompt": add_generation_prompt and not continue_final_message,
            **(options or {}),
            "messages": conversation,
            "tools": tools or None,
        }
        text = self._render(variables)
        return _up_to_mark(text) if continue_final_message else text

    def _render(self, variables: dict[str, Any]) -> str:
        try:
            return self._template.render(variables)
        except jinja2.TemplateError as error:
            raise _refusal(str(error)) from error
        except Exception as error:
            # A template is someone else's program, run on the client's data: whatever it trips over (a
            # list where it wants a string, a missing key, too deep a loop) is about this request.
            raise _refusal(f"{type(error).__name__}: {error}") from error


def _up_to_mark(text: str) -> str:
    """What comes after the last message's text closes the turn, which is to go on."""
    before, mark, _ = text.rpartition(_END_OF_TEXT)
    if not mark:
        raise _refusal("it does not show the last message, which therefore cannot be continued")
    return before


def load_chat_template(
    folder: ModelFolder, tokenizer: Tokenizer, now: Callable[[], datetime]
) -> ChatTemplate | None:
    """The model's template, or `None` if it has none.

    `chat_template.jinja` wins over `tokenizer_config.json`. Raises `CheckpointError` for a syntax error.
    """
    source = template_source(folder, tokenizer)
    if source is None:
        return None
    try:
        return ChatTemplate(source, tokenizer.special_tokens, now)
    except jinja2.TemplateSyntaxError as error:
        raise CheckpointError(
            f"The chat template in {folder.path} has an error in line {error.lineno}: {error.message}."
        ) from error


def template_source(folder: ModelFolder, tokenizer: Tokenizer) -> str | None:
    """The text of the template that is used for chats, unless the model has none."""
    if folder.chat_template is not None:
        return folder.chat_template.read_text(encoding="utf-8")
    template = tokenizer.chat_template
    if isinstance(template, list):
        named = {entry.get("name"): entry.get("template") for entry in template}
        template = named.get("default")
    return template if isinstance(template, str) else None


def _refusal(reason: str) -> ApiError:
    return invalid(f"The model's chat template cannot render these messages: {reason[:500]}", "messages")


def _for_template(message: ChatMessage) -> dict[str, Any]:
    """A message as templates expect it: plain text content, and tool arguments as an object."""
    fields: dict[str, Any] = msgspec.to_builtins(message)
    fields["role"] = _ROLE_IN_TEMPLATES.get(message.role, message.role)
    fields["content"] = _text(message)
    if message.tool_calls:
        fields["tool_calls"] = [_with_parsed_arguments(call) for call in message.tool_calls]
    return fields


def _text(message: ChatMessage) -> str:
    if isinstance(message.content, list):
        return "".join(part.text or part.refusal or "" for part in message.content)
    return message.content or ""


def _with_parsed_arguments(call: dict[str, Any]) -> dict[str, Any]:
    """OpenAI sends arguments as JSON text; templates print the object, and would quote the text twice."""
    function = call.get("function")
    if not isinstance(function, dict) or not isinstance(function.get("arguments"), str):
        return call
    try:
        arguments = msgspec.json.decode(function["arguments"])
    except (msgspec.DecodeError, RecursionError):
        return call
    return {**call, "function": {**function, "arguments": arguments}}


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )


def _raise_exception(message: str) -> None:
    raise jinja2.TemplateError(message)


class _GenerationTag(jinja2.ext.Extension):
    """`{% generation %}...{% endgeneration %}` marks the assistant's text for training; here it is text."""

    tags = {"generation"}  # noqa: RUF012 (jinja2 declares it as an instance attribute)

    def parse(self, parser: jinja2.parser.Parser) -> list[jinja2.nodes.Node]:
        """The tag's body, as if the tag were not there."""
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)

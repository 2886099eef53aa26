"""Turns of blocks into chat messages, in the order in which they were written.

Where the two APIs differ:

- Adjacent messages of one role are one turn; many chat templates refuse them otherwise.
- Text blocks of a user, a system or a tool result stand on lines of their own; an assistant's are one text
  that was cut up, and are put together as they are.
- A tool result becomes a message of role `tool`. It can hold only text there, so its images go into the
  user's message that follows. `is_error` becomes `Error: ` before the text: chat has no flag for it.
- The model's thinking becomes `reasoning_content` and `reasoning`, its two names among engines. Redacted
  thinking is left out: nobody but its author can read it.
- A last message of the assistant is the beginning of the answer (prefill).
"""

from __future__ import annotations

from typing import Any

from sluice_gateway.dialects.messages.call_ids import to_chat
from sluice_gateway.dialects.messages.refusal import invalid, unsupported
from sluice_gateway.dialects.messages.schema import (
    Base64Source,
    Block,
    Document,
    Image,
    Message,
    RedactedThinking,
    SearchResult,
    Text,
    TextSource,
    Thinking,
    ToolResult,
    ToolUse,
)

Part = dict[str, Any]
ChatMessage = dict[str, Any]


def chat_messages(system: str | list[Text] | None, messages: list[Message]) -> list[ChatMessage]:
    """The whole conversation. Raises `Untranslatable`."""
    chat: list[ChatMessage] = []
    head = system if isinstance(system, str) else "\n".join(block.text for block in system or ())
    if head:
        chat.append({"role": "system", "content": head})
    for role, blocks in _turns(messages):
        if role == "user":
            chat += _user(blocks)
        elif role == "assistant":
            chat.append(_assistant(blocks))
        else:
            chat.append({"role": "system", "content": _content([_part(block) for block in blocks])})
    return chat


def take_prefill(chat: list[ChatMessage]) -> bool:
    """Whether the last message begins the answer; an empty one does not, and is taken out.

    Raises `Untranslatable` when it is a call, which cannot be continued.
    """
    if not chat or chat[-1]["role"] != "assistant":
        return False
    if "tool_calls" in chat[-1]:
        raise invalid("messages", "the last message has a 'tool_use' block without its 'tool_result'.")
    if not chat[-1]["content"]:
        chat.pop()
        return False
    return True


def _turns(messages: list[Message]) -> list[tuple[str, list[Block]]]:
    turns: list[tuple[str, list[Block]]] = []
    for message in messages:
        if turns and turns[-1][0] == message.role:
            turns[-1][1].extend(message.blocks)
        else:
            turns.append((message.role, list(message.blocks)))
    return turns


def _user(blocks: list[Block]) -> list[ChatMessage]:
    chat: list[ChatMessage] = []
    parts: list[Part] = []
    images: list[Part] = []
    """Of results, until something that may hold them comes."""
    for block in blocks:
        if isinstance(block, ToolResult):
            if parts:
                chat.append({"role": "user", "content": _content(parts)})
                parts = []
            chat.append(_result(block, images))
        else:
            parts += [*images, *_parts(block)]
            images = []
    parts = [*images, *parts]
    if parts or not blocks:
        chat.append({"role": "user", "content": _content(parts)})
    return chat


def _result(block: ToolResult, images: list[Part]) -> ChatMessage:
    content = block.content or ""
    parts = [_text(content)] if isinstance(content, str) else [p for b in content for p in _parts(b)]
    images += [part for part in parts if part["type"] != "text"]
    text = "\n".join(part["text"] for part in parts if part["type"] == "text")
    if block.is_error:
        text = f"Error: {text}"
    return {"role": "tool", "tool_call_id": to_chat(block.tool_use_id), "content": text}


def _assistant(blocks: list[Block]) -> ChatMessage:
    text: list[str] = []
    thoughts: list[str] = []
    calls: list[dict[str, Any]] = []
    for block in blocks:
        match block:
            case Text():
                text.append(block.text)
            case Thinking():
                thoughts.append(block.thinking)
            case RedactedThinking():
                pass
            case ToolUse():
                calls.append(_call(block))
            case _:
                raise invalid("messages", f"an assistant's message cannot hold {_name(block)}.")
    message: ChatMessage = {"role": "assistant", "content": "".join(text) or (None if calls else "")}
    if any(thoughts):
        message["reasoning_content"] = message["reasoning"] = "\n".join(thoughts)
    if calls:
        message["tool_calls"] = calls
    return message


def _call(block: ToolUse) -> dict[str, Any]:
    arguments = bytes(block.input).decode()
    if not arguments.startswith("{"):
        raise invalid("messages", "the 'input' of a 'tool_use' block must be an object.")
    function = {"name": block.name, "arguments": arguments}
    return {"id": to_chat(block.id), "type": "function", "function": function}


def _parts(block: Block) -> list[Part]:
    """A block that may stand in a user's message."""
    if isinstance(block, Document):
        return _document(block)
    return [_part(block)]


def _part(block: Block) -> Part:
    match block:
        case Text():
            return _text(block.text)
        case Image(source=Base64Source(media_type=media_type, data=data)):
            return _image(f"data:{media_type};base64,{data}")
        case Image(source=source):
            assert not isinstance(source, Base64Source)
            return _image(source.url)
        case SearchResult():
            return _text("\n".join([block.title, block.source, *(text.text for text in block.content)]))
        case _:
            raise invalid("messages", f"{_name(block)} cannot stand there.")


def _document(block: Document) -> list[Part]:
    about = [_text(text) for text in (block.title, block.context) if text]
    source = block.source
    if isinstance(source, TextSource):
        return [*about, _text(source.data)]
    if isinstance(source, Base64Source):
        if source.media_type != "application/pdf":
            raise unsupported("messages", f"a document of type '{source.media_type[:50]}' has no equivalent.")
        data = f"data:application/pdf;base64,{source.data}"
        file = {"filename": block.title or "document.pdf", "file_data": data}
        return [*about, {"type": "file", "file": file}]
    if isinstance(source.content, str):
        return [*about, _text(source.content)]
    return [*about, *(_part(part) for part in source.content)]


def _content(parts: list[Part]) -> str | list[Part]:
    """A string where there is only text: some engines know nothing else."""
    if all(part["type"] == "text" for part in parts):
        return "\n".join(part["text"] for part in parts)
    return parts


def _text(text: str) -> Part:
    return {"type": "text", "text": text}


def _image(url: str) -> Part:
    return {"type": "image_url", "image_url": {"url": url}}


def _name(block: Block) -> str:
    return f"a '{block.__struct_config__.tag}' block"

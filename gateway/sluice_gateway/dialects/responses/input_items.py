"""Input items: from what clients send to what is stored and shown.

Clients replay an answer's items in the next turn, often without `id` and `status`, and write messages in
short forms. After `read_items` every item is complete: it has a type, an id and a status, and a message's
content is a list of parts. Keys that are not known here stay. Items of tools that OpenAI runs itself are
refused by name: nobody here could make anything of them.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from sluice_gateway.dialects.responses.problems import invalid, unsupported
from sluice_gateway.dialects.responses.request import Item

ItemId = Callable[[str, int], str]
"""(item type, place in the input) to a new id."""

REFERENCE = "item_reference"
_ROLES = ("user", "assistant", "system", "developer")
_TEXTS = ("input_text", "output_text", "text")
_PARTS = {"input_image": ("image_url", "file_id"), "input_file": ("file_data", "file_id", "file_url")}
"""Part types with a source, and the keys that it may come under."""


def read_items(given: str | list[Item] | None, new_id: ItemId) -> list[Item]:
    """Complete items, in order; references are left for the caller. Raises `Unacceptable`."""
    if given is None:
        return []
    if isinstance(given, str):
        given = [{"role": "user", "content": given}]
    return [_read_item(item, place, new_id) for place, item in enumerate(given)]


def _read_item(item: Item, place: int, new_id: ItemId) -> Item:
    where = f"input[{place}]"
    kind = str(item.get("type") or ("message" if "role" in item else REFERENCE if "id" in item else None))
    if kind == REFERENCE:
        return {"type": REFERENCE, "id": _text(item, "id", where)}
    read = _READERS.get(kind)
    if read is None:
        text = f"Input items of type '{kind}' are not supported by this server."
        raise unsupported(text, f"{where}.type")
    item = {name: value for name, value in item.items() if value is not None}
    item_id = item.get("id")
    known = {"id": item_id if isinstance(item_id, str) and item_id else new_id(kind, place), "type": kind}
    return {**item, **known, **read(item, where)}


def _read_message(item: Item, where: str) -> Item:
    role = item.get("role")
    if role not in _ROLES:
        raise invalid(f"'{where}.role' must be one of {', '.join(_ROLES)}.", f"{where}.role")
    content = item.get("content", [])
    if isinstance(content, str):
        content = [{"type": "input_text", "text": content}]
    if not isinstance(content, list):
        raise invalid(f"'{where}.content' must be a string or an array of parts.", f"{where}.content")
    read = _read_output_part if role == "assistant" else _read_input_part
    parts = [read(part, f"{where}.content[{place}]") for place, part in enumerate(content)]
    return {"role": role, "content": parts, "status": item.get("status", "completed")}


def _read_input_part(part: Any, where: str) -> dict[str, Any]:
    kind = _part_type(part, where)
    if kind in _TEXTS:
        return {"type": "input_text", "text": _text(part, "text", where)}
    if kind == "input_audio":
        return dict(part)
    sources = _PARTS.get(kind)
    if sources is None:
        raise unsupported(f"Content parts of type '{kind}' are not supported in input.", f"{where}.type")
    if not any(isinstance(part.get(source), str) for source in sources):
        raise invalid(f"'{where}' needs one of {', '.join(sources)}.", where)
    given = {name: value for name, value in part.items() if value is not None}
    return {"detail": "auto", **given} if kind == "input_image" else given


def _read_output_part(part: Any, where: str) -> dict[str, Any]:
    kind = _part_type(part, where)
    if kind in _TEXTS:
        empty: dict[str, Any] = {"annotations": [], "logprobs": []}
        given = {name: value for name, value in part.items() if value is not None}
        return {**empty, **given, "type": "output_text", "text": _text(part, "text", where)}
    if kind == "refusal":
        return {"type": "refusal", "refusal": _text(part, "refusal", where)}
    raise unsupported(f"Content parts of type '{kind}' are not supported in an answer.", f"{where}.type")


def _read_call(item: Item, where: str) -> Item:
    arguments = item.get("arguments", "")
    if not isinstance(arguments, str):
        arguments = json.dumps(arguments)
    return {
        "call_id": _text(item, "call_id", where),
        "name": _text(item, "name", where),
        "arguments": arguments,
        "status": item.get("status", "completed"),
    }


def _read_call_output(item: Item, where: str) -> Item:
    output = item.get("output", "")
    if isinstance(output, list):
        parts = enumerate(output)
        output = [_read_input_part(part, f"{where}.output[{place}]") for place, part in parts]
    elif not isinstance(output, str):
        output = json.dumps(output)
    call_id = _text(item, "call_id", where)
    return {"call_id": call_id, "output": output, "status": item.get("status", "completed")}


def _read_reasoning(item: Item, where: str) -> Item:
    read: Item = {"summary": _texts(item, "summary", where)}
    if "content" in item:
        read["content"] = _texts(item, "content", where)
    return read


def _texts(item: Item, name: str, where: str) -> list[Any]:
    parts = item.get(name, [])
    well_formed = isinstance(parts, list) and all(isinstance(part, dict) for part in parts)
    if not well_formed or not all(isinstance(part.get("text"), str) for part in parts):
        raise invalid(f"'{where}.{name}' must be an array of parts with a text.", f"{where}.{name}")
    return list(parts)


def _part_type(part: Any, where: str) -> str:
    if not isinstance(part, dict):
        raise invalid(f"'{where}' must be an object.", where)
    return str(part.get("type"))


def _text(value: dict[str, Any], name: str, where: str) -> str:
    text = value.get(name)
    if not isinstance(text, str):
        raise invalid(f"'{where}.{name}' must be a string.", f"{where}.{name}")
    return text


_READERS: dict[str, Callable[[Item, str], Item]] = {
    "message": _read_message,
    "function_call": _read_call,
    "function_call_output": _read_call_output,
    "reasoning": _read_reasoning,
}

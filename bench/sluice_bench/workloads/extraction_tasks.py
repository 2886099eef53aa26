"""Forms to be filled in from a note: JSON schemas, and patterns of the facts that a note states."""

from __future__ import annotations

from typing import Any

NOTES: tuple[tuple[str, tuple[str, ...]], ...] = (
    (
        "order",
        (
            "The customer is {person}.",
            "Wanted are {number} pieces like the {thing}.",
            "It is needed on {day}.",
            "The price was put at {number} coins each.",
        ),
    ),
    (
        "incident",
        (
            "It happened at {place} on {day}.",
            "{person}, the {role}, saw it.",
            "The {thing} was damaged.",
            "Nobody was hurt, and work stopped for {number} minutes.",
        ),
    ),
    (
        "visit",
        (
            "{person} came on {day} and stayed {number} minutes.",
            "The {role} showed the guest around.",
            "They liked {place} best.",
        ),
    ),
    (
        "inventory",
        (
            "There are {number} in the count of the {thing} kind, all {quality}.",
            "They are kept at {place}.",
            "{person} did the counting on {day}.",
        ),
    ),
)
"""Form and facts; the facts are told in any order."""


def schemas() -> dict[str, dict[str, Any]]:
    """By form: JSON Schema in the strict subset, every property required and none beside them."""
    text, count = {"type": "string"}, {"type": "integer"}
    day = {"type": "string", "enum": ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"]}
    return {
        "order": _object(customer=text, item=text, amount=count, due=day, price_each=count),
        "incident": _object(place=text, day=day, witness=_object(name=text, role=text), damaged=_list(text)),
        "visit": _object(guest=text, day=day, minutes=count, guide=text, liked={"type": "boolean"}),
        "inventory": _object(item=text, amount=count, place=text, counted_by=text, day=day),
    }


def _object(**properties: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def _list(items: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": items}

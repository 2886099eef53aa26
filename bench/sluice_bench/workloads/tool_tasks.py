"""Sets of functions that a model may call, and requests that want one of them."""

from __future__ import annotations

from typing import Any

import msgspec


class ToolSet(msgspec.Struct, frozen=True):
    """Functions in OpenAI's format, and patterns of what is asked."""

    name: str
    tools: tuple[dict[str, Any], ...]
    requests: tuple[str, ...]


def _function(name: str, description: str, **parameters: str) -> dict[str, Any]:
    """Each parameter is `type: what it means`; all are required."""
    properties = {}
    for key, text in parameters.items():
        kind, _, meaning = text.partition(": ")
        properties[key] = {"type": kind, "description": meaning}
    schema = {
        "type": "object",
        "properties": properties,
        "required": list(parameters),
        "additionalProperties": False,
    }
    function = {"name": name, "description": description, "parameters": schema}
    return {"type": "function", "function": function}


TOOL_SETS = (
    ToolSet(
        "booking",
        (
            _function(
                "reserve",
                "Reserve a place for a guest on a day.",
                guest="string: Name of the guest",
                day="string: Day of the week",
                seats="integer: Number of seats",
            ),
            _function(
                "cancel", "Cancel a reservation.", guest="string: Name of the guest", day="string: Day"
            ),
            _function("free_seats", "How many seats are left on a day.", day="string: Day of the week"),
        ),
        (
            "Please reserve {number} seats for {person} on {day}.",
            "Is anything free on {day}? We would be {number}.",
            "{person} cannot come on {day}, so please cancel that.",
        ),
    ),
    ToolSet(
        "stock",
        (
            _function("count_item", "Count an item in the store.", item="string: Singular name of the item"),
            _function(
                "order_item",
                "Order more of an item.",
                item="string: Singular name of the item",
                amount="integer: How many",
            ),
            _function(
                "move_item",
                "Carry an item from where it is to another place.",
                item="string: Singular name of the item",
                place="string: Where it is to be",
            ),
            _function("find_item", "Say where an item is.", item="string: Singular name of the item"),
        ),
        (
            "How many of the {thing} kind do we have?",
            "Order {number} more, each like the {quality} {thing}.",
            "Bring the {thing} to {place}, please.",
            "Where did we leave the {thing}?",
        ),
    ),
    ToolSet(
        "messages",
        (
            _function(
                "send_message",
                "Send a short message to a person.",
                to="string: Name of the person",
                text="string: The message",
            ),
            _function(
                "remind",
                "Set a reminder for the person who asks.",
                day="string: Day of the week",
                text="string: What to remember",
            ),
        ),
        (
            "Tell {person} that the {thing} is at {place}.",
            "Remind me on {day} to look after the {thing}.",
            "Ask {person} whether the {role} comes on {day}.",
        ),
    ),
    ToolSet(
        "measuring",
        (
            _function("read_sensor", "The latest value of a sensor.", place="string: Where the sensor is"),
            _function(
                "set_alarm",
                "Raise an alarm when a sensor exceeds a limit.",
                place="string: Where the sensor is",
                limit="number: Highest value without an alarm",
            ),
            _function(
                "average",
                "Mean of a sensor over the last hours.",
                place="string: Where the sensor is",
                hours="integer: How many hours",
            ),
        ),
        (
            "What does the sensor at {place} say?",
            "Wake the {role} if it goes over {number} at {place}.",
            "What was the mean of the last {number} hours at {place}?",
        ),
    ),
)

"""Tools and the choice between them: flat in the Responses API, nested in chat completions.

Only functions have a meaning for engines; a tool that OpenAI runs itself is refused by its name. The choice
`allowed_tools` becomes the list of those tools, since no engine knows the word.
"""

from __future__ import annotations

from typing import Any

from sluice_gateway.dialects.responses.problems import invalid, unsupported

Tool = dict[str, Any]
Choice = str | dict[str, Any]
_CHOICES = ("none", "auto", "required")
_FUNCTION_FIELDS = ("name", "description", "parameters", "strict")


def check_tools(tools: list[Tool]) -> None:
    """Raises `Unacceptable` for a tool that is no function, or has no name."""
    for place, tool in enumerate(tools):
        kind = tool.get("type")
        if kind != "function":
            text = (
                f"Tools of type '{kind}' are not supported by this server, which has no hosted tools;"
                " offer the tool as type 'function' and run it in your own code."
            )
            raise unsupported(text, f"tools[{place}].type")
        if not isinstance(tool.get("name"), str) or not tool["name"]:
            raise invalid("A function tool needs a 'name'.", f"tools[{place}].name")
        if not isinstance(tool.get("parameters") or {}, dict):
            raise invalid("'parameters' must be a JSON schema object.", f"tools[{place}].parameters")


def check_choice(choice: Choice, tools: list[Tool]) -> None:
    """Raises `Unacceptable` for a choice that names what is not offered."""
    if isinstance(choice, str):
        if choice not in _CHOICES:
            raise invalid(f"'tool_choice' must be one of {', '.join(_CHOICES)}, or an object.", "tool_choice")
        if choice == "required" and not tools:
            raise invalid("'tool_choice': 'required' needs 'tools'.", "tool_choice")
        return
    kind = choice.get("type")
    if kind == "function":
        _check_offered(choice.get("name"), tools)
    elif kind == "allowed_tools":
        if choice.get("mode") not in ("auto", "required"):
            raise invalid("'tool_choice.mode' must be 'auto' or 'required'.", "tool_choice.mode")
        for name in allowed_names(choice):
            _check_offered(name, tools)
    else:
        raise unsupported(
            f"A 'tool_choice' of type '{kind}' is not supported by this server.", "tool_choice.type"
        )


def allowed_names(choice: dict[str, Any]) -> list[Any]:
    """The names in an `allowed_tools` choice."""
    allowed = choice.get("tools")
    if not isinstance(allowed, list) or not all(isinstance(tool, dict) for tool in allowed):
        raise invalid("'tool_choice.tools' must be an array of objects.", "tool_choice.tools")
    return [tool.get("name") for tool in allowed]


def chat_tools(tools: list[Tool], choice: Choice) -> dict[str, Any]:
    """`tools` and `tool_choice` of a chat request; empty without tools."""
    if not tools:
        return {}
    if isinstance(choice, str):
        return {"tools": [_nested(tool) for tool in tools], "tool_choice": choice}
    if choice["type"] == "function":
        named = {"type": "function", "function": {"name": choice["name"]}}
        return {"tools": [_nested(tool) for tool in tools], "tool_choice": named}
    names = allowed_names(choice)
    kept = [_nested(tool) for tool in tools if tool["name"] in names]
    return {"tools": kept, "tool_choice": choice["mode"]} if kept else {}


def echoed_tools(tools: list[Tool]) -> list[Tool]:
    """The tools as the response object shows them: with every key that clients may look for."""
    return [{"parameters": None, "strict": None, "description": None, **tool} for tool in tools]


def _nested(tool: Tool) -> dict[str, Any]:
    function = {name: tool[name] for name in _FUNCTION_FIELDS if tool.get(name) is not None}
    return {"type": "function", "function": function}


def _check_offered(name: Any, tools: list[Tool]) -> None:
    if not any(tool["name"] == name for tool in tools):
        raise invalid(f"'tool_choice' names '{name}', which is not among 'tools'.", "tool_choice")

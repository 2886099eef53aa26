"""The server that a command is to ask, from what was typed."""

from __future__ import annotations

from sluice_bench import ping
from sluice_bench.target import Target
from sluice_bench.terminal import fail


def target_of(url: str) -> Target:
    """Ends the command when it is no address."""
    try:
        return Target.parse(url)
    except ValueError as error:
        fail(f"{error}.")


def header_of(text: str) -> tuple[str, str]:
    """From `Name: value`; ends the command when it is none."""
    name, colon, value = text.partition(":")
    if not colon or not name.strip():
        fail(f"{text!r} is not a header; write it as 'Name: value'.")
    return name.strip(), value.strip()


def first_model(target: Target, api_key: str | None) -> str:
    """That the server lists; ends the command when it lists none."""
    try:
        return ping.models(target, api_key)[0]
    except ping.PingFailed as error:
        fail(str(error))

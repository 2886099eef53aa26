"""What a service of a Compose file says, in the words that rules and the local stack ask for.

Each function takes a service as `compose_file` gives it, and knows both spellings of the specification where
ours use both.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from compose_file import ComposeError, Service

_DURATION = re.compile(r"(?:(\d+)m)?(?:(\d+)s)?")
_PORT = re.compile(r"(?:(?P<address>[\d.]+):)?(?P<host>\d+):(?P<container>\d+)")
_PORT_OPTION = re.compile(r"-{1,2}[\w-]*port")
_PORT_AT_END = re.compile(r"(?:port=|0\.0\.0\.0:)(\d+)")
"""`--port=8000`, `--web.listen-address=0.0.0.0:9090`."""


@dataclass(frozen=True)
class Port:
    """A port of a container that is published."""

    address: str
    """Of the host; empty is all of them."""
    host: int
    container: int


@dataclass(frozen=True)
class Mount:
    """What a container sees at `target`."""

    kind: str
    """`bind` for a path of the host, `volume` for a named one, `tmpfs`, or `secret`."""
    source: str
    target: str
    read_only: bool


def ports(service: Service) -> list[Port]:
    """The published ports. Raises `ComposeError` on a form that is not ours."""
    found = []
    for text in service.get("ports", ()):
        match = _PORT.fullmatch(str(text))
        if match is None:
            raise ComposeError(f"The port '{text}' is not written ADDRESS:HOST:CONTAINER.")
        found.append(Port(match["address"] or "", int(match["host"]), int(match["container"])))
    return found


def mounts(service: Service, secrets: Mapping[str, Any]) -> list[Mount]:
    """Everything that is mounted into the container, secrets included."""
    found = [_mount(entry) for entry in service.get("volumes", ())]
    found += [Mount("tmpfs", "", entry.partition(":")[0], False) for entry in service.get("tmpfs", ())]
    for name in service.get("secrets", ()):
        file = str(secrets.get(name, {}).get("file", ""))
        found.append(Mount("secret", file, f"/run/secrets/{name}", True))
    return found


def _mount(entry: Any) -> Mount:
    if isinstance(entry, str):
        source, target, *mode = entry.split(":")
        return Mount("bind" if source.startswith((".", "/")) else "volume", source, target, "ro" in mode)
    return Mount(entry["type"], entry["source"], entry["target"], bool(entry.get("read_only")))


def command(service: Service) -> list[str]:
    """The words of the command. Ours are lists: a text would go through rules of quoting."""
    words = service.get("command", [])
    if not isinstance(words, list):
        raise ComposeError("A command must be a list of words.")
    return [str(word) for word in words]


def listens_on(service: Service) -> set[int]:
    """Ports that the command names as its own."""
    words = command(service)
    named = {
        int(word) for option, word in pairwise(words) if _PORT_OPTION.fullmatch(option) and word.isdigit()
    }
    return named | {int(port) for word in words for port in _PORT_AT_END.findall(word)}


def dependencies(service: Service) -> dict[str, tuple[str, bool]]:
    """Name to (condition, whether it must be there)."""
    found = service.get("depends_on", {})
    if isinstance(found, list):
        return dict.fromkeys(found, ("service_started", True))
    return {name: (entry["condition"], entry.get("required", True)) for name, entry in found.items()}


def stop_grace_s(service: Service) -> float:
    """How long the container has after SIGTERM, in seconds; Docker's own 10 when it does not say."""
    return seconds(service.get("stop_grace_period", "10s"))


def seconds(text: str) -> float:
    """`90s`, `2m` or `1m30s`."""
    match = _DURATION.fullmatch(text)
    if match is None or not any(match.groups()):
        raise ComposeError(f"'{text}' is not a duration such as 90s.")
    return 60.0 * int(match[1] or 0) + int(match[2] or 0)


def is_one_shot(service: Service) -> bool:
    """Whether it is meant to end."""
    return str(service.get("restart", "no")).startswith(("no", "on-failure")) and "healthcheck" not in service


def dockerfile(service: Service, folder: Path) -> Path | None:
    """What its image is built from, if it is ours."""
    build = service.get("build")
    return folder / build["dockerfile"] if build else None

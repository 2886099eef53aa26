"""Compose files as values: the parts of the Compose specification that ours use, read without Docker.

`include` with one path and a project directory, variables (`${NAME}`, `${NAME:-default}`, `$$`), profiles,
and YAML's own anchors and merge keys. What else the specification has, `extends` among it, is refused rather
than misread. Source of the rules: the Compose specification, files `10-fragments` to `15-profiles`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

_VARIABLE = re.compile(
    r"\$(?:\$|\{(?P<name>[A-Z][A-Z0-9_]*)(?:(?P<operator>:-)(?P<default>[^${}]*))?\}|(?P<bad>.?))"
)
_SECTIONS = ("services", "networks", "volumes", "secrets")
_REFUSED = ("extends", "env_file", "configs", "develop", "scale")

Service = Mapping[str, Any]


class ComposeError(Exception):
    """A file cannot be read, or means something that is not known here; the message is for the user."""


@dataclass(frozen=True)
class Project:
    """All files together, variables put in."""

    folder: Path
    """What relative paths start from."""
    services: Mapping[str, Service]
    networks: Mapping[str, Any]
    volumes: Mapping[str, Any]
    secrets: Mapping[str, Any]
    variables: Mapping[str, frozenset[str]]
    """Every variable that is named, with the defaults it is given."""

    @property
    def profiles(self) -> tuple[str, ...]:
        """All that some service names, sorted."""
        return tuple(sorted({name for found in self.services.values() for name in found.get("profiles", ())}))

    def active(self, profiles: Iterable[str]) -> dict[str, Service]:
        """What `docker compose up` would start: services without a profile, and those with one of these."""
        wanted = set(profiles)
        return {
            name: service
            for name, service in self.services.items()
            if not service.get("profiles") or wanted & set(service["profiles"])
        }


@dataclass
class _Reading:
    environment: Mapping[str, str]
    sections: dict[str, dict[str, Any]] = field(default_factory=lambda: {name: {} for name in _SECTIONS})
    variables: dict[str, set[str]] = field(default_factory=dict)


def load(file: Path, environment: Mapping[str, str]) -> Project:
    """The project of a Compose file; `environment` is what `.env` and the shell would set.

    Raises `ComposeError`.
    """
    reading = _Reading(environment)
    _read(file, file.parent, reading)
    variables = {name: frozenset(defaults) for name, defaults in sorted(reading.variables.items())}
    return Project(folder=file.parent, variables=variables, **reading.sections)


def parse_variables(text: str) -> dict[str, str]:
    """The assignments of a `.env` file. Raises `ComposeError` on a line that is none."""
    found: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        stripped = line.strip()
        if not stripped or stripped.startswith("#"):
            continue
        name, equals, value = stripped.partition("=")
        if not equals or not re.fullmatch(r"[A-Z][A-Z0-9_]*", name):
            raise ComposeError(f".env, line {number}: write NAME=value, or begin the line with #.")
        found[name] = value
    return found


def substitute(text: str, environment: Mapping[str, str], note: Callable[[str, str], None]) -> str:
    """Put variables into a text; each is told to `note` with its default. Raises `ComposeError`."""

    def replace(match: re.Match[str]) -> str:
        if match["bad"] is not None:
            raise ComposeError(f"'{text}': write ${{NAME:-default}} for a variable and $$ for a dollar sign.")
        name, default = match["name"], match["default"] or ""
        if name is None:
            return "$"
        note(name, default)
        return environment.get(name) or default

    return _VARIABLE.sub(replace, text)


def _read(file: Path, folder: Path, reading: _Reading) -> None:
    try:
        document = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ComposeError(f"Cannot read {file}: {error}.") from error
    for entry in document.get("include", ()):
        if set(entry) != {"path", "project_directory"}:
            raise ComposeError(f"{file}: an include has a path and a project_directory.")
        _read(folder / entry["path"], folder / entry["project_directory"], reading)
    for section in _SECTIONS:
        for name, value in (document.get(section) or {}).items():
            _add(reading, section, name, _interpolated(value or {}, reading), file)


def _add(reading: _Reading, section: str, name: str, value: Any, file: Path) -> None:
    """Included files may say the same thing twice, never two things of one name."""
    known = reading.sections[section].setdefault(name, value)
    if known != value or (section == "services" and known is not value):
        raise ComposeError(f"{file}: {section}.{name} is also in another file, and not the same there.")
    for refused in _REFUSED if section == "services" else ():
        if refused in value:
            raise ComposeError(f"{file}: services.{name}.{refused} is not known here.")


def _interpolated(value: Any, reading: _Reading) -> Any:
    if isinstance(value, dict):
        return {key: _interpolated(item, reading) for key, item in value.items()}
    if isinstance(value, list):
        return [_interpolated(item, reading) for item in value]
    if not isinstance(value, str):
        return value
    return substitute(value, reading.environment, lambda name, default: _note(reading, name, default))


def _note(reading: _Reading, name: str, default: str) -> None:
    reading.variables.setdefault(name, set()).add(default)

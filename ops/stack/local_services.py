"""Services of the Compose file as plain processes of this machine: the same command, environment and files.

What a container has and a process has not is translated, and nothing else: mounted paths lie below a folder,
the names of other services and the ports that they listen on become loopback addresses, and where Prometheus
would ask Docker's DNS for its targets, it is told them. The program is the image's: for our images the
`ENTRYPOINT` of their Dockerfile.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from compose_file import ComposeError, Project, Service
from service_facts import (
    Mount,
    command,
    dockerfile,
    listens_on,
    mounts,
    ports,
    seconds,
    stop_grace_s,
)

THEIR_PROGRAMS = {"prom/prometheus": ["prometheus"], "redis": []}
"""What images of others run when their command does not begin with it."""
_LOOPBACK, _EVERYWHERE = "127.0.0.1", "0.0.0.0"
_CONFIGURATION = (".yml", ".yaml")


@dataclass(frozen=True)
class LocalService:
    """One process to be."""

    name: str
    command: list[str]
    environment: dict[str, str]
    folder: Path
    """Where it is started."""
    log: Path
    port: int
    health: list[str]
    """A command that ends with status 0 when the service is healthy."""
    health_interval_s: float
    patience_s: float
    """How long it may take until then."""
    grace_s: float
    """How long it may take to end."""


@dataclass(frozen=True)
class Place:
    """Where the stack lives on this machine."""

    state: Path
    programs: Path
    """The folder with our commands and `python`."""
    cache: Path
    """Stands for the worker's cache volume: compiled kernels are in the image, here in the user's cache."""
    choose_port: Callable[[int | None], int]
    """From a published port, or none, to the one to listen on."""
    scrape_interval_s: float | None = None
    """Overrides Prometheus' own."""


def local_services(project: Project, names: list[str], place: Place) -> list[LocalService]:
    """The named services, in an order in which each comes after what it waits for. Writes their files.

    Raises `ComposeError` when one cannot be had without Docker.
    """
    chosen = {name: project.services[name] for name in names}
    addresses = {
        (name, port): place.choose_port(_published(service, port))
        for name, service in chosen.items()
        for port in sorted(listens_on(service))
    }
    ordered: list[str] = []
    for name in chosen:
        _visit(name, chosen, ordered)
    return [_Translation(name, chosen[name], project, place, addresses).service() for name in ordered]


def _published(service: Service, port: int) -> int | None:
    return next((published.host for published in ports(service) if published.container == port), None)


def _visit(name: str, chosen: Mapping[str, Service], ordered: list[str]) -> None:
    if name not in ordered and name in chosen:
        for other in chosen[name].get("depends_on", {}):
            _visit(other, chosen, ordered)
        ordered.append(name)


class _Translation:
    """From one service to one process."""

    def __init__(
        self,
        name: str,
        service: Service,
        project: Project,
        place: Place,
        addresses: Mapping[tuple[str, int], int],
    ) -> None:
        self._name = name
        self._service = service
        self._project = project
        self._place = place
        self._addresses = addresses
        self._home = place.state / name
        self._paths: dict[str, Path] = {}

    def service(self) -> LocalService:
        """Make its files and say how to start it."""
        self._home.mkdir(parents=True)
        found = mounts(self._service, self._project.secrets)
        for mount in found:
            self._paths[mount.target] = self._host_path(mount)
        for mount in found:
            self._make(mount)
        program, folder = self._program()
        check = self._service["healthcheck"]
        return LocalService(
            name=self._name,
            command=[*program, *(self.translate(word, own_ports=True) for word in command(self._service))],
            environment=self._environment(),
            folder=self._paths.get(folder, self._home),
            log=self._place.state / f"{self._name}.log",
            port=self._addresses[self._name, min(listens_on(self._service))],
            health=[self._on_own_port(word) for word in check["test"][1:]],
            health_interval_s=seconds(check["start_interval"]),
            patience_s=seconds(check["start_period"]),
            grace_s=stop_grace_s(self._service),
        )

    def translate(self, text: str, own_ports: bool = False) -> str:
        """A word of a command, a value, or a whole file, with this machine's paths, addresses and ports."""
        if self._paths:  # in one go: a path that was put in is not to be translated again
            longest_first = sorted(map(re.escape, self._paths), key=len, reverse=True)
            pattern = rf"(?<![\w.-])({'|'.join(longest_first)})(?![\w-])"
            text = re.sub(pattern, lambda match: str(self._paths[match[1]]), text)
        for (name, port), here in self._addresses.items():
            text = re.sub(rf"(?<![\w.-]){re.escape(name)}:{port}(?!\d)", f"{_LOOPBACK}:{here}", text)
        if own_ports:
            text = self._on_own_port(text)
        return text.replace(_EVERYWHERE, _LOOPBACK)

    def _here(self, port: int) -> int:
        return self._addresses.get((self._name, port), port)

    def _on_own_port(self, text: str) -> str:
        """A port that it listens on, alone or after an option or its own address, becomes the one here."""
        own = "|".join(str(port) for port in listens_on(self._service))
        pattern = rf"(^|port=|{re.escape(_EVERYWHERE)}:|{re.escape(_LOOPBACK)}:)({own})(?!\d)"
        return re.sub(pattern, lambda match: f"{match[1]}{self._here(int(match[2]))}", text)

    def _host_path(self, mount: Mount) -> Path:
        if mount.kind != "volume":
            return self._home / mount.target.lstrip("/")
        return (
            self._place.cache
            if mount.source == "worker-cache"
            else self._place.state / "volumes" / mount.source
        )

    def _make(self, mount: Mount) -> None:
        there = self._paths[mount.target]
        if mount.kind in ("volume", "tmpfs"):
            there.mkdir(parents=True, exist_ok=True)
            return
        there.parent.mkdir(parents=True, exist_ok=True)
        source = self._project.folder / mount.source
        if source.is_dir():
            shutil.copytree(source, there)
        elif source.suffix in _CONFIGURATION:
            there.write_text(self._configuration(source.read_text(encoding="utf-8")), encoding="utf-8")
        else:
            shutil.copyfile(source, there)

    def _configuration(self, text: str) -> str:
        """A configuration file, of which Prometheus' names its targets."""
        document = yaml.safe_load(text)
        if "scrape_configs" not in document:
            return self.translate(text)
        if self._place.scrape_interval_s is not None:
            interval = f"{int(1000 * self._place.scrape_interval_s)}ms"
            document["global"] = dict.fromkeys(
                ("scrape_interval", "scrape_timeout", "evaluation_interval"), interval
            )
        jobs = [self._job(job) for job in document["scrape_configs"]]
        document["scrape_configs"] = [job for job in jobs if job is not None]
        return yaml.safe_dump(document, sort_keys=False)

    def _job(self, job: dict[str, Any]) -> dict[str, Any] | None:
        """A job with the addresses of what runs here; none when nothing of it does."""
        rest = {key: value for key, value in job.items() if not key.endswith("_sd_configs")}
        if self._place.scrape_interval_s is not None:
            rest.pop("scrape_interval", None)
        asked = [(name, entry["port"]) for entry in job.get("dns_sd_configs", ()) for name in entry["names"]]
        targets = [f"{_LOOPBACK}:{self._addresses[key]}" for key in asked if key in self._addresses]
        if targets:
            return {**rest, "static_configs": [{"targets": targets}]}
        if asked:
            return None
        return {**rest, "static_configs": [{"targets": [f"{_LOOPBACK}:{self._here(9090)}"]}]}

    def _program(self) -> tuple[list[str], str]:
        """The image's entry point, and the folder it starts in."""
        file = dockerfile(self._service, self._project.folder)
        if file is not None:
            text = file.read_text(encoding="utf-8")
            words = json.loads(re.findall(r"^ENTRYPOINT (\[.*\])$", text, re.MULTILINE)[-1])
            folder = re.findall(r"^WORKDIR (\S+)$", text, re.MULTILINE)[-1]
            return [str(self._place.programs / words[0]), *words[1:]], folder
        image = self._service["image"].partition(":")[0]
        if image not in THEIR_PROGRAMS:
            raise ComposeError(f"What {image} runs is not known here, so {self._name} needs Docker.")
        return THEIR_PROGRAMS[image], ""

    def _environment(self) -> dict[str, str]:
        """What the container would have, and where programs are."""
        given = {
            name: self.translate(str(value)) for name, value in self._service.get("environment", {}).items()
        }
        path = f"{self._place.programs}{os.pathsep}{os.environ.get('PATH', '')}"
        return {"PATH": path, "HOME": str(self._home), "TMPDIR": str(self._temporary()), **given}

    def _temporary(self) -> Path:
        folder = self._home / "tmp"
        folder.mkdir(exist_ok=True)
        return folder

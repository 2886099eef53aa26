"""What must hold for our Compose files beyond the specification, for each set of profiles.

Every rule yields sentences; none is silence. Rules about one service do not depend on profiles and are asked
once; `between_services` is asked for each set. Nothing here touches Docker or a network.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

from compose_file import Project, Service
from service_facts import (
    command,
    dependencies,
    is_one_shot,
    listens_on,
    mounts,
    ports,
)

COMPILES_IN_ITS_IMAGE = frozenset({"vllm", "vllm-quant", "tgi", "tgi-tp", "trt"})
"""Engines of others that write kernels into several places of their own image."""
CANNOT_BE_ASKED = frozenset({"otel", "load-worker"})
"""No tool in the image, or no port that it listens on."""
_SECRET_WORDS = ("PASSWORD", "TOKEN", "SECRET", "API_KEY")
_LOOPBACK = "127.0.0.1"


def of_services(project: Project) -> Iterator[str]:
    """What is wrong with services taken by themselves, and with what they refer to."""
    for name, service in project.services.items():
        for rule in (_hardening, _image, _health, _secrets_in_environment, _devices):
            yield from (f"{name}: {sentence}" for sentence in rule(name, service))
        yield from (f"{name}: {sentence}" for sentence in _references(service, project))
    yield from _unused(project)


def between_services(active: Mapping[str, Service]) -> Iterator[str]:
    """What is wrong between services that run together."""
    taken = Counter(port.host for service in active.values() for port in ports(service))
    yield from (f"port {port} is published {count} times" for port, count in taken.items() if count > 1)
    for name, service in active.items():
        for other, (condition, required) in dependencies(service).items():
            if other not in active:
                if required:
                    yield f"{name} depends on {other}, which is not there and not `required: false`"
            elif condition == "service_healthy" and "healthcheck" not in active[other]:
                yield f"{name} waits for {other} to be healthy, and it has no health check"
            elif condition == "service_completed_successfully" and not is_one_shot(active[other]):
                yield f"{name} waits for {other} to end, and it is not meant to"


def _hardening(name: str, service: Service) -> Iterator[str]:
    limits = service.get("deploy", {}).get("resources", {}).get("limits", {})
    wanted = {
        "cap_drop: [ALL]": service.get("cap_drop") == ["ALL"] and not service.get("cap_add"),
        "no-new-privileges": "no-new-privileges:true" in service.get("security_opt", ()),
        "init: true": service.get("init") is True,
        "read_only: true": service.get("read_only") is True or name in COMPILES_IN_ITS_IMAGE,
        "a restart policy": "restart" in service,
        "a bounded log": "max-size" in service.get("logging", {}).get("options", {}),
        "a memory limit": "memory" in limits,
        "a limit of processes": "pids" in limits,
        "stop_grace_period": "stop_grace_period" in service,
        "its networks": bool(service.get("networks")),
        "not privileged": not service.get("privileged") and "network_mode" not in service,
    }
    yield from (f"wants {what}" for what, there in wanted.items() if not there)


def _image(name: str, service: Service) -> Iterator[str]:
    tag = str(service.get("image", "")).rpartition("/")[2].partition(":")[2]
    if not tag or tag.startswith("latest"):
        yield "its image has no fixed tag"
    if "platform" in service:
        yield "names a platform; images must run on amd64 and arm64"


def _health(name: str, service: Service) -> Iterator[str]:
    check = service.get("healthcheck")
    if check is None:
        if not is_one_shot(service) and name not in CANNOT_BE_ASKED:
            yield "has no health check"
        return
    if check["test"][0] != "CMD":
        yield "its health check needs a shell"
    missing = {"interval", "timeout", "retries", "start_period", "start_interval"} - set(check)
    if missing:
        yield f"its health check does not say {', '.join(sorted(missing))}"
    port = next((p for word in reversed(check["test"]) for p in listens_on(service) if str(p) in word), None)
    if port is None and listens_on(service):
        yield "its health check asks no port that its command listens on"


def _secrets_in_environment(name: str, service: Service) -> Iterator[str]:
    for variable in service.get("environment", {}):
        is_path = variable.endswith(("_FILE", "_PATH"))
        if any(word in variable for word in _SECRET_WORDS) and not is_path:
            yield f"{variable} would hold a secret; give it as a file"


def _devices(name: str, service: Service) -> Iterator[str]:
    resources = service.get("deploy", {}).get("resources", {})
    for device in resources.get("reservations", {}).get("devices", ()):
        if not device.get("device_ids") or "count" in device:
            yield "takes GPUs without saying which"


def _references(service: Service, project: Project) -> Iterator[str]:
    for network in service.get("networks", ()):
        if network not in project.networks:
            yield f"network {network} is not declared"
    for secret in service.get("secrets", ()):
        if secret not in project.secrets:
            yield f"secret {secret} is not declared"
    for mount in mounts(service, project.secrets):
        if mount.kind == "volume" and mount.source not in project.volumes:
            yield f"volume {mount.source} is not declared"
        if mount.kind in ("bind", "secret") and not (project.folder / mount.source).exists():
            yield f"{mount.source} is mounted and does not exist"
        if mount.kind == "bind" and not mount.read_only:
            yield f"{mount.source} could be written to by the container"
    for port in ports(service):
        if port.address != _LOOPBACK:
            yield f"publishes {port.container} on more than loopback"
        if port.container not in listens_on(service) and command(service):
            yield f"publishes {port.container}, and its command does not listen there"
    build = service.get("build")
    if build and not (project.folder / build["dockerfile"]).is_file():
        yield f"{build['dockerfile']} does not exist"


def _unused(project: Project) -> Iterator[str]:
    used = {m.source for s in project.services.values() for m in mounts(s, project.secrets)}
    yield from (f"volume {name} is not used" for name in project.volumes if name not in used)
    networks = {name for service in project.services.values() for name in service.get("networks", ())}
    yield from (f"network {name} is not used" for name in project.networks if name not in networks)


def of_variables(project: Project, example: Mapping[str, str], text: str, ours: Path) -> Iterator[str]:
    """Whether `.env.example` has every variable once, with its default, and a comment above it."""
    for name, defaults in project.variables.items():
        if len(defaults) > 1:
            yield f"{name} has several defaults: {', '.join(sorted(defaults))}"
        if name not in example:
            yield f"{name} is not in {ours}"
        elif example[name] not in defaults:
            yield f"{name} is {example[name]!r} in {ours} and {'/'.join(sorted(defaults))!r} in Compose"
    yield from (
        f"{name} is in {ours} and nothing reads it" for name in example if name not in project.variables
    )
    lines = text.splitlines()
    for number, line in enumerate(lines):
        if "=" in line and not line.startswith("#") and not _is_explained(lines, number):
            yield f"{line.partition('=')[0]} is not explained in {ours}"


def _is_explained(lines: list[str], number: int) -> bool:
    """A comment stands above the line, or above the block of lines that it is in."""
    while number > 0 and lines[number - 1] and not lines[number - 1].startswith("#"):
        number -= 1
    return number > 0 and lines[number - 1].startswith("# ") and not lines[number - 1].startswith("# ---")

"""The Compose files in every set of profiles, and the Dockerfiles, as far as they tell without Docker."""

from __future__ import annotations

import copy
import dataclasses
import itertools
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import compose_rules
import pytest
import yaml
from compose_file import ComposeError, Project, load, parse_variables
from repository import ROOT
from service_facts import command, dockerfile, listens_on, ports, stop_grace_s
from test_docs import check_command, help_of

FILES = [ROOT / "docker-compose.yml", *sorted((ROOT / "ops" / "compose").glob("*.yaml"))]
FRAGMENTS = ["core", "observability", "engines", "store", "load"]
EXAMPLE = ROOT / ".env.example"
GATEWAY = yaml.safe_load((ROOT / "ops/compose/sluice.yaml").read_text())
PROMETHEUS = yaml.safe_load((ROOT / "ops/prometheus/prometheus.yml").read_text())
PORT_MAP = {
    "gateway": 8000, "vllm": 8001, "vllm-quant": 8002, "tgi": 8003, "tgi-tp": 8004, "trt": 8005,
    "worker": 8006, "llamacpp": 8007, "worker-gpu": 8016,
    "load-master": 8089, "prometheus": 9292, "grafana": 3030,
}  # fmt: skip
PROFILES = {"gpu", "quant", "tgi", "tgi-tp", "trt", "llamacpp", "worker-gpu", "postgres", "load", "otel"}
OURS = {"sluice", "sluice-worker"}
NOT_A_PROFILE = {"sglang"}
"""Scraped if somebody adds it."""


@pytest.fixture(scope="module")
def project() -> Project:
    return load(ROOT / "docker-compose.yml", {})


def run(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)


def test_they_are_what_the_specification_allows() -> None:
    names = [f"ops/compose/{name}.yaml" for name in FRAGMENTS]
    done = run(
        *(sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec"),
        *("docker-compose.yml", *names),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    included = [entry["path"] for entry in yaml.safe_load(FILES[0].read_text())["include"]]
    assert sorted(included) == sorted(names)


def test_a_linter_of_their_security_finds_nothing() -> None:
    done = run(
        *(sys.executable, "-m", "compose_lint", "check", "--config", "ops/compose/compose-lint.yml"),
        *("--strict-config", "--fail-on", "low", "--no-env"),
        *(f"ops/compose/{name}.yaml" for name in FRAGMENTS),
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    "file", sorted((ROOT / "ops/docker").glob("*.Dockerfile")), ids=lambda path: path.name
)
def test_a_linter_of_dockerfiles_finds_nothing(file: Path) -> None:
    hadolint = Path(sys.executable).parent / "hadolint"
    done = run(str(hadolint), "--config", "ops/docker/hadolint.yaml", str(file))
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_service_is_sound(project: Project) -> None:
    assert list(compose_rules.of_services(project)) == []


def test_every_set_of_profiles_fits_together(project: Project) -> None:
    assert set(project.profiles) == PROFILES
    sets = [
        chosen
        for size in range(len(project.profiles) + 1)
        for chosen in itertools.combinations(project.profiles, size)
    ]
    wrong = {chosen: list(compose_rules.between_services(project.active(chosen))) for chosen in sets}
    assert len(sets) == 2 ** len(PROFILES)
    assert {chosen: sentences for chosen, sentences in wrong.items() if sentences} == {}


def test_without_a_profile_a_laptop_has_all_it_needs(project: Project) -> None:
    active = project.active([])
    assert set(active) == {"gateway", "worker", "redis", "prometheus", "grafana"}
    assert not [name for name, service in active.items() if "reservations" in service["deploy"]["resources"]]


def test_ports_are_those_of_the_port_map(project: Project) -> None:
    published = {name: port.host for name, service in project.services.items() for port in ports(service)}
    assert published == PORT_MAP


def test_the_gateway_alone_can_be_published_elsewhere() -> None:
    project = load(ROOT / "docker-compose.yml", {"SLUICE_BIND": "0.0.0.0", "SLUICE_PORT": "80"})
    addresses = {name: port for name, service in project.services.items() for port in ports(service)}
    assert (addresses["gateway"].address, addresses["gateway"].host) == ("0.0.0.0", 80)
    assert {port.address for name, port in addresses.items() if name != "gateway"} == {"127.0.0.1"}


def test_every_variable_is_explained_with_its_default(project: Project) -> None:
    text = EXAMPLE.read_text()
    complaints = compose_rules.of_variables(project, parse_variables(text), text, Path(EXAMPLE.name))
    assert list(complaints) == []


def test_who_drains_is_given_ten_seconds_more(project: Project) -> None:
    services = project.services
    assert stop_grace_s(services["gateway"]) == GATEWAY["server"]["drain_s"] + 10
    for name in ("worker", "worker-gpu"):
        words = command(services[name])
        assert stop_grace_s(services[name]) == float(words[words.index("--drain-seconds") + 1]) + 10


def test_the_gateway_knows_every_engine_at_its_port(project: Project) -> None:
    engines = {name for name in PORT_MAP if name not in ("gateway", "load-master", "prometheus", "grafana")}
    urls = {backend["name"]: backend["url"] for backend in GATEWAY["backends"]}
    assert set(urls) == engines
    for name, url in urls.items():
        assert url == f"http://{name}:{ports(project.services[name])[0].container}"


def test_the_gateway_takes_its_configuration() -> None:
    done = subprocess.run(
        [
            str(Path(sys.executable).parent / "sluice"),
            "config",
            "check",
            "--config",
            "ops/compose/sluice.yaml",
        ],
        cwd=ROOT,
        env={"SLUICE_BOOTSTRAP_KEY_FILE": "/nowhere"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_prometheus_scrapes_every_engine_at_its_port(project: Project) -> None:
    asked = {
        name: entry["port"]
        for job in PROMETHEUS["scrape_configs"]
        for entry in job.get("dns_sd_configs", ())
        for name in entry["names"]
    }
    assert set(asked) - NOT_A_PROFILE - {"otel"} == {backend["name"] for backend in GATEWAY["backends"]} | {
        "gateway"
    }
    for name in set(asked) & set(PORT_MAP):
        assert asked[name] in listens_on(project.services[name]), name


def test_our_commands_exist_with_their_options(project: Project) -> None:
    complaints = []
    for name, service in project.services.items():
        file = dockerfile(service, ROOT)
        program = program_of(file) if file else "sluice-worker" if "worker" in service["image"] else ""
        if command(service)[:1] == ["stage"] and not help_of((program, "stage")):
            continue  # this worker has no stager to ask
        if program in OURS:
            complaints += [f"{name}: {found}" for found in check_command(program, command(service))]
    assert complaints == []


def program_of(file: Path) -> str:
    return re.findall(r'^ENTRYPOINT \["([^"]+)"', file.read_text(), re.MULTILINE)[-1]


def test_images_hold_only_what_they_are_built_from() -> None:
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    for file in (ROOT / "ops/docker").glob("*.Dockerfile"):
        copied = re.findall(r"^COPY (?!--from)(.+) \S+$", file.read_text(), re.MULTILINE)
        for source in (word for line in copied for word in line.split()):
            assert any(source == name or source.startswith(f"{name}/") for name in allowed), (
                file.name,
                source,
            )
            assert (ROOT / source).exists(), (file.name, source)


# Rules that cannot fail would prove nothing: each change below is one that a rule must see.

Change = Callable[[dict[str, Any]], object]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda s: s["redis"].pop("cap_drop"), "redis: wants cap_drop"),
        (lambda s: s["gateway"].pop("read_only"), "gateway: wants read_only"),
        (lambda s: s["gateway"].pop("stop_grace_period"), "gateway: wants stop_grace_period"),
        (lambda s: s["worker"]["deploy"]["resources"].pop("limits"), "worker: wants a memory limit"),
        (lambda s: s["redis"].update(image="redis:latest"), "redis: its image has no fixed tag"),
        (lambda s: s["redis"].update(image="redis"), "redis: its image has no fixed tag"),
        (lambda s: s["grafana"].pop("healthcheck"), "grafana: has no health check"),
        (lambda s: s["worker"]["healthcheck"].update(test=["CMD", "curl", "x:1"]), "worker: its health"),
        (lambda s: s["worker"]["environment"].update(HF_TOKEN="hf"), "worker: HF_TOKEN would hold a secret"),
        (lambda s: s["worker"].update(ports=["8006:8006"]), "worker: publishes 8006 on more than loopback"),
        (lambda s: s["worker"].update(ports=["127.0.0.1:1:81"]), "worker: publishes 81, and its command"),
        (lambda s: s["worker"]["volumes"].append("lost:/lost"), "worker: volume lost is not declared"),
        (lambda s: s["worker"]["volumes"].append("./lost:/lost:ro"), "worker: ./lost is mounted"),
        (lambda s: s["worker"]["volumes"].append("./ops:/ops"), "worker: ./ops could be written to"),
        (lambda s: s["redis"].update(volumes=[]), "volume redis-data is not used"),
        (lambda s: s["redis"].update(networks=["lost"]), "redis: network lost is not declared"),
        (lambda s: gpu(s["vllm"]).update(device_ids=[], count="all"), "vllm: takes GPUs without"),
    ],
)  # fmt: skip
def test_a_rule_of_services_sees(change: Change, sentence: str, project: Project) -> None:
    services = copy.deepcopy(dict(project.services))
    change(services)
    found = list(compose_rules.of_services(dataclasses.replace(project, services=services)))
    assert any(complaint.startswith(sentence) for complaint in found), found


def gpu(service: Any) -> dict[str, Any]:
    (device,) = service["deploy"]["resources"]["reservations"]["devices"]
    return device


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda s: s["vllm"].update(ports=["127.0.0.1:8000:8000"]), "port 8000 is published 2 times"),
        (lambda s: s.pop("redis"), "gateway depends on redis"),
        (lambda s: s["gateway"]["depends_on"]["postgres"].pop("required"), "gateway depends on postgres"),
        (lambda s: s["redis"].pop("healthcheck"), "gateway waits for redis to be healthy"),
        (lambda s: s["stage-vllm"].update(restart="always"), "vllm waits for stage-vllm to end"),
    ],
)
def test_a_rule_between_services_sees(change: Change, sentence: str, project: Project) -> None:
    active = copy.deepcopy(project.active(["gpu"]))
    change(active)
    found = list(compose_rules.between_services(active))
    assert any(complaint.startswith(sentence) for complaint in found), found


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("SLUICE_VERSION=0.1.0\n", "SLUICE_BIND is not in"),
        ("# The tag.\nSLUICE_VERSION=0.2.0\n", "SLUICE_VERSION is '0.2.0'"),
        ("# Nothing.\nNOTHING=1\n", "NOTHING is in .env.example and nothing reads it"),
        ("# --- title ---\n\nSLUICE_VERSION=0.1.0\n", "SLUICE_VERSION is not explained"),
    ],
)
def test_a_rule_of_variables_sees(text: str, sentence: str, project: Project) -> None:
    found = list(compose_rules.of_variables(project, parse_variables(text), text, Path(EXAMPLE.name)))
    assert any(complaint.startswith(sentence) for complaint in found), found


@pytest.mark.parametrize(
    ("files", "sentence"),
    [
        ({"a.yaml": "services: {x: {image: '$X'}}"}, "write ${NAME:-default}"),
        ({"a.yaml": "services: {x: {extends: y}}"}, "x.extends is not known here"),
        ({"a.yaml": "include: [{path: b.yaml}]"}, "an include has a path and a project_directory"),
        ({"a.yaml": "include: [{path: b.yaml, project_directory: .}]"}, "Cannot read"),
        (
            {
                "a.yaml": "include: [{path: b.yaml, project_directory: .}]\nvolumes: {v: {name: a}}",
                "b.yaml": "volumes: {v: {name: b}}",
            },
            "volumes.v is also in another file",
        ),
    ],
)
def test_what_the_reader_does_not_know_it_refuses(
    files: dict[str, str], sentence: str, tmp_path: Path
) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(ComposeError) as raised:
        load(tmp_path / "a.yaml", {})
    assert sentence in str(raised.value)


def test_variables_have_defaults_and_dollars_can_be_written(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text("services: {x: {image: 'a:${TAG:-1}', command: ['$${TAG}', '${OTHER}b']}}")
    assert load(file, {}).services["x"] == {"image": "a:1", "command": ["${TAG}", "b"]}
    found = load(file, {"TAG": "2", "OTHER": "c"})
    assert found.services["x"] == {"image": "a:2", "command": ["${TAG}", "cb"]}
    assert found.variables == {"TAG": frozenset({"1"}), "OTHER": frozenset({""})}

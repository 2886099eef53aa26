"""The stack as the Compose file says, without Docker: quick start, and every expression of a dashboard."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import smoke_test
from compose_file import load
from dashboards import DASHBOARDS, expressions
from local_services import Place, local_services
from local_stack import SERVICES, LocalStack, StackError, free_port, mapped_port, running
from repository import ROOT

ONLY_OF_OTHER_ENGINES = ["sluice:queue_seconds:p95"]
"""The worker does not tell these; `ops/prometheus/tests` has them for each engine that does."""
PORTS = {"gateway": {8000}, "worker": {8006}, "redis": {6379}, "prometheus": {9090}}
PATIENCE_S = 30.0


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalStack]:
    with running(tmp_path_factory.mktemp("stack"), free_port, scrape_interval_s=0.5) as stack:
        yield stack  # and whatever does not end in good order fails the module's last test


def test_the_quick_start_works(stack: LocalStack) -> None:
    assert len(list(smoke_test.smoke_test(stack))) == 6


def test_every_expression_of_every_dashboard_has_data(stack: LocalStack) -> None:
    wanted = {query for file in DASHBOARDS for query in expressions(file)}
    assert len(wanted) > 20
    deadline = time.monotonic() + PATIENCE_S
    empty = wanted
    while empty and time.monotonic() < deadline:
        smoke_test.ask(stack)  # rates are of what goes on
        empty = {query for query in empty if not smoke_test.query_prometheus(stack, query)}
        if all(query.startswith(tuple(ONLY_OF_OTHER_ENGINES)) for query in empty):
            break
        time.sleep(0.3)
    assert sorted(query.partition("{")[0] for query in empty) == ONLY_OF_OTHER_ENGINES


def test_it_is_the_compose_file_that_runs(stack: LocalStack) -> None:
    project = load(ROOT / "docker-compose.yml", {})
    for name in SERVICES:
        said = [str(word) for word in project.services[name]["command"]]
        done = stack.services[name].command
        assert len(done) >= len(said), name
        for word, there in zip(reversed(said), reversed(done), strict=False):
            assert word == there or "/" in word or "0.0.0.0" in word or int(word) in PORTS[name], (
                word,
                there,
            )
        assert stack.services[name].port in {int(number) for number in re.findall(r"\d+", " ".join(done))}


def test_nothing_reaches_beyond_loopback(stack: LocalStack) -> None:
    for service in stack.services.values():
        assert "0.0.0.0" not in " ".join(service.command)


def test_a_taken_port_is_one_sentence() -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = holder.getsockname()[1]
        with pytest.raises(StackError, match=f"Port {port} is in use"):
            mapped_port(port)


def test_a_service_that_dies_is_told_with_its_last_words(tmp_path: Path) -> None:
    place = Place(tmp_path, Path(sys.executable).parent, tmp_path, free_port)
    (service,) = local_services(load(ROOT / "docker-compose.yml", {}), ["redis"], place)
    service.command.append("--no-such-option")
    stack = LocalStack()
    try:
        with pytest.raises(StackError, match="redis ended with 1") as raised:
            stack.start(service)
    finally:
        stack.stop()
    assert "no-such-option" in str(raised.value)


def test_a_missing_program_is_one_sentence(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "ops/stack/stack_local.py"), "--once"],
        env={"PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "apt-get install redis-server" in done.stderr

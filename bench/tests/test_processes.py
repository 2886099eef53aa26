"""Child servers: started, waited for, measured, always ended."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path
from urllib.request import urlopen

import psutil
import pytest

from sluice_bench.processes import (
    ForeignCpu,
    ServerFailed,
    ServerProcess,
    foreign_cores,
    free_port,
    null_server_process,
    raise_file_limit,
    tree_cpu_s,
    two_cores,
)


def test_a_child_is_ready_inside_the_context_and_gone_after_it(tmp_path: Path) -> None:
    before = set(psutil.Process().children())
    with null_server_process(tmp_path) as server:
        with urlopen(server.url + "/health", timeout=10) as response:
            assert response.status == 200
        assert server.cpu_s() > 0
        assert server.resident_bytes() > 1_000_000
        pids = [child.pid for child in set(psutil.Process().children()) - before]
        assert pids
    assert not any(psutil.pid_exists(pid) for pid in pids)


def test_a_child_with_an_open_connection_ends_all_the_same(tmp_path: Path) -> None:
    with socket.socket() as client:
        with null_server_process(tmp_path) as server:
            client.connect(("127.0.0.1", int(server.url.rpartition(":")[2])))
        assert client.recv(1) == b""


@pytest.mark.skipif(two_cores() is None, reason="processes cannot be pinned here")
def test_a_pinned_child_has_one_core_and_we_keep_ours(tmp_path: Path) -> None:
    before = os.sched_getaffinity(0)
    others = set(psutil.Process().children())
    core, _ = two_cores() or (0, 0)
    with null_server_process(tmp_path, core=core):
        (child,) = set(psutil.Process().children()) - others
        assert child.cpu_affinity() == [core]
        assert os.sched_getaffinity(0) == before


def test_children_may_open_as_many_files_as_the_system_allows() -> None:
    limit = raise_file_limit()
    code = "import resource; print(resource.getrlimit(resource.RLIMIT_NOFILE)[0])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) == limit


def test_a_child_that_dies_tells_its_last_words(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "raise SystemExit('no model here')"]
    with pytest.raises(ServerFailed, match="no model here"), ServerProcess(command, 1, tmp_path / "log"):
        pass


def test_a_child_that_is_never_ready_is_ended(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "import time; time.sleep(60)"]
    before = psutil.Process().children()
    with (
        pytest.raises(ServerFailed, match="not ready"),
        ServerProcess(command, free_port(), tmp_path / "log", ready_within_s=0.3),
    ):
        pass
    assert psutil.Process().children() == before


def test_cpu_of_ended_children_still_counts(tmp_path: Path) -> None:
    """A server that forks workers and lets them go must not look cheap."""
    burn = "import time\nwhile time.process_time() < 0.3: pass"
    code = (
        f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {burn!r}])\n"
        "from sluice_bench.processes import tree_cpu_s\nimport os\nprint(tree_cpu_s(os.getpid()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert float(done.stdout) >= 0.3


def test_own_work_is_not_foreign() -> None:
    assert foreign_cores(busy_s=3.0, own_s=2.0, wall_s=2.0) == 0.5
    assert foreign_cores(busy_s=1.99, own_s=2.0, wall_s=2.0) == 0.0


def test_foreign_work_is_at_most_the_whole_machine() -> None:
    foreign = ForeignCpu(os.getpid())
    before = tree_cpu_s(os.getpid())
    while tree_cpu_s(os.getpid()) - before < 0.2:
        pass
    assert 0 <= foreign.cores() <= (psutil.cpu_count() or 1) + 0.1

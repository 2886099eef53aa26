"""`make load`: Locust's journeys against the server at an address, or a gateway and worker of our own.

    python -m sluice_bench.journeys --url http://127.0.0.1:8000 --users 4 --time 30s [LOCUST'S OPTIONS]

When nobody listens at the address, and it is on this machine, `sluice serve` is started there with the
bundled model and the echo engine beside it, which has embeddings, and ended afterwards. The exit status is
Locust's.
"""

from __future__ import annotations

import argparse
import importlib.util
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

from sluice_bench.processes import ServerFailed, ServerProcess, script
from sluice_bench.target import Target

LOCUSTFILE = Path(__file__).resolve().parents[2] / "locustfile.py"

OWN_CONFIG = """\
backends:
  - {name: worker, adapter: worker, managed: {}}
  - {name: echo, adapter: echo, models: [echo], options: {tokens_per_s: 100}}
"""
_LOOPBACK = ("127.0.0.1", "localhost", "::1")


def main(arguments: Sequence[str]) -> int:
    """Run the journeys; returns Locust's exit status."""
    parser = argparse.ArgumentParser(prog="make load", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--url", default="http://127.0.0.1:8000", help="the server")
    parser.add_argument("--users", default="4", help="how many at once")
    parser.add_argument("--time", default="30s", help="as Locust takes it: 30s, 5m, 1h")
    asked, others = parser.parse_known_args(arguments)
    if importlib.util.find_spec("locust") is None:
        _end(2, "Locust is not installed; `make load` installs it, or: pip install 'locust>=2.47'.")
    try:
        target = Target.parse(asked.url)
    except ValueError as error:
        _end(1, f"{error}.")
    command = [sys.executable, "-m", "locust", "-f", str(LOCUSTFILE), "--headless", "--only-summary"]
    command += ["--host", asked.url, "--users", asked.users, "--spawn-rate", asked.users]
    command += ["--run-time", asked.time, *others]
    with _server(target):
        return _run(command)


@contextmanager
def _server(target: Target) -> Iterator[None]:
    """The server that is there, or our own."""
    if _listens(target):
        yield
        return
    if target.host not in _LOOPBACK or target.tls or target.prefix:
        _end(1, f"Nobody listens at {target.url}; start the server, or name another address with URL=.")
    print(f"Nobody listens at {target.url}: starting gateway and worker there.", flush=True)  # noqa: T201
    with tempfile.TemporaryDirectory(prefix="sluice-load-") as name:
        folder = Path(name)
        config = folder / "sluice.yaml"
        config.write_text(OWN_CONFIG, encoding="utf-8")
        store = f"sqlite:///{folder / 'sluice.db'}"
        command = [script("sluice"), "serve", "--config", str(config), "--port", str(target.port)]
        try:
            with ServerProcess(
                command,
                target.port,
                folder / "sluice.log",
                ready_path="/ready",
                environment={"SLUICE_STORE_URL": store},
            ):
                yield
        except ServerFailed as error:
            _end(1, f"The gateway did not start: {error}")


def _listens(target: Target) -> bool:
    try:
        socket.create_connection((target.host, target.port), timeout=5).close()
    except OSError:
        return False
    return True


def _run(command: Sequence[str]) -> int:
    """Locust; Ctrl-C is for it, and it ends with its summary."""
    with subprocess.Popen(command) as locust:
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)
        terminate = signal.signal(signal.SIGTERM, lambda *_: locust.terminate())
        try:
            return locust.wait()
        finally:
            signal.signal(signal.SIGINT, before)
            signal.signal(signal.SIGTERM, terminate)


def _end(status: int, sentence: str) -> NoReturn:
    print(sentence, file=sys.stderr, flush=True)  # noqa: T201
    sys.exit(status)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

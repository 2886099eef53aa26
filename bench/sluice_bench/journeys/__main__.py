"""`make load`: Locust's journeys against the server at an address, or a gateway and worker of our own.

    python -m sluice_bench.journeys --url http://127.0.0.1:8000 --users 4 --time 30s [LOCUST'S OPTIONS]

When nobody listens at the address, and it is on this machine, gateway and worker are started there and ended
afterwards (`own_stack.py`). The exit status is Locust's: 0 good, 1 not, 2 when something is missing.
"""

from __future__ import annotations

import argparse
import importlib.util
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from sluice_bench.journeys.own_stack import own_stack
from sluice_bench.processes import ServerFailed
from sluice_bench.target import Target

LOCUSTFILE = Path(__file__).resolve().parents[2] / "locustfile.py"
_LOOPBACK = ("127.0.0.1", "localhost")


def main(arguments: Sequence[str]) -> int:
    """Run the journeys; returns the exit status."""
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
    if _listens(target):
        return _run(command)
    if target.host not in _LOOPBACK or target.tls or target.prefix:
        _end(1, f"Nobody listens at {target.url}; start the server, or name another address with URL=.")
    print(f"Nobody listens at {target.url}: starting gateway and worker there.", flush=True)  # noqa: T201
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that they are ended then, too
    try:
        with own_stack(target.port):
            return _run(command)
    except ServerFailed as error:
        _end(1, f"The gateway did not start: {error}")


def _listens(target: Target) -> bool:
    try:
        socket.create_connection((target.host, target.port), timeout=5).close()
    except OSError:
        return False
    return True


def _run(command: Sequence[str]) -> int:
    """Locust's status. Ctrl-C reaches it too; it then ends with its summary, and is waited for."""
    with subprocess.Popen(command) as locust:
        try:
            return locust.wait()
        except KeyboardInterrupt:
            return locust.wait()
        finally:
            locust.terminate()  # nothing, when it has ended


def _end(status: int, sentence: str) -> NoReturn:
    print(sentence, file=sys.stderr, flush=True)  # noqa: T201
    sys.exit(status)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""`make stack-local`: Redis, worker, gateway and Prometheus as the Compose file says, without Docker.

It starts them on the ports of the port map, does the quick start as a test, and keeps them until Ctrl-C.
State is a new folder each time: every start is a first start.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from compose_file import ComposeError, parse_variables
from local_stack import ROOT, SERVICES, LocalStack, StackError, mapped_port, running
from smoke_test import smoke_test


def main(arguments: Sequence[str]) -> int:
    """Entry point. Returns the exit status."""
    parser = argparse.ArgumentParser(prog="make stack-local", description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--once", action="store_true", help="end after the test instead of at Ctrl-C")
    options = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        with tempfile.TemporaryDirectory(prefix="sluice-stack-") as folder:
            _run(Path(folder), options.once)
    except KeyboardInterrupt:
        _say("Stopped.")
    except (StackError, ComposeError) as error:
        sys.stderr.write(f"stack-local: {error}\n")
        return 1
    return 0


def _run(state: Path, once: bool) -> None:
    _say(f"Starting {', '.join(SERVICES)} as docker-compose.yml says ...")
    with running(state, mapped_port, variables=_variables()) as stack:
        for line in smoke_test(stack):
            _say(f"  ok: {line}")
        _say("The quick start works.")
        if not once:
            _say(_greeting(stack))
            signal.pause()


def _variables() -> dict[str, str]:
    """As Compose reads them: `.env` beside its file, and the environment, which wins."""
    file = ROOT / ".env"
    written = parse_variables(file.read_text(encoding="utf-8")) if file.is_file() else {}
    return {**written, **os.environ}


def _greeting(stack: LocalStack) -> str:
    key = stack.execute("gateway", "sluice", "keys", "show", "--bootstrap").strip()
    return (
        f"\nGateway {stack.url('gateway')}, worker {stack.url('worker')},"
        f" Prometheus {stack.url('prometheus')}.\n"
        f"First key of this run, gone with it: {key}\nCtrl-C stops all of it."
    )


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""A gateway and a worker of our own, for whoever has none running: started, waited for, ended.

The gateway keeps all that it keeps in a folder that goes away with it. Beside the worker and the bundled
model it has the echo engine, so that there is a choice of backends, and somebody who makes embeddings.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sluice_bench.processes import ServerProcess, script

BUNDLED = "sluice-tiny"
"""What the worker serves."""

ECHO_TOKENS_PER_S = 100


def config_text(folder: Path) -> str:
    """The gateway's configuration, for a gateway that keeps everything in `folder`."""
    return (
        "backends:\n"
        "  - {name: worker, adapter: worker, managed: {}}\n"
        f"  - {{name: echo, adapter: echo, models: [echo], options: {{tokens_per_s: {ECHO_TOKENS_PER_S}}}}}\n"
        f"store: {{url: 'sqlite:///{folder / 'sluice.db'}'}}\n"
        f"ledger: {{journal_folder: '{folder / 'ledger'}'}}\n"
        f"files: {{dir: '{folder / 'files'}'}}\n"
        "logs: {requests: false}\n"
    )


@contextmanager
def own_stack(port: int) -> Iterator[str]:
    """The address of a gateway that is ready. Raises `ServerFailed`."""
    with tempfile.TemporaryDirectory(prefix="sluice-load-") as name:
        folder = Path(name)
        config = folder / "sluice.yaml"
        config.write_text(config_text(folder), encoding="utf-8")
        command = [script("sluice"), "serve", "--config", str(config), "--port", str(port)]
        log = folder / "sluice.log"
        # The gateway is ready as soon as one backend is: the worker takes longer than the echo engine.
        with ServerProcess(command, port, log, ready_path=f"/v1/models/{BUNDLED}") as gateway:
            yield gateway.url

"""The real server process in front of the parrot engine: `parrot_server.py FOLDER KEEP_ALIVE_S DRAIN_S`."""

from __future__ import annotations

import asyncio
import sys
import time
from datetime import datetime
from pathlib import Path

import uvloop

from sluice_worker.async_engine import spawn_engine
from sluice_worker.cli import listen
from sluice_worker.config import EngineConfig
from sluice_worker.loading.model_folder import open_folder
from sluice_worker.outputs import ModelInfo
from sluice_worker.server.lifecycle import ServerSettings, run_server
from sluice_worker.server.served_model import load_served_model


def main() -> None:
    path, keep_alive_s, drain_s = sys.argv[1:]
    listener = listen("127.0.0.1", 0)
    model = load_served_model(open_folder(Path(path), "parrot"), (), int(time.time()), datetime.now)
    settings = ServerSettings(
        keep_alive_s=float(keep_alive_s), drain_s=float(drain_s), max_body_bytes=100_000
    )
    port = listener.getsockname()[1]

    def announce(_: ModelInfo | None) -> None:
        print(f"parrot is ready: parrot at http://127.0.0.1:{port}/v1", flush=True)

    if path.endswith("loading"):
        listener.listen()  # so that a client may connect before the server is up
        announce(None)
    spawned = spawn_engine(EngineConfig(model=path), "parrot_engine:ParrotEngine")
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        failure = runner.run(run_server(spawned, listener, model, settings, announce))
    if failure:
        sys.exit(failure)


if __name__ == "__main__":
    main()

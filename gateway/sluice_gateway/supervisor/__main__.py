"""The supervisor as a process of its own, made by `sluice serve --workers N`.

Run as `python -m sluice_gateway.supervisor OPTIONS`, see `ServeOptions`. It loads as little as it can: it
lives as long as the gateway, beside workers that need the memory.
"""

from __future__ import annotations

import asyncio
import os
import sys

import msgspec

from sluice_gateway import logs
from sluice_gateway.config import ConfigError
from sluice_gateway.metrics_server import MetricsServer
from sluice_gateway.serve_options import ServeOptions
from sluice_gateway.signals import STOPPING, heed
from sluice_gateway.supervisor.supervisor import Supervisor


async def _supervise(options: ServeOptions) -> bool:
    settings = options.read(os.environ)
    logs.configure(logs.standard_error(), settings.logs.format)
    supervisor = Supervisor(settings, lambda: options.read(os.environ), _say)

    def stop(drain_s: float) -> None:
        _say(STOPPING)
        supervisor.stop(drain_s)

    reloading = heed(stop, lambda: supervisor.settings.server, supervisor.reload)
    page = MetricsServer(supervisor.metrics_page)
    try:
        await page.start(settings.server)
        return await supervisor.run()
    finally:
        reloading.cancel()
        await page.aclose()


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def main() -> int:
    """The exit status."""
    options = msgspec.json.decode(sys.argv[1], type=ServeOptions)
    try:
        started = asyncio.run(_supervise(options))
    except ConfigError as error:
        sys.stderr.write(f"sluice: {error}\n")
        return 1
    return 0 if started else 1


if __name__ == "__main__":
    sys.exit(main())

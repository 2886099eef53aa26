"""A gateway of one process, made by `sluice serve`.

Run as `python -m sluice_gateway.launch sluice_gateway.lone_process OPTIONS`, see `ServeOptions`: a Python of
its own, without the ten megabytes that reading a command line takes.
"""

from __future__ import annotations

import logging
import os
import sys

import msgspec

from sluice_gateway import server
from sluice_gateway.compiled import finder
from sluice_gateway.config import ConfigError
from sluice_gateway.gateway import Gateway
from sluice_gateway.listening import listen
from sluice_gateway.logs import standard_error
from sluice_gateway.serve_options import ServeOptions

_log = logging.getLogger("sluice")


def main() -> int:
    """The exit status."""
    options = msgspec.json.decode(sys.argv[1], type=ServeOptions)
    try:
        _serve(options)
    except ConfigError as error:
        sys.stderr.write(f"sluice: {error}\n")
        return 1
    return 0


def _serve(options: ServeOptions) -> None:
    settings = options.read(os.environ)
    listener = listen(settings)
    server.log_to_standard_error(settings)
    gateway = Gateway(settings, os.environ, standard_error())
    _log.info("the gateway %s", finder.describe())
    server.run(gateway, listener, _say, lambda: options.read(os.environ))


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()

"""The ASGI application for any server: `uvicorn sluice_gateway.main:app --reload`.

Without `SLUICE_CONFIG` it has only the echo engine, which is what front-end work needs. `sluice serve`
builds the same application from its own settings and does not import this module.
"""

from __future__ import annotations

import os

from sluice_gateway import config, logs
from sluice_gateway.application import build_application
from sluice_gateway.asgi import FrontDoor
from sluice_gateway.gateway import Gateway


def from_environment() -> FrontDoor:
    """The application that the environment asks for. A wrong one ends the process in one sentence."""
    stream = logs.standard_error()
    try:
        settings = config.for_application(os.environ)
        logs.configure(stream, settings.logs.format)
        return build_application(Gateway(settings, os.environ, stream))
    except config.ConfigError as error:
        raise SystemExit(f"sluice: {error}") from error


app = from_environment()

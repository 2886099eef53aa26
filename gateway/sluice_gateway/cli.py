"""The command `sluice`: serve, check a configuration, make keys, show usage.

What goes wrong is one sentence on standard error and exit status 1 (2 for a wrong command line), never a
trace.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from sluice_gateway import config, reference
from sluice_gateway.commands import keys, tenants
from sluice_gateway.commands.audit import audit
from sluice_gateway.commands.explain import explain
from sluice_gateway.commands.usage import usage
from sluice_gateway.config import ConfigError
from sluice_gateway.settings import Settings

app = typer.Typer(
    help="One OpenAI endpoint in front of every inference engine you run.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
config_app = typer.Typer(help="Check and explain the configuration.", no_args_is_help=True)
app.add_typer(config_app, name="config")
app.add_typer(keys.app, name="keys")
app.add_typer(tenants.app, name="tenants")
app.command()(audit)
app.command()(usage)
app.command()(explain)

ConfigOption = Annotated[
    Path | None,
    typer.Option("--config", "-c", help="Configuration file; default: SLUICE_CONFIG, or ./sluice.yaml."),
]


@app.command()
def serve(
    config_file: ConfigOption = None,
    host: Annotated[
        str | None, typer.Option(help="Address to listen on; wins over file and SLUICE_HOST.")
    ] = None,
    port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="TCP port; wins over file and SLUICE_PORT.")
    ] = None,
) -> None:
    """Serve. Without a configuration: the bundled worker with the bundled model, on loopback."""
    settings = _override(config.for_serving(config_file, os.environ), host, port)
    # Web framework and server take a second to import; the other commands need neither.
    from sluice_gateway import server
    from sluice_gateway.gateway import Gateway
    from sluice_gateway.keys import bootstrap
    from sluice_gateway.logs import standard_error

    bootstrap.prepare(settings, os.environ)
    listener = server.listen(settings)
    server.log_to_standard_error(settings)
    _say(f"Starting {', '.join(b.name for b in settings.backends)} ...")
    server.run(Gateway(settings, os.environ, standard_error()), listener, _say)


@config_app.command("check")
def check(config_file: ConfigOption = None) -> None:
    """Say whether the configuration is valid, and what it amounts to."""
    settings = config.for_serving(config_file, os.environ)
    from sluice_gateway.keys import bootstrap

    bootstrap.require_safe_address(settings, os.environ)
    names = ", ".join(backend.name for backend in settings.backends)
    where = f"http://{settings.server.host}:{settings.server.port}"
    _say(f"OK: {where}, backends: {names}, API keys: {len(settings.keys)}")


@config_app.command("reference")
def print_reference() -> None:
    """Print every key with its meaning, as Markdown."""
    _say(reference.render())


def main() -> None:
    """Entry point."""
    try:
        app()
    except ConfigError as error:
        typer.echo(f"sluice: {error}", err=True)
        sys.exit(1)


def _override(settings: Settings, host: str | None, port: int | None) -> Settings:
    chosen = {name: value for name, value in (("host", host), ("port", port)) if value is not None}
    return msgspec.structs.replace(settings, server=msgspec.structs.replace(settings.server, **chosen))


def _say(text: str) -> None:
    typer.echo(text)

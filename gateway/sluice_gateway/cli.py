"""The command `sluice`: serve, check a configuration, make keys, show usage.

What goes wrong is one sentence on standard error and exit status 1 (2 for a wrong command line), never a
trace.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from sluice_gateway import config, reference
from sluice_gateway.commands import engines, keys, tenants
from sluice_gateway.commands.audit import audit
from sluice_gateway.commands.compile import compile_modules
from sluice_gateway.commands.explain import explain
from sluice_gateway.commands.replay_decisions import replay_decisions
from sluice_gateway.commands.usage import usage
from sluice_gateway.config import ConfigError
from sluice_gateway.serve_options import ServeOptions

app = typer.Typer(
    help="One OpenAI endpoint in front of every inference engine you run.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
config_app = typer.Typer(help="Check and explain the configuration.", no_args_is_help=True)
app.add_typer(config_app, name="config")
app.add_typer(engines.app, name="engines")
app.add_typer(keys.app, name="keys")
app.add_typer(tenants.app, name="tenants")
app.command()(audit)
app.command()(usage)
app.command()(explain)
app.command("replay-decisions")(replay_decisions)
app.command("compile")(compile_modules)

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
    workers: Annotated[
        int | None, typer.Option(min=1, help="Processes; more than one need Redis. Wins over the file.")
    ] = None,
) -> None:
    """Serve. Without a configuration: the bundled worker with the bundled model, on loopback."""
    options = ServeOptions(config_file=str(config_file or ""), host=host, port=port, workers=workers)
    settings = options.read(os.environ)
    # The database takes half a second to import; the other commands do not need it.
    from sluice_gateway.keys import bootstrap

    bootstrap.prepare(settings, os.environ)
    _say(f"Starting {', '.join(b.name for b in settings.backends)} ...")
    sys.stdout.flush()
    options.become_server(settings.server.workers)


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


def _say(text: str) -> None:
    typer.echo(text)

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

from sluice_gateway import auth, config, reference
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
keys_app = typer.Typer(help="Make API keys.", no_args_is_help=True)
app.add_typer(config_app, name="config")
app.add_typer(keys_app, name="keys")
app.command()(usage)

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
    config.require_safe_address(settings)
    # Web framework and server take a second to import; the other commands need neither.
    from sluice_gateway import server
    from sluice_gateway.gateway import Gateway
    from sluice_gateway.logs import standard_error

    listener = server.listen(settings)
    server.log_to_standard_error(settings)
    _say(f"Starting {', '.join(b.name for b in settings.backends)} ...")
    server.run(Gateway(settings, os.environ, standard_error()), listener, _say)


@config_app.command("check")
def check(config_file: ConfigOption = None) -> None:
    """Say whether the configuration is valid, and what it amounts to."""
    settings = config.for_serving(config_file, os.environ)
    config.require_safe_address(settings)
    names = ", ".join(backend.name for backend in settings.backends)
    where = f"http://{settings.server.host}:{settings.server.port}"
    _say(f"OK: {where}, backends: {names}, API keys: {len(settings.keys)}")


@config_app.command("reference")
def print_reference() -> None:
    """Print every key with its meaning, as Markdown."""
    _say(reference.render())


@keys_app.command("new")
def new_key(
    key_id: Annotated[str, typer.Option("--id", help="Name of the key in logs and limits.")] = "my-key",
) -> None:
    """Make an API key: the secret for its holder, and the entry for the configuration."""
    secret = auth.new_secret()
    _say(f"Secret, shown only now: {secret}\n\nAdd to sluice.yaml:\n\nkeys:\n{_entry(key_id, secret)}")


@keys_app.command("hash")
def hash_key() -> None:
    """Print the SHA-256 of a secret read from standard input, for `keys[].sha256`."""
    secret = typer.prompt("Secret", hide_input=True, err=True) if sys.stdin.isatty() else sys.stdin.readline()
    _say(auth.digest(secret.strip()))


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


def _entry(key_id: str, secret: str) -> str:
    return f"  - id: {key_id}\n    sha256: {auth.digest(secret)}"


def _say(text: str) -> None:
    typer.echo(text)

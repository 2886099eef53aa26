"""`sluice engines`: which engines there are, what a URL is, and whether all that are configured are up.

All of it by looking: health, readiness and metrics pages, with the same code and the same HTTP client as the
gateway. No gateway has to run. An engine that is managed and was given no URL is looked for at its adapter's
own port, which `sluice serve` prefers.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from sluice_gateway import config
from sluice_gateway.commands.options import ConfigFile, Json
from sluice_gateway.commands.printout import print_json, print_table
from sluice_gateway.config import ConfigError

if TYPE_CHECKING:
    from sluice_engines.identify import Identity
    from sluice_gateway.engine_look import Look

app = typer.Typer(help="Which engines there are, and how they are.", no_args_is_help=True)

Timeout = Annotated[float, typer.Option("--timeout-s", min=0.01, help="Patience with one page, seconds.")]


@app.command("list")
def list_engines(config_file: ConfigFile = None, timeout_s: Timeout = 2.0, as_json: Json = False) -> None:
    """Show the adapters that are installed, and the configured backends as they are now."""
    from sluice_gateway.engine_look import installed, look_at

    settings = config.for_serving(config_file, os.environ)
    looks = asyncio.run(look_at(settings.backends, os.environ, timeout_s))
    adapters = installed()
    if as_json:
        print_json({"adapters": adapters, "backends": looks})
        return
    print_table(
        ("adapter", "engine", "port", "answers itself", "can", "load from"),
        (
            (a.name, a.title, str(a.port), ", ".join(a.endpoints), ", ".join(a.can), a.load_from)
            for a in adapters
        ),
    )
    typer.echo()
    print_table(
        ("backend", "adapter", "at", "state", "version", "models", "load, or what is wrong"),
        ((x.id, x.adapter, x.url, x.state, x.version or "", ", ".join(x.models), _load(x)) for x in looks),
    )


@app.command()
def probe(
    url: Annotated[str, typer.Argument(help="Base URL, e.g. http://127.0.0.1:8001.")],
    api_key_env: Annotated[
        str | None, typer.Option(help="Environment variable that holds the server's API key.")
    ] = None,
    timeout_s: Timeout = 2.0,
    as_json: Json = False,
) -> None:
    """Say what a URL is: engine, version, models, limits, metrics, capabilities. Exit status 1: not known."""
    from sluice_gateway.engine_look import known_adapter, look_closely

    key = _key(api_key_env)
    _require_address(url)
    found = asyncio.run(look_closely(url, key, timeout_s))
    if as_json:
        print_json(found)
    elif found.identity.engine is not None:
        _print_pairs(_probe_lines(url, api_key_env, found.identity, found.load_page, found.metrics))
        adapter = known_adapter(found.identity.adapter)
        if adapter is not None:
            _print_pairs([("answers itself", ", ".join(adapter.endpoints)), ("can", ", ".join(adapter.can))])
    if found.identity.engine is None:
        raise ConfigError(f"{url}: {found.identity.problem}")


@app.command()
def up(
    config_file: ConfigFile = None,
    wait_s: Annotated[float, typer.Option(min=0, help="How long to wait for them, seconds.")] = 300.0,
    timeout_s: Timeout = 2.0,
) -> None:
    """Wait until all configured backends are ready. Exit status 1: one is not, and why."""
    from sluice_gateway.engine_look import wait_for

    settings = config.for_serving(config_file, os.environ)
    missing = asyncio.run(
        wait_for(settings.backends, os.environ, timeout_s, wait_s, say=typer.echo, clock=time.monotonic)
    )
    if missing:
        why = "; ".join(f"{look.id} at {look.url}: {look.problem}" for look in missing)
        raise ConfigError(f"Not ready after {wait_s:g} s: {why}.")


def _require_address(url: str) -> None:
    from sluice_engines.base_url import join_base_url
    from sluice_engines.transport import UpstreamError
    from sluice_gateway.upstream.origin import parse_origin

    try:
        parse_origin(join_base_url(url, "/")[0])
    except UpstreamError:
        raise ConfigError(f"'{url}' is no usable address; write http://host:port.") from None


def _key(variable: str | None) -> str | None:
    if variable is None:
        return None
    key = os.environ.get(variable)
    if not key:
        raise ConfigError(f"The environment variable {variable} is not set.")
    return key


def _probe_lines(
    url: str, api_key_env: str | None, found: Identity, load_page: str | None, metrics: dict[str, str]
) -> Iterator[tuple[str, str]]:
    yield "engine", f"{found.title} {found.version or ''}".rstrip()
    yield "models", ", ".join(found.models or ()) or "none"
    yield "limits", ", ".join(f"{name} {value}" for name, value in found.limits.items()) or "it tells none"
    yield "metrics", load_page or "none that are known"
    if metrics:
        yield "load signals", ", ".join(f"{field} ({name})" for field, name in metrics.items())
    yield "seen at", ", ".join(found.seen)
    if found.problem:
        yield "problem", found.problem
    key = f", api_key_env: {api_key_env}" if api_key_env else ""
    yield "sluice.yaml", f"{{name: {found.engine}, adapter: {found.adapter}, url: {url}{key}}}"


def _load(look: Look) -> str:
    load = look.load
    if look.problem is not None:
        return look.problem
    if load is None:
        return look.load_problem or ""
    words = [
        f"{n} {name}" for name, n in (("running", load.running), ("waiting", load.waiting)) if n is not None
    ]
    if load.kv_used_ratio is not None:
        words.append(f"KV {load.kv_used_ratio:.0%}")
    return ", ".join(words) or "nothing known"


def _print_pairs(pairs: Iterable[tuple[str, str]]) -> None:
    for name, value in pairs:
        typer.echo(f"{name:<15} {value}")

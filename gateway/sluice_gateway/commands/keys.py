"""`sluice keys`: API keys in the store, and the entries of those in the configuration file.

Works on the store directly, with the same rules and the same audit log as the admin API; a gateway that runs
sees a change within a second. Secrets go to standard output once, and nowhere else; that of the first key of
a container is in a file, and shown as often as one asks.
"""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Annotated, Any

import typer

from sluice_gateway import auth
from sluice_gateway.commands import printout
from sluice_gateway.commands.options import (
    BudgetPerDay,
    BudgetPerMonth,
    Concurrent,
    ConfigFile,
    Json,
    RequestsPerMin,
    TokensPerMin,
    limits_of,
    moment,
    seconds,
    without,
)
from sluice_gateway.commands.storing import ACTOR, with_database, with_service

app = typer.Typer(help="Make, change and revoke API keys.", no_args_is_help=True)

KeyId = Annotated[str, typer.Argument(help="The key's id.")]
Models = Annotated[
    list[str] | None, typer.Option("--model", help="A model it may use, 'llama-*' for many; repeatable.")
]
Backends = Annotated[list[str] | None, typer.Option("--backend", help="A backend it may use; repeatable.")]
Quants = Annotated[list[str] | None, typer.Option("--quant", help="A quantization; repeatable.")]
Endpoints = Annotated[
    list[str] | None, typer.Option("--endpoint", help="A kind of request: chat, embeddings, ...; repeatable.")
]
Expires = Annotated[str | None, typer.Option(help="When it ends: 30d, 12h, or an ISO 8601 time.")]
Description = Annotated[str | None, typer.Option(help="What it is for.")]


@app.command("create")
def create(
    key_id: Annotated[str | None, typer.Option("--id", help="Its name; made up when left out.")] = None,
    tenant: Annotated[str, typer.Option(help="Whom its requests count for.")] = "default",
    description: Description = None,
    model: Models = None,
    backend: Backends = None,
    quant: Quants = None,
    endpoint: Endpoints = None,
    admin: Annotated[bool, typer.Option("--admin", help="It may use the admin API.")] = False,
    expires: Expires = None,
    requests_per_min: RequestsPerMin = None,
    tokens_per_min: TokensPerMin = None,
    concurrent: Concurrent = None,
    budget_per_day: BudgetPerDay = None,
    budget_per_month: BudgetPerMonth = None,
    config_file: ConfigFile = None,
    as_json: Json = False,
) -> None:
    """Make a key in the store. Its secret is shown now, and never again."""
    said = _said(description, model, backend, quant, endpoint, admin or None, expires)
    said["limits"] = limits_of(requests_per_min, tokens_per_min, concurrent, budget_per_day, budget_per_month)
    issued = with_service(
        config_file, lambda service: service.create_key(ACTOR, said, name=key_id, tenant=tenant)
    )
    printout.show_issued(issued, as_json)


@app.command("list")
def list_keys(
    tenant: Annotated[str | None, typer.Option(help="Only this tenant's.")] = None,
    config_file: ConfigFile = None,
    as_json: Json = False,
) -> None:
    """Show all keys, those of the configuration file first."""
    page = with_service(config_file, lambda service: service.keys(tenant=tenant, count=sys.maxsize - 1))
    printout.show_keys(page.items, as_json, time.time())


@app.command("show")
def show(
    key_id: Annotated[str | None, typer.Argument(help="The key's id.")] = None,
    bootstrap: Annotated[
        bool, typer.Option("--bootstrap", help="Print the secret of the first key, and nothing else.")
    ] = False,
    config_file: ConfigFile = None,
    as_json: Json = False,
) -> None:
    """Show everything about one key but its secret; or the secret of the first key of a container."""
    if bootstrap == (key_id is not None):
        raise typer.BadParameter("name a key, or say --bootstrap", param_hint="KEY_ID")
    if key_id is None:
        from sluice_gateway.keys.bootstrap import reveal

        secret = with_database(config_file, lambda database: reveal(database, os.environ))
        typer.echo(json.dumps({"secret": secret}) if as_json else secret)
        return
    printout.show_record(with_service(config_file, lambda service: service.key(key_id)), as_json)


@app.command("update")
def update(
    key_id: KeyId,
    description: Description = None,
    model: Models = None,
    backend: Backends = None,
    quant: Quants = None,
    endpoint: Endpoints = None,
    admin: Annotated[bool | None, typer.Option("--admin/--no-admin", help="The admin API.")] = None,
    expires: Expires = None,
    requests_per_min: RequestsPerMin = None,
    tokens_per_min: TokensPerMin = None,
    concurrent: Concurrent = None,
    budget_per_day: BudgetPerDay = None,
    budget_per_month: BudgetPerMonth = None,
    unset: Annotated[
        list[str] | None, typer.Option(help="An option to take back, e.g. model, expires; repeatable.")
    ] = None,
    config_file: ConfigFile = None,
    as_json: Json = False,
) -> None:
    """Change what is given, and nothing else."""
    patch = _said(description, model, backend, quant, endpoint, admin, expires)
    patch["limits"] = limits_of(
        requests_per_min, tokens_per_min, concurrent, budget_per_day, budget_per_month
    )
    patch = without(patch, unset or [])
    printout.show_record(
        with_service(config_file, lambda service: service.update_key(ACTOR, key_id, patch)), as_json
    )


@app.command("rotate")
def rotate(
    key_id: KeyId,
    overlap: Annotated[
        str, typer.Option(help="How long the old secret goes on working: 24h, 30m, 0s.")
    ] = "24h",
    config_file: ConfigFile = None,
    as_json: Json = False,
) -> None:
    """Give a key a new secret. The old one works on for a while, so that its users can change over."""
    overlap_s = seconds(overlap)
    issued = with_service(config_file, lambda service: service.rotate_key(ACTOR, key_id, overlap_s))
    printout.show_issued(issued, as_json)


@app.command("revoke")
def revoke(key_id: KeyId, config_file: ConfigFile = None, as_json: Json = False) -> None:
    """End a key for good, in every running gateway within a second."""
    record = with_service(config_file, lambda service: service.revoke_key(ACTOR, key_id))
    if as_json:
        printout.show_record(record, as_json)
    else:
        typer.echo(f"Revoked {key_id}.")


@app.command("new")
def new(
    key_id: Annotated[str, typer.Option("--id", help="Name of the key in logs and limits.")] = "my-key",
) -> None:
    """Make a key for the configuration file: the secret for its holder, and the entry. Touches no store."""
    secret = auth.new_secret()
    entry = f"  - id: {key_id}\n    sha256: {auth.digest(secret)}"
    typer.echo(f"Secret, shown only now: {secret}\n\nAdd to sluice.yaml:\n\nkeys:\n{entry}")


@app.command("hash")
def hash_secret() -> None:
    """Print the SHA-256 of a secret read from standard input, for `keys[].sha256`."""
    secret = typer.prompt("Secret", hide_input=True, err=True) if sys.stdin.isatty() else sys.stdin.readline()
    typer.echo(auth.digest(secret.strip()))


def _said(
    description: str | None,
    models: list[str] | None,
    backends: list[str] | None,
    quants: list[str] | None,
    endpoints: list[str] | None,
    admin: bool | None,
    expires: str | None,
) -> dict[str, Any]:
    """What was given, as the service takes it. Nothing that was not given is in it."""
    scopes: dict[str, Any] = {
        "models": models,
        "backends": backends,
        "quants": quants,
        "endpoints": endpoints,
        "admin": admin,
    }
    said: dict[str, Any] = {
        "description": description,
        "expires_at": moment(expires, time.time()) if expires else None,
    }
    given = {name: value for name, value in said.items() if value is not None}
    return {**given, "scopes": {name: value for name, value in scopes.items() if value is not None}}

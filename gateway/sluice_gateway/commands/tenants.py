"""`sluice tenants`: whom keys belong to, and the limits that a tenant's keys share."""

from __future__ import annotations

from typing import Annotated, Any

import typer

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
    without,
)
from sluice_gateway.commands.storing import ACTOR, with_service

app = typer.Typer(help="Make and change tenants.", no_args_is_help=True)

TenantId = Annotated[str, typer.Argument(help="The tenant's id.")]
Description = Annotated[str | None, typer.Option(help="Who that is.")]


@app.command("create")
def create(
    tenant_id: TenantId,
    description: Description = None,
    requests_per_min: RequestsPerMin = None,
    tokens_per_min: TokensPerMin = None,
    concurrent: Concurrent = None,
    budget_per_day: BudgetPerDay = None,
    budget_per_month: BudgetPerMonth = None,
    config_file: ConfigFile = None,
    as_json: Json = False,
) -> None:
    """Make a tenant in the store."""
    limits = limits_of(requests_per_min, tokens_per_min, concurrent, budget_per_day, budget_per_month)
    said = _said(description, limits)
    record = with_service(config_file, lambda service: service.create_tenant(ACTOR, tenant_id, said))
    printout.show_record(record, as_json)


@app.command("list")
def list_tenants(config_file: ConfigFile = None, as_json: Json = False) -> None:
    """Show all tenants, those of the configuration file first."""
    printout.show_tenants(with_service(config_file, lambda service: service.tenants()), as_json)


@app.command("show")
def show(tenant_id: TenantId, config_file: ConfigFile = None, as_json: Json = False) -> None:
    """Show one tenant."""
    printout.show_record(with_service(config_file, lambda service: service.tenant(tenant_id)), as_json)


@app.command("update")
def update(
    tenant_id: TenantId,
    description: Description = None,
    requests_per_min: RequestsPerMin = None,
    tokens_per_min: TokensPerMin = None,
    concurrent: Concurrent = None,
    budget_per_day: BudgetPerDay = None,
    budget_per_month: BudgetPerMonth = None,
    unset: Annotated[
        list[str] | None, typer.Option(help="A limit to take back, e.g. budget-per-day; repeatable.")
    ] = None,
    config_file: ConfigFile = None,
    as_json: Json = False,
) -> None:
    """Change what is given, and nothing else."""
    limits = limits_of(requests_per_min, tokens_per_min, concurrent, budget_per_day, budget_per_month)
    patch = without(_said(description, limits), unset or [])
    record = with_service(config_file, lambda service: service.update_tenant(ACTOR, tenant_id, patch))
    printout.show_record(record, as_json)


@app.command("delete")
def delete(tenant_id: TenantId, config_file: ConfigFile = None) -> None:
    """Delete a tenant with its revoked keys. Refused while it has keys that work."""
    with_service(config_file, lambda service: service.delete_tenant(ACTOR, tenant_id))
    typer.echo(f"Deleted {tenant_id}.")


def _said(description: str | None, limits: dict[str, Any]) -> dict[str, Any]:
    return {**({} if description is None else {"description": description}), "limits": limits}

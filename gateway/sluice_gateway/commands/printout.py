"""What the commands that administer print: tables for people, JSON for programs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

import msgspec
import typer

from sluice_gateway.identity import LimitValues, Scopes
from sluice_gateway.keys.records import AuditRecord, IssuedKey, KeyRecord, TenantRecord

_PIPED_WIDTH = 240
"""For a program or a file, nothing is folded."""
_SHORT = {
    "requests_per_min": "requests/min",
    "tokens_per_min": "tokens/min",
    "concurrent": "at once",
    "budget_per_day": "money/day",
    "budget_per_month": "money/month",
}


def show_issued(issued: IssuedKey, as_json: bool) -> None:
    """A key with its new secret, the only time it is seen."""
    if as_json:
        print_json(issued)
        return
    typer.echo(f"Secret, shown only now: {issued.secret}\n")
    show_record(issued.key, as_json=False)


def show_record(record: KeyRecord | TenantRecord, as_json: bool) -> None:
    """One key or tenant, a line for each thing that is known of it."""
    if as_json:
        print_json(record)
        return
    lines = [("id", record.id)]
    if isinstance(record, KeyRecord):
        lines += [("tenant", record.tenant), ("scopes", _scopes(record.scopes))]
        lines += [("expires", _time(record.expires_at)), ("revoked", _time(record.revoked_at))]
        lines += [("secret", _secret(s.hint, s.expires_at)) for s in record.secrets]
    lines += [("limits", _limits(record.limits)), ("description", record.description)]
    lines += [("created", _time(record.created_at)), ("kept in", record.source)]
    for name, value in lines:
        if value:
            typer.echo(f"{name:<12} {value}")


def show_keys(records: Sequence[KeyRecord], as_json: bool, now: float) -> None:
    """Many keys."""
    if as_json:
        print_json(records)
        return
    rows = (
        (r.id, r.tenant, _state(r, now), _scopes(r.scopes), _limits(r.limits), _time(r.expires_at), r.source)
        for r in records
    )
    print_table(("id", "tenant", "state", "scopes", "limits", "expires", "kept in"), rows)


def show_tenants(records: Sequence[TenantRecord], as_json: bool) -> None:
    """Many tenants."""
    if as_json:
        print_json(records)
        return
    rows = ((r.id, _limits(r.limits), r.description, r.source) for r in records)
    print_table(("id", "limits", "description", "kept in"), rows)


def show_audit(records: Sequence[AuditRecord], as_json: bool) -> None:
    """Entries of the audit log."""
    if as_json:
        print_json(records)
        return
    rows = (
        (str(r.id), _time(r.at), r.actor, r.action, r.subject, _change(r), r.request_id or "")
        for r in records
    )
    print_table(("number", "time", "who", "what", "on", "changed", "request"), rows)


def _state(record: KeyRecord, now: float) -> str:
    if record.revoked_at is not None:
        return "revoked"
    return "expired" if record.expires_at is not None and record.expires_at <= now else "valid"


def _scopes(scopes: Scopes) -> str:
    several = {"models": scopes.models, "backends": scopes.backends, "quants": scopes.quants}
    several["endpoints"] = scopes.endpoints
    words = [f"{name}: {', '.join(sorted(s)) or 'none'}" for name, s in several.items() if s is not None]
    return "; ".join([*words, *(["admin"] if scopes.admin else [])]) or "all but admin"


def _limits(limits: LimitValues) -> str:
    values = msgspec.structs.asdict(limits)
    return ", ".join(f"{value:g} {_SHORT[name]}" for name, value in values.items() if value is not None)


def _secret(hint: str, expires_at: float | None) -> str:
    return f"...{hint}" + (f" until {_time(expires_at)}" if expires_at is not None else "")


def _change(record: AuditRecord) -> str:
    """The names of what is different."""
    before, after = (
        msgspec.json.decode(raw) if raw is not None else {} for raw in (record.before, record.after)
    )
    if not isinstance(before, dict) or not isinstance(after, dict) or not (before and after):
        return ""
    return ", ".join(sorted(name for name in {*before, *after} if before.get(name) != after.get(name)))


def _time(at: float | None) -> str:
    return "" if at is None else datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%SZ")


def print_json(value: object) -> None:
    """For programs."""
    typer.echo(msgspec.json.format(msgspec.json.encode(value, order="deterministic")).decode())


def print_table(head: Iterable[str], rows: Iterable[tuple[str, ...]]) -> None:
    """For people; folded only on a terminal."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(*head, box=box.SIMPLE_HEAD)
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))  # as text: a description is no markup
    console = Console()
    if not console.is_terminal:
        console.width = _PIPED_WIDTH
    console.print(table)

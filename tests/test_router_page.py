"""`docs/router.md` explains every rule of the router, with its source, and knows every knob."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from msgspec.structs import fields
from repository import read, tracked_files

from sluice_gateway.routing_settings import AdmissionSettings, DecisionLogSettings, FailoverSettings
from sluice_gateway.settings import Backend, Queue, Settings
from sluice_gateway.settings_base import Section

PAGE = Path("docs/router.md")
PARTS = {
    "__init__",
    "decision_replay",
    "explain",
    "inspection",
    "placer",
    "plan",
    "prefixes",
    "recorded_router",
    "refusals",
    "replica",
    "router",
    "router_options",
    "routing",
    "second_attempt",
    "shelf",
    "snapshot",
    "ticket",
    "types",
    "waiting_room",
}
"""Modules that put rules together, or have values; all others are rules."""
RULES = sorted(
    path.stem
    for path in tracked_files()
    if path.parent == Path("router/sluice_router") and path.suffix == ".py" and path.stem not in PARTS
)
SECTIONS: dict[str, type[Section]] = {
    "queue": Queue,
    "admission": AdmissionSettings,
    "failover": FailoverSettings,
    "decision_log": DecisionLogSettings,
}
KNOBS = [f"{section}.{field.name}" for section, kind in SECTIONS.items() for field in fields(kind)]
OTHERS = {"weight": "tenants", "hedging": "backend", "max_in_flight": "backend"}
"""Knobs of other sections, with a word that has to be with them."""


def section(title: str) -> str:
    """A section of the page, without its title."""
    found = re.search(rf"^## {title}\n(.*?)(?=^## |\Z)", read(PAGE), re.MULTILINE | re.DOTALL)
    assert found is not None
    return found[1]


def paragraphs_of(module: str) -> list[str]:
    """Those that name it."""
    return [text for text in read(PAGE).split("\n\n") if re.search(rf"\b{module}\.py\b", text)]


@pytest.mark.parametrize("module", RULES)
def test_every_rule_has_a_paragraph(module: str):
    assert paragraphs_of(module), f"docs/router.md does not say what {module}.py does"


@pytest.mark.parametrize("knob", KNOBS)
def test_every_setting_of_the_routers_is_in_the_table_of_knobs(knob: str):
    assert f"`{knob}`" in section("Which knob")


@pytest.mark.parametrize("knob", OTHERS)
def test_what_tenants_and_backends_set_is_there_too(knob: str):
    rows = [row for row in section("Which knob").splitlines() if re.search(rf"`{knob}\b", row)]

    assert any(OTHERS[knob] in row for row in rows)


def test_no_knob_is_named_that_there_is_not():
    named = set(re.findall(r"`(\w+\.\w+)`", section("Which knob")))

    assert named - set(KNOBS) == set()
    assert {"queue", "admission", "failover", "decision_log"} <= {f.name for f in fields(Settings)}
    assert {"hedging", "max_in_flight"} <= {f.name for f in fields(Backend)}


def test_times_and_shares_that_are_told_are_those_of_the_code():
    """Numbers that a reader may rely on."""
    page, admission, failover = " ".join(read(PAGE).split()), AdmissionSettings(), FailoverSettings()
    for text in (
        f"{admission.interactive_ttft_s:g} s for `interactive`, {admission.default_ttft_s:g} s for `default`,"
        f" {admission.bulk_ttft_s:g} s for `bulk`",
        f"stay within {admission.kv_share:.0%} of the cache".replace("%", " %"),
        f"Second attempts are {failover.hedge_share * 100:g} % of the last five minutes' requests at most",
    ):
        assert text in page
    assert failover.retry_budget == 0.2, "a fifth"
    assert failover.breaker_failures == 5, "five counted failures in a row"
    assert "for 5 s, and a fifth more or less" in page
    assert failover.breaker_open_s == 5.0

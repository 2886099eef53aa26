"""How busy an engine is shows, while it is, at the gateway."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from .fleet import PATIENCE_S, Fleet, eventually
from .streams import Load, on

USERS = 6


def test_load_is_shown_while_it_lasts_and_not_afterwards(
    fleet: Fleet, engine: str, figure: Callable[[str, str], None]
) -> None:
    seen: dict[str, Any] = {}

    def busy() -> bool:
        view = fleet.view(engine)
        load = view["load"] or {}
        if not load.get("running"):
            return False
        seen.setdefault("shown_at", time.monotonic())
        seen.update(running=max(seen.get("running", 0), load["running"]), age_s=view["load_age_s"])
        seen.update(kv=max(seen.get("kv", 0.0), load.get("kv_used_ratio") or 0.0))
        seen.update(waiting=max(seen.get("waiting", 0), load.get("waiting") or 0))
        return seen["kv"] > 0 or load.get("kv_used_ratio") is None

    with Load(fleet, on(engine), USERS) as load:
        assert load.first_content.wait(PATIENCE_S)
        began = time.monotonic()
        eventually(busy, explain=lambda: f"{fleet.view(engine)}")
    eventually(lambda: fleet.load(engine).get("running") == 0)
    eventually(lambda: not fleet.load(engine).get("kv_used_ratio"))

    assert [ending.error for ending in load.endings if ending.error] == []
    figure(
        f"{engine}: from the first token to load at /admin/v1/engines", f"{seen['shown_at'] - began:.2f} s"
    )
    figure(
        f"{engine}: shown under load",
        f"{seen['running']} running, {seen['waiting']} waiting, KV {seen['kv']:.1%}, {seen['age_s']} s old",
    )


def test_nothing_of_the_load_is_missing_that_the_engine_tells(fleet: Fleet, engine: str) -> None:
    view = fleet.view(engine)

    assert view["load_problem"] is None
    assert view["load"]["running"] is not None
    assert view["load"]["kv_used_ratio"] is not None
    assert view["load"]["kv_capacity_tokens"]
    assert view["load"]["generation_tokens"] is not None

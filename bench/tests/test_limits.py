from __future__ import annotations

import msgspec

from sluice_bench.limits import MEANINGS, LimitsRow, gateway_config, table


def row(phase, number, p99_ms):
    return LimitsRow(
        phase=phase,
        round=number,
        requests=100,
        failures=1,
        p50_ms=1.0,
        p99_ms=p99_ms,
        max_ms=None,
        gateway_cpu_us_per_request=90.0,
        foreign_cores=0.0,
    )


def test_the_table_shows_medians_of_each_phase():
    rows = [row("shared", 0, 3.0), row("shared", 1, 9.0), row("shared", 2, 4.0), row("frozen", 0, 5.0)]
    lines = table(rows).splitlines()
    assert len(lines) == 2 + len(MEANINGS)
    assert "| limits in Redis | 300 | 3 | 1.00 | 4.00 | – | 90 |" in lines
    assert "| breaker open | 100 | 1 | 1.00 | 5.00 | – | 90 |" in lines


def test_only_the_shared_gateway_knows_redis():
    alone = msgspec.json.decode(gateway_config("http://127.0.0.1:1", 2, None))
    shared = msgspec.json.decode(gateway_config("http://127.0.0.1:1", 2, 6379))
    assert shared.pop("redis") == {"url": "redis://127.0.0.1:6379/0"}
    assert alone == shared
    assert set(alone["limits"]) == {"per_key", "per_tenant", "models"}

"""What the overhead measurement hands to the gateway."""

from __future__ import annotations

import json

from sluice_bench.gateway_overhead import OverheadLoad, gateway_config, number_of_steps


def test_the_gateway_gets_one_backend_and_a_hashed_key() -> None:
    config = json.loads(gateway_config("http://127.0.0.1:9000", 8123))
    assert config["server"] == {"host": "127.0.0.1", "port": 8123}
    assert [backend["url"] for backend in config["backends"]] == ["http://127.0.0.1:9000"]
    assert len(config["keys"][0]["sha256"]) == 64
    assert "sk-" not in json.dumps(config)


def test_the_number_of_steps_counts_warm_ups_and_repeats() -> None:
    assert number_of_steps(OverheadLoad(repeats=5)) == 3 + 5 * 2 * 3

"""The machine that invented reports were measured on."""

from __future__ import annotations

from sluice_bench.environment import Environment

TEST_MACHINE = Environment(
    cpu="Test CPU",
    cores=2,
    memory_gib=8.0,
    system="Linux",
    python="3.11",
    commit="abc1234",
    packages={"torch": "2.13"},
    load_average=0.1,
)

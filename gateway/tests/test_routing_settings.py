"""The sections `failover` and `aliases`: mistakes are found where they are."""

from __future__ import annotations

import pytest

from sluice_gateway import config
from sluice_gateway.config import ConfigError
from sluice_gateway.routing_settings import FailoverSettings, choices
from sluice_router.types import Choice

BACKENDS = "backends:\n  - {name: e, adapter: echo, models: [m]}\n"


@pytest.mark.parametrize(
    ("aliases", "line", "words"),
    [
        (
            "  fast:\n    - {model: m, backend: gpu}\n",
            5,
            ("aliases.fast[0].backend", "'gpu'", "there are: e"),
        ),
        ("  fast:\n    - model: m\n    - model: fast\n", 6, ("aliases.fast[1].model", "an alias itself")),
        ("  m:\n    - model: x\n", 4, ("aliases.m", "already", "backend 'e'")),
        ("  fast: []\n", 4, ("aliases.fast", "no target")),
        ("  '':\n    - model: m\n", 4, ("no name",)),
        ("  fast:\n    - {model: m, quant: int2}\n", 3, ("aliases", "int2", "awq")),
        ("  fast:\n    - {modell: m}\n", 3, ("aliases", "model")),
        ("  fast: m\n", 3, ("aliases", "array")),
    ],
)
def test_a_mistake_in_an_alias_names_its_line(aliases: str, line: int, words: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError) as raised:
        config.parse("sluice.yaml", f"{BACKENDS}aliases:\n{aliases}", {})
    assert f"line {line}:" in str(raised.value)
    assert all(word in str(raised.value) for word in words)


def test_aliases_become_the_routers_choices() -> None:
    text = f"{BACKENDS}aliases:\n  fast:\n    - {{model: m, backend: e}}\n    - {{model: x, quant: int8}}\n"

    found = choices(config.parse("sluice.yaml", text, {}).aliases)

    assert found == {"fast": (Choice(model="m", backend="e"), Choice(model="x", quant="int8"))}


def test_the_bundled_worker_can_be_aliased_without_naming_it() -> None:
    text = "aliases:\n  fast:\n    - {model: sluice-tiny, backend: worker}\n"

    assert config.parse("sluice.yaml", text, {}).aliases["fast"][0].backend == "worker"


def test_failover_goes_to_the_router_as_it_is() -> None:
    policy = FailoverSettings(max_attempts=2, retry_budget=0.1, breaker_failures=7, breaker_open_s=2).policy()

    assert (policy.max_attempts, policy.retry_ratio, policy.breaker_failures) == (2, 0.1, 7)
    assert (policy.breaker_open_s, policy.breaker_max_open_s) == (2, 24)

"""What a key may use."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sluice_gateway.identity import EVERYTHING, Key, Scopes
from sluice_gateway.keys.scopes import allows_model, refusal, union

NAMES = st.sampled_from(["llama-1", "llama-2", "qwen", "llama-*", "*", "q*"])
SCOPES = st.builds(
    Scopes,
    models=st.none() | st.frozensets(NAMES),
    backends=st.none() | st.frozensets(st.sampled_from(["gpu", "cpu"])),
    quants=st.none() | st.frozensets(st.sampled_from(["none", "int8"])),
    endpoints=st.none() | st.frozensets(st.sampled_from(["chat", "embeddings"])),
    admin=st.booleans(),
)


def key(**scopes: object) -> Key:
    return Key(id="alice", scopes=Scopes(**scopes))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("scopes", "code", "param"),
    [
        ({"endpoints": frozenset({"embeddings"})}, "endpoint_not_allowed", None),
        ({"models": frozenset({"qwen"})}, "model_not_allowed", "model"),
        ({"backends": frozenset({"cpu"})}, "backend_not_allowed", None),
        ({"quants": frozenset({"fp8"})}, "quant_not_allowed", None),
        ({"backends": frozenset()}, "backend_not_allowed", None),
    ],
)
def test_what_is_not_in_its_scopes_is_a_403_that_says_what_is(
    scopes: dict[str, frozenset[str]], code: str, param: str | None
) -> None:
    found = refusal(key(**scopes), "chat", "llama-1", "gpu", "int8")
    assert found is not None
    assert (found.status, found.code, found.param) == (403, code, param)
    assert "alice" in found.message
    assert ", ".join(*scopes.values()) or "none" in found.message


def test_a_key_without_scopes_may_use_everything() -> None:
    assert refusal(key(), "chat", "llama-1", "gpu", "int8") is None


def test_what_was_not_asked_for_is_the_routers_to_choose() -> None:
    narrow = key(backends=frozenset({"cpu"}), quants=frozenset({"fp8"}))
    assert refusal(narrow, "chat", "llama-1", None, None) is None


def test_a_key_with_no_backend_at_all_gets_nothing() -> None:
    found = refusal(key(backends=frozenset()), "chat", "m", None, None)
    assert found is not None
    assert "none" in found.message


@pytest.mark.parametrize(
    ("pattern", "model", "allowed"),
    [
        ("llama-*", "llama-3.1", True),
        ("llama-*", "llama-", True),
        ("llama-*", "llama", False),
        ("llama-*", "my-llama-3", False),
        ("llama-*", "llama-*", True),
        ("*", "anything", True),
        ("llama", "llama-3.1", False),
        ("a*b", "acb", False),
    ],
)
def test_a_star_at_the_end_stands_for_every_ending(pattern: str, model: str, allowed: bool) -> None:
    assert allows_model(Scopes(models=frozenset({pattern})), model) is allowed


@given(st.lists(SCOPES, min_size=1, max_size=4), st.sampled_from(["llama-1", "qwen", "other"]))
def test_several_scopes_together_allow_what_any_of_them_allows(several: list[Scopes], model: str) -> None:
    together = union(several)
    assert allows_model(together, model) == any(allows_model(one, model) for one in several)
    assert together.admin == any(one.admin for one in several)
    for kind in ("chat", "embeddings", "score"):
        assert (together.endpoints is None or kind in together.endpoints) == any(
            one.endpoints is None or kind in one.endpoints for one in several
        )


def test_nothing_together_allows_nothing() -> None:
    assert union([]) == Scopes(
        models=frozenset(), backends=frozenset(), quants=frozenset(), endpoints=frozenset()
    )
    assert union([EVERYTHING]) == EVERYTHING

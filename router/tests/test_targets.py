"""What would satisfy a request, and in which order."""

from __future__ import annotations

import pytest

from sluice_router.matching import mismatch
from sluice_router.targets import targets
from sluice_router.types import Choice, Endpoint, RequestFacts

ON_GPU = Choice(model="big", backend="gpu")
SMALL = Choice(model="big", quant="int8")
ANYWHERE = Choice(model="tiny")


def facts(**changes: object) -> RequestFacts:
    return RequestFacts(**{"request_id": "r", "kind": "chat", "model": "m", **changes})


def demands(**changes: object) -> list[tuple[str, str | None, str | None]]:
    return [(t.facts.model, t.facts.backend, t.facts.quant) for t in targets(facts(**changes))]


def test_without_alias_and_wish_there_is_one():
    assert demands(backend="gpu", quant="int8") == [("m", "gpu", "int8")]


def test_a_wish_is_left_out_bit_by_bit():
    assert demands(backend="gpu", quant="int8", prefer=True) == [
        ("m", "gpu", "int8"),
        ("m", "gpu", None),
        ("m", None, "int8"),
        ("m", None, None),
    ]
    assert demands(backend="gpu", prefer=True) == [("m", "gpu", None), ("m", None, None)]
    assert demands(prefer=True) == [("m", None, None)]


def test_an_alias_stands_for_its_choices_in_order():
    found = targets(facts(choices=(ON_GPU, SMALL, ANYWHERE)))

    assert [(t.facts.model, t.facts.backend, t.facts.quant) for t in found] == [
        ("big", "gpu", None),
        ("big", None, "int8"),
        ("tiny", None, None),
    ]
    assert [t.choice for t in found] == [0, 1, 2]
    assert not any(t.facts.choices or t.relaxed for t in found)


def test_what_the_headers_require_narrows_every_choice():
    assert demands(choices=(ON_GPU, SMALL, ANYWHERE), backend="cpu") == [
        ("big", "cpu", "int8"),
        ("tiny", "cpu", None),
    ]
    assert demands(choices=(ON_GPU,), backend="cpu") == []


def test_a_wish_goes_before_the_order_of_the_alias_and_never_against_its_choices():
    found = targets(facts(choices=(ON_GPU, ANYWHERE), backend="cpu", prefer=True))

    assert [(t.facts.model, t.facts.backend, t.choice, t.relaxed) for t in found] == [
        ("tiny", "cpu", 1, False),
        ("big", "gpu", 0, True),
        ("tiny", None, 1, True),
    ]


CPU = Endpoint(id="c", backend="cpu", url="http://c", models=("tiny",))


@pytest.mark.parametrize(
    ("changes", "field", "words"),
    [
        ({"choices": (ON_GPU,), "backend": "cpu"}, "backend", "not on backend 'cpu' but on: gpu"),
        ({"choices": (SMALL,), "quant": "fp8"}, "quant", "not have quantization 'fp8' but: int8"),
        ({"choices": (ON_GPU, Choice(model="huge"))}, "model", "alias 'm' can serve this. The model 'huge'"),
        ({"backend": "cpu", "quant": "fp8", "prefer": True}, "model", "The model 'm' is not served;"),
        (
            {"model": "tiny", "allowed_quants": frozenset({"fp8"})},
            "quant",
            "No quantization that the key may",
        ),
        ({"model": "tiny", "allowed_backends": frozenset()}, "backend", "The key may use no backend"),
    ],
)
def test_the_least_demanding_target_says_why_none_can_be_served(changes, field, words):
    found = mismatch([CPU], facts(**changes))

    assert found is not None
    assert found.field == field
    assert words in found.message


def test_one_servable_target_is_enough():
    assert mismatch([CPU], facts(choices=(ON_GPU, ANYWHERE))) is None
    assert mismatch([CPU], facts(model="tiny", backend="gpu", prefer=True)) is None

"""Equal digests for equal content, whatever carries it."""

from __future__ import annotations

import random

import msgspec
import pytest

from sluice_bench.metrics import Objective, summarise
from sluice_bench.recording.digest import figures_json, records_sha256, requests_sha256
from sluice_bench.records import RequestRecord
from sluice_bench.target import Target
from sluice_bench.workload import Asking, Shape, chat_requests

from .invented_run import small_run, streamed


def test_the_digests_of_a_run_are_the_same_everywhere() -> None:
    meta = small_run().meta
    assert meta.records_sha256 == "88ee16e60e061ee2ae12f0aef389351ada8e1cbd932a5322e10a4f233a320d14"
    assert meta.figures_sha256 == "03a21852bfc4663d9fc54d409f13e4bcba5790f9a36f12cee504c453e38eee07"


def test_every_field_is_in_the_digest() -> None:
    record = streamed(1, 3, random.Random(1))
    others = {
        records_sha256([msgspec.structs.replace(record, **{field.name: field.default})])
        for field in msgspec.structs.fields(RequestRecord)
        if field.default is not msgspec.NODEFAULT and getattr(record, field.name) != field.default
    }
    assert len(others | {records_sha256([record])}) == len(others) + 1 > 15


def test_the_order_of_records_is_in_the_digest() -> None:
    first, second = streamed(1, 3, random.Random(1)), streamed(2, 3, random.Random(1))
    assert records_sha256([first, second]) != records_sha256([second, first])


def test_figures_are_the_same_bytes_in_any_order_of_summing() -> None:
    """The mean of values of such different sizes depends on the order, unless the sum is exact."""
    records = [streamed(index, 2 + 40 * (index % 2), random.Random(index)) for index in range(31)]
    forwards, backwards = (summarise(some, Objective()) for some in (records, records[::-1]))
    for metric in ("ttft_user_ms", "e2e_ms", "tpot_ms", "tbt_ms"):
        assert getattr(forwards, metric) == getattr(backwards, metric)
    assert figures_json(forwards) == figures_json(summarise(records, Objective()))


@pytest.mark.parametrize("key", ["sk-1", "sk-2", None])
def test_the_same_questions_to_another_server_have_the_same_digest(key: str | None) -> None:
    here, there = Target(host="a", port=1), Target(host="b", port=2, tls=True)
    asked = chat_requests(
        here, Shape(prompt_words=20, output_tokens=5), Asking(model="m", api_key="sk-1"), 5, seed=1
    )
    again = chat_requests(
        there, Shape(prompt_words=20, output_tokens=5), Asking(model="m", api_key=key), 5, seed=1
    )
    other = chat_requests(here, Shape(prompt_words=20, output_tokens=5), Asking(model="n"), 5, seed=1)
    assert requests_sha256(asked) == requests_sha256(again) != requests_sha256(other)

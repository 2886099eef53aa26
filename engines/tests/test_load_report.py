"""Reports on load that come with answers, as vLLM 0.32 makes them and as others might."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sluice_engines.adapter import ClientRequest
from sluice_engines.load_report import ASKED, MAX_BYTES, LoadReport, load_report, named_values
from sluice_engines.load_signals import gauge, ratio
from sluice_engines.openai_compatible import OpenAICompatibleAdapter
from sluice_engines.vllm import VllmAdapter, VllmOptions
from sluice_router.types import EngineLoad

REPORT = VllmAdapter({"load_report": True}).load_report
assert REPORT is not None

KV, WAITING = "named_metrics.kv_cache_usage_perc", "named_metrics.num_requests_waiting"


@pytest.mark.parametrize(
    ("value", "found"),
    [
        (b"TEXT named_metrics.kv_cache_usage_perc=0.4", [(KV, 0.4)]),
        (
            b"TEXT named_metrics.kv_cache_usage_perc=0.25, named_metrics.num_requests_waiting=2.0",
            [(KV, 0.25), (WAITING, 2.0)],
        ),
        (
            b"TEXT cpu_utilization=0.3,mem_utilization=0.5",
            [("cpu_utilization", 0.3), ("mem_utilization", 0.5)],
        ),
        (b"text a=1e-3 , b=-2 ", [("a", 0.001), ("b", -2.0)]),
        (b"TEXT a=1, a=3", [("a", 1.0), ("a", 3.0)]),
        (b"TEXT ", []),
        (b"TEXT", []),
        (b'JSON {"named_metrics": {"kv_cache_usage_perc": 0.4}}', [(KV, 0.4)]),
        (b'json {"rps_fractional": 3, "named_metrics": {}}', [("rps_fractional", 3.0)]),
        (b'JSON {"a": true, "b": "1", "c": null, "d": [1], "e": {"f": false, "g": 2}}', [("e.g", 2.0)]),
        (b"JSON {}", []),
    ],
)
def test_a_report_is_read(value: bytes, found: list[tuple[str, float]]) -> None:
    assert named_values(value) == found


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"0.4",
        b"BIN CaHg",
        b"TEXTa=1",
        b"TEXT a",
        b"TEXT a=",
        b"TEXT =1",
        b"TEXT a=high",
        b"TEXT a=nan",
        b"TEXT a=inf",
        b"TEXT \xe9=1",
        b"JSON",
        b"JSON [1]",
        b'JSON {"a": 1',
        b'JSON {"a": 1e999}',
        b'JSON {"a": ' + b"9" * 400 + b"}",
        b'JSON {"a": ' + b"[" * 3000,
        b"TEXT " + b"a=1," * MAX_BYTES,
    ],
)
def test_what_is_no_report_is_refused(value: bytes) -> None:
    with pytest.raises(ValueError):
        named_values(value)


NUMBERS = st.floats(allow_nan=False, allow_infinity=False, width=32)
NAMES = st.text("abcdefghijklmnopqrstuvwxyz_0123456789", min_size=1, max_size=20)


def as_vllm_writes(metrics: list[tuple[str, float]]) -> tuple[bytes, bytes]:
    """The two forms of `create_orca_header` in vllm/entrypoints/serve/utils/orca_metrics.py."""
    text = ", ".join([f"named_metrics.{name}={value}" for name, value in metrics])
    return f"TEXT {text}".encode(), f"JSON {json.dumps({'named_metrics': dict(metrics)})}".encode()


@given(st.lists(st.tuples(NAMES, NUMBERS), max_size=20))
def test_what_vllm_writes_is_read_in_both_forms(metrics: list[tuple[str, float]]) -> None:
    text, as_json = as_vllm_writes(metrics)

    assert named_values(text) == [(f"named_metrics.{name}", value) for name, value in metrics]
    assert dict(named_values(as_json)) == {f"named_metrics.{name}": value for name, value in metrics}


PIECES = st.sampled_from([b"TEXT ", b"JSON ", b'{"', b'"', b":", b"{", b"}", b",", b"=", b"named_metrics."])


@given(
    st.one_of(st.binary(max_size=200), st.lists(PIECES | st.binary(max_size=9), max_size=30).map(b"".join))
)
def test_whatever_comes_is_numbers_or_a_value_error(value: bytes) -> None:
    try:
        found = named_values(value)
    except ValueError:
        return
    assert all(isinstance(name, str) and math.isfinite(number) for name, number in found)
    assert isinstance(REPORT.read(value), EngineLoad)


def test_ranks_are_averaged_and_added_up_and_text_is_asked_for_because_it_has_them() -> None:
    report = LoadReport((ratio("kv_used_ratio", KV), gauge("waiting", WAITING)))
    two_ranks = [("kv_cache_usage_perc", 0.2), ("kv_cache_usage_perc", 0.6)]
    two_ranks += [("num_requests_waiting", 1.0), ("num_requests_waiting", 2.0)]
    text, as_json = as_vllm_writes(two_ranks)

    assert report.read(text) == EngineLoad(kv_used_ratio=pytest.approx(0.4), waiting=3)
    assert report.read(as_json) == EngineLoad(kv_used_ratio=0.6, waiting=2)
    assert dict(ASKED) == {b"endpoint-load-metrics-format": b"TEXT"}


def test_what_a_report_does_not_say_is_unknown() -> None:
    assert REPORT.read(b"TEXT named_metrics.kv_cache_usage_perc=0.5") == EngineLoad(kv_used_ratio=0.5)
    assert REPORT.read(b"TEXT named_metrics.kv_cache_usage_perc=1.5").kv_used_ratio == 1.0
    assert REPORT.read(b"TEXT cpu_utilization=0.5") == EngineLoad()


def prepared(adapter: OpenAICompatibleAdapter) -> dict[bytes, bytes]:
    asked = ClientRequest(
        kind="chat", path="/v1/chat/completions", body=b"{}", headers=((b"accept", b"*/*"),)
    )
    return dict(adapter.prepare(asked, "http://127.0.0.1:8001", "secret").headers)


@pytest.mark.parametrize("options", [{}, {"load_report": False}])
def test_vllm_is_not_asked_unless_wanted(options: dict[str, Any]) -> None:
    adapter = VllmAdapter(options)

    assert load_report(adapter) is None
    assert prepared(adapter) == {b"accept": b"*/*", b"authorization": b"Bearer secret"}


def test_vllm_is_asked_when_wanted() -> None:
    adapter = VllmAdapter({"load_report": True})

    assert load_report(adapter) is REPORT
    assert prepared(adapter)[b"endpoint-load-metrics-format"] == b"TEXT"
    with pytest.raises(ValueError, match="load_report"):
        VllmAdapter({"load_report": 3})
    assert VllmOptions().load_report is False

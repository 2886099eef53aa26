"""Asking for usage changes that one key and nothing else."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from sluice_gateway.rewrite import include_usage

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
OBJECTS = st.dictionaries(st.text().filter(lambda name: name != "stream_options"), VALUES, min_size=1)
LAYOUTS = st.sampled_from([{}, {"indent": 1}, {"ensure_ascii": False}, {"separators": (" ,", " : ")}])


def test_the_clients_bytes_are_spliced_not_written_anew() -> None:
    body = b' \n{ "model":"m" , "x": 1.50, "y":"\\u00e9"}'
    spliced = include_usage(body, has_stream_options=False)
    assert spliced == b' \n{"stream_options":{"include_usage":true}, "model":"m" , "x": 1.50, "y":"\\u00e9"}'


def test_values_beside_stream_options_keep_their_bytes() -> None:
    body = b'{"x": 1.50, "stream_options": {"include_obfuscation": false, "include_usage": false}}'
    replaced = include_usage(body, has_stream_options=True)
    assert b"1.50" in replaced
    assert json.loads(replaced)["stream_options"] == {"include_obfuscation": False, "include_usage": True}


@settings(max_examples=40)
@given(OBJECTS, LAYOUTS)
def test_an_absent_key_is_added(fields: dict[str, Any], layout: dict[str, Any]) -> None:
    body = json.dumps(fields, **layout).encode()
    expected = {**fields, "stream_options": {"include_usage": True}}
    assert json.loads(include_usage(body, has_stream_options=False)) == expected


@settings(max_examples=40)
@given(OBJECTS, st.none() | st.dictionaries(st.text(), VALUES), LAYOUTS)
def test_a_present_key_is_completed(
    fields: dict[str, Any], options: dict[str, Any] | None, layout: dict[str, Any]
) -> None:
    body = json.dumps({**fields, "stream_options": options}, **layout).encode()
    expected = {**fields, "stream_options": {**(options or {}), "include_usage": True}}
    assert json.loads(include_usage(body, has_stream_options=True)) == expected

"""The fast reader of metrics pages, beside Prometheus' own parser."""

from __future__ import annotations

import math
import re
import struct
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from sluice_engines.metrics_page import PageReader, labels

PAGES = Path(__file__).parent / "pages"
RECORDED = sorted(page for page in PAGES.rglob("*metrics*") if page.read_text().startswith("#"))

Found = dict[str, list[tuple[dict[str, str], bytes]]]


def bits(value: float) -> bytes:
    """So that NaN equals NaN, and 0.0 is not -0.0."""
    return struct.pack("d", math.nan if math.isnan(value) else float(value))


def fast(page: str, names: set[str]) -> Found:
    found = PageReader(names).read(page.encode())
    return {n.decode(): [(labels(raw), bits(value)) for raw, value in found[n]] for n in found}


def slow(page: str, names: set[str], parse=parse_text) -> Found:
    found: Found = {}
    for family in parse(page):
        for sample in family.samples:
            if sample.name in names:
                found.setdefault(sample.name, []).append((dict(sample.labels), bits(sample.value)))
    return found


TTFT = "e:ttft_seconds"
WANTED = {"e:waiting", "e:waiting_total", "e:used_perc", f"{TTFT}_sum", f"{TTFT}_count", "e:info", "plain"}
UNWANTED = ("e:waiting_by_reason", "e:wait", "xe:waiting", f"{TTFT}_bucket", "E:waiting", "plainer")

blanks = st.sampled_from(["", "", "", " ", "\t", "  "])
label_names = st.sampled_from(["engine", "reason", "model_name", "le", "_x1"])
label_values = st.text(
    st.sampled_from('ab0 ,{}=#"\\\nµ~') | st.characters(exclude_categories=["Cs", "Cc"]), max_size=8
)
numbers = st.one_of(
    st.integers(-(10**20), 10**20).map(str),
    st.floats().map(
        lambda value: {"nan": "NaN", "inf": "+Inf", "-inf": "-Inf"}.get(repr(value), repr(value))
    ),
    st.sampled_from(["1e+06", "1.23457e+06", "0", "-0.0", "3.", ".5"]),
)


def escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


@st.composite
def label_sets(draw: st.DrawFn) -> str:
    pairs = draw(st.dictionaries(label_names, label_values, max_size=3))
    written = [
        f'{draw(blanks)}{n}{draw(blanks)}={draw(blanks)}"{escaped(v)}"{draw(blanks)}'
        for n, v in pairs.items()
    ]
    if not written:
        return draw(st.sampled_from(["", "{}"]))
    return "{" + ",".join(written) + draw(st.sampled_from(["", ","])) + "}"


@st.composite
def samples(draw: st.DrawFn, names: st.SearchStrategy[str]) -> str:
    stamp = draw(st.sampled_from(["", "", " 1395066363000", "\t1395066363000"]))
    written = draw(label_sets())
    gap = draw(st.sampled_from([" ", "\t", "  "])) if not written else " "
    between = draw(blanks) if written else ""
    return f"{draw(names)}{between}{written}{gap}{draw(numbers)}{stamp}{draw(blanks)}"


@st.composite
def lines(draw: st.DrawFn) -> str:
    name = draw(st.sampled_from(sorted(WANTED)) | st.sampled_from(UNWANTED))
    kind = draw(st.sampled_from(["sample"] * 6 + ["help", "type", "comment", "empty"]))
    if kind == "sample":
        return draw(samples(st.just(name)))
    if kind == "help":
        return f"# HELP {name} " + escaped(draw(label_values))
    if kind == "type":
        return f"# TYPE {name} gauge"
    return "" if kind == "empty" else f"# {name} 3"


@settings(max_examples=300, deadline=None)
@given(st.lists(lines(), min_size=1, max_size=12), st.booleans())
def test_it_reads_what_prometheus_parser_reads(written: list[str], newline: bool):
    page = "plain 1\n" + "\n".join(written) + ("\n" if newline else "")

    assert fast(page, WANTED) == slow(page, WANTED)


@st.composite
def exemplars(draw: st.DrawFn) -> str:
    if draw(st.booleans()):
        return ""
    value = draw(st.sampled_from(["0.5", "1"]))
    stamp = draw(st.sampled_from(["", " 1520879607.789"]))
    trace = draw(st.text(st.sampled_from("ab9"), max_size=6))  # the twin stumbles over others
    return f' # {{trace_id="{trace}"}} {value}{stamp}'


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 9), label_values, exemplars()), min_size=1, max_size=5))
def test_it_reads_what_the_openmetrics_parser_reads(series: list[tuple[int, str, str]]):
    body = [
        f'e:waiting_total{{engine="{index}",reason="{escaped(reason)}"}} {value}.0{exemplar}'
        for index, (value, reason, exemplar) in enumerate(series)
    ]
    page = "\n".join(["# TYPE e:waiting counter", *body, "# EOF", ""])

    assert fast(page, WANTED) == slow(page, WANTED, parse_openmetrics)


@pytest.mark.parametrize("page", RECORDED, ids=lambda page: f"{page.parent.name}/{page.name}")
def test_it_reads_recorded_pages_as_prometheus_parser_does(page: Path):
    # The twin renames counters that do not end with `_total`; what a series is called is what matters here.
    text = re.sub(r"(?m)^(# TYPE \S+) counter$", r"\1 untyped", page.read_text())
    names = {sample.name for family in parse_text(text) for sample in family.samples}

    assert fast(text, names) == slow(text, names)
    assert len(names) > 5


@settings(max_examples=200, deadline=None)
@given(
    st.text(
        st.sampled_from('e:waiting{}"=\\, \n\t1.#NaI_') | st.characters(exclude_categories=["Cs"]),
        max_size=60,
    )
)
def test_nothing_but_a_value_error_comes_of_nonsense(text: str):
    for page in (text, "e:waiting" + text, "\ne:waiting{" + text):
        try:
            PageReader(WANTED).read(page.encode())
        except ValueError as error:
            assert str(error)


def read(page: str, *names: str) -> dict[str, list[float]]:
    found = PageReader(names).read(page.encode())
    return {name.decode(): [value for _, value in found[name]] for name in found}


def test_a_name_is_matched_whole():
    page = 'q_waiting_by_reason{reason="x"} 9\nq_waiting 2\nmy_q_waiting 7\n# q_waiting 8\n'

    assert read(page, "q_waiting") == {"q_waiting": [2.0]}


def test_a_name_may_be_the_beginning_of_another_one():
    assert read("a_b 1\na_b_c 2\na 3\n", "a", "a_b", "a_b_c") == {"a_b": [1.0], "a_b_c": [2.0], "a": [3.0]}


def test_label_values_may_hold_what_looks_like_the_end_of_the_line():
    found = PageReader(["q"]).read(b'q{a="} 5 # {",b="\\\\\\"\\n,"} 1\n')

    [(raw_labels, value)] = found[b"q"]
    assert (value, labels(raw_labels)) == (1.0, {"a": "} 5 # {", "b": '\\"\n,'})


def test_the_last_line_may_end_with_the_page():
    assert read("a 1\nb 2", "b") == {"b": [2.0]}


@pytest.mark.parametrize(
    "line",
    ["q", "q{", 'q{a="1} 3', "q{} x", "q 1_000", "q {3}", 'q{a="b"}', "q one", "q  ", 'q{a="b" 3', "q 0x10"],
)
def test_a_wanted_name_without_a_sample_is_an_error(line: str):
    with pytest.raises(ValueError, match="is not a"):
        read(f"a 1\n{line}\nb 2\n", "q")


@pytest.mark.parametrize(
    "page", ["", "\n", "<html>{not metrics</html>", '{"running": 1}', "[]", "# only a comment\n"]
)
def test_a_page_without_any_sample_is_an_error(page: str):
    with pytest.raises(ValueError, match="no sample"):
        read(page, "q")


def test_a_page_with_other_samples_is_no_error():
    assert read('other{a="b"} 1\n', "q") == {}

"""The page: it needs nothing from outside, hides no text, and can be read without seeing it."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest

from sluice_bench.reports.cost import Price
from sluice_bench.reports.html_page import html_page
from sluice_bench.reports.page import Page, Picture, Section, Table
from sluice_bench.reports.ratio_plot import AbFound
from sluice_bench.reports.run_figures import figures_of
from sluice_bench.reports.scene import Scene, Text
from sluice_bench.reports.search_plot import SearchFound, SearchPoint
from sluice_bench.reports.sections import Findings, page_of
from sluice_bench.stats.estimate import Comparison, Estimate

from .invented_runs import EVIL, closed_run

LOADS_NOTHING = {
    "a", "body", "caption", "desc", "details", "div", "figcaption", "figure", "footer", "h1", "h2", "head",
    "header", "html", "li", "main", "meta", "nav", "p", "path", "rect", "section", "style", "summary", "svg",
    "table", "tbody", "td", "text", "th", "thead", "title", "tr", "ul",
}  # fmt: skip


def estimate(value: float) -> Estimate:
    return Estimate(value=value, low=value * 0.9, high=value * 1.1, n=20)


COMPARISON = Comparison(
    metric="ttft-p50",
    a=estimate(50),
    b=estimate(55),
    ratio=estimate(1.1),
    mde=0.04,
    blocks=12,
    p_value=0.001,
    verdict="slower",
)
AB = AbFound(sides=("A: m at u.", f"B: {EVIL} at u."), comparisons=(COMPARISON,))
SEARCH = SearchFound(
    rate=3.0,
    met=2.9,
    failed=3.2,
    cliff=False,
    recovers=True,
    points=(
        SearchPoint(rate=2.0, strain=0.5, ttft_ms=250.0, tokens_per_s=90.0),
        SearchPoint(rate=2.9, strain=0.9),
        SearchPoint(rate=3.2, strain=None),
        SearchPoint(rate=2.6, strain=0.8, overload_rate=3.2),
    ),
)


def everything() -> Page:
    runs = [
        ("a", closed_run(1, variant="fast", model=EVIL)),
        ("b", closed_run(4, variant="fast", model=EVIL, failing=3)),
        ("c", closed_run(1, variant=EVIL, model=EVIL)),
    ]
    return page_of(
        Findings(
            runs=figures_of(runs),
            comparisons=(AB,),
            search=SEARCH,
            prices=(Price(hardware=EVIL, usd_per_hour=2.0, what=EVIL, source="test", as_of="2026-01-01"),),
        )
    )


class Tags(HTMLParser):
    """Everything that a browser would do something about."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.styles: list[str] = []
        self._open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._open.append(tag)

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] == "style":
            self.styles.append(data)

    def handle_endtag(self, tag: str) -> None:
        while self._open and self._open.pop() != tag:
            pass


@pytest.fixture(scope="module")
def page() -> Page:
    return everything()


@pytest.fixture(scope="module")
def text(page: Page) -> str:
    return html_page(page, f"Made by {EVIL}.")


@pytest.fixture(scope="module")
def tags(text: str) -> Tags:
    return Tags(text)


def test_nothing_is_loaded_and_nothing_runs(tags: Tags) -> None:
    assert {tag for tag, _ in tags.tags} <= LOADS_NOTHING
    for _, attributes in tags.tags:
        assert not {name for name in attributes if name.startswith("on")}
        assert not {"src", "srcset", "data", "action", "style", "background"} & set(attributes)
        for name in ("href", "xlink:href"):
            assert (attributes.get(name) or "#").startswith("#")
    assert not re.search(r"@import|url\(|expression|https?:", "".join(tags.styles))
    [policy] = [
        attributes["content"]
        for tag, attributes in tags.tags
        if tag == "meta" and attributes.get("http-equiv") == "Content-Security-Policy"
    ]
    assert (policy or "").startswith("default-src 'none'")


def test_text_from_outside_is_text(text: str) -> None:
    assert EVIL not in text
    assert "&lt;script&gt;alert(&#x27;x&#x27;)&lt;/script&gt;" in text


def test_every_text_of_a_page_is_escaped() -> None:
    table = Table(caption=EVIL, columns=(EVIL, EVIL), rows=((EVIL, EVIL),))
    scene = Scene(width=9, height=9, title=EVIL, description=EVIL, shapes=(Text(x=0, y=0, text=EVIL),))
    drawn = Picture(name="n", wide=scene, narrow=scene, table=table, notes=(EVIL, EVIL))
    section = Section(title=EVIL, paragraphs=(EVIL,), tables=(table,), pictures=(drawn,), closing=(EVIL,))
    text = html_page(Page(title=EVIL, lines=(EVIL,), warnings=(EVIL,), sections=(section,)), EVIL)
    assert "<script" not in text
    assert text.count("&lt;script&gt;") == 30


def test_every_picture_is_named_and_has_its_numbers(page: Page, text: str) -> None:
    pictures = [picture for section in page.sections for picture in section.pictures]
    assert len(pictures) >= 12
    assert all(picture.table.rows and picture.wide.description for picture in pictures)
    assert all(len(row) == len(picture.table.columns) for picture in pictures for row in picture.table.rows)
    figures = re.findall(r"<figure>.*?</figure>", text, re.DOTALL)
    assert len(figures) == len(pictures)
    for figure in figures:
        assert figure.count("<svg") == 2 and figure.count("<table>") == 1
        assert figure.count('role="img"') == 2
    assert len({picture.name for picture in pictures}) == len(pictures)


def test_it_is_a_document_that_a_reader_can_find_their_way_in(text: str, tags: Tags) -> None:
    assert text.startswith("<!doctype html>")
    identities = [attributes["id"] for _, attributes in tags.tags if "id" in attributes]
    assert len(identities) == len(set(identities))
    targets = [attributes["href"] or "" for tag, attributes in tags.tags if tag == "a"]
    assert {target.removeprefix("#") for target in targets} <= set(identities)
    for _, attributes in tags.tags:
        for identity in (attributes.get("aria-labelledby") or "").split():
            assert identity in identities
    assert next(tag for tag, _ in tags.tags if tag in ("h1", "h2")) == "h1"
    assert dict(tags.tags)["html"] == {"lang": "en"}
    assert all(attributes.get("scope") in ("col", "row") for tag, attributes in tags.tags if tag == "th")


def test_light_dark_narrow_and_print_are_provided_for(text: str) -> None:
    for rule in ("prefers-color-scheme:dark", "max-width:640px", "@media print", "width=device-width"):
        assert rule in text


def test_failures_and_void_runs_are_said_first(page: Page) -> None:
    assert any("Failed requests: fast, 4 users: 1 of 40 (timeout 1)." in warning for warning in page.warnings)
    assert page.sections[0].title == "Summary"


def test_what_could_have_been_seen_stands_before_the_verdict(page: Page) -> None:
    [section] = [section for section in page.sections if section.title == "A against B"]
    [line] = section.closing
    assert line.index("could show 4.0%") < line.index("B is slower")


def test_a_search_is_told_in_a_sentence(page: Page) -> None:
    [section] = [section for section in page.sections if "highest rate" in section.title]
    assert (
        "3 requests/s: 2.9 was the highest that met it, 3.2 the lowest that did not" in section.paragraphs[0]
    )
    rows = section.pictures[0].table.rows
    assert [(row[2], row[-1]) for row in rows[2:]] == [("infinite", "not met"), ("0.80", "met, after 3.2/s")]
    assert section.pictures[0].notes == ("Probes of a strain over 100 are drawn at it: 1.",)


def test_ten_thousand_requests_stay_below_a_megabyte_and_lanes_say_that_they_are_some() -> None:
    runs = [("long", closed_run(4, 10_000, tokens=2)), ("short", closed_run(4, 100))]
    page = page_of(Findings(runs=figures_of(runs), prices=(Price(hardware="h", usd_per_hour=1.0),)))
    assert len(html_page(page, "").encode()) < 1_000_000
    [requests] = [section for section in page.sections if section.title == "Requests"]
    assert requests.pictures[0].notes == ("50 of 10,000 requests are drawn, evenly by their order.",)


def test_many_runs_are_not_all_drawn_in_detail_and_the_page_says_so() -> None:
    runs = [(f"r{number}", closed_run(1, 12, variant=f"v{number}")) for number in range(14)]
    page = page_of(Findings(runs=figures_of(runs)))
    text = html_page(page, "")
    assert "The first 5 of 14 runs." in text
    assert "The first 12 of 14 runs are drawn; the table has all." in text
    assert len(text.encode()) < 1_000_000

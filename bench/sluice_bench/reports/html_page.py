"""A page as one HTML file that needs nothing else: no network, no script, no font of its own.

It says so to the browser too: its content security policy allows styles inside the page and nothing at all
from outside. All text is escaped here, once. Light or dark follows the reader's system; on a narrow screen
the narrow pictures take the place of the wide ones; print is light.
"""

from __future__ import annotations

from collections.abc import Iterator
from html import escape

from sluice_bench.reports.page import NOTHING, Page, Picture, Section, Table
from sluice_bench.reports.svg import FONT, ink_style, svg_element

_STYLE = """
*{box-sizing:border-box}
body{margin:0;background:var(--paper);color:var(--text);line-height:1.5;font-family:%FONT%;font-size:16px}
header,main,footer{max-width:1060px;margin:0 auto;padding:0 20px}
header{padding-top:28px}
h1{font-size:1.7rem;line-height:1.2;margin:0 0 6px;overflow-wrap:anywhere}
h2{font-size:1.25rem;margin:44px 0 10px;padding-top:14px;border-top:2px solid var(--grid)}
p{max-width:75ch;margin:8px 0;overflow-wrap:anywhere}
.muted,footer{color:var(--muted);font-size:.9rem}
nav ul{display:flex;flex-wrap:wrap;gap:4px 18px;list-style:none;margin:14px 0 0;padding:0}
a{color:var(--series1)}
a:focus-visible,summary:focus-visible,.wide-table:focus-visible{
outline:3px solid var(--series1);outline-offset:2px}
.warn{border-left:5px solid var(--alarm);padding:4px 12px;margin:10px 0}
.warn::before{content:"Note: ";font-weight:600;color:var(--alarm)}
.skip{position:absolute;left:-9999px}.skip:focus{left:12px;top:8px}
figure{margin:18px 0 26px}
figure svg{display:block;width:100%;height:auto;max-width:860px}
svg.narrow{display:none}
figcaption{color:var(--muted);font-size:.9rem;max-width:75ch}
details{margin:6px 0}summary{cursor:pointer;color:var(--muted);font-size:.9rem}
.wide-table{overflow-x:auto;margin:10px 0}
table{border-collapse:collapse;font-size:.88rem;font-variant-numeric:tabular-nums}
caption{text-align:left;font-weight:600;padding:4px 0}
th,td{padding:5px 12px 5px 0;border-bottom:1px solid var(--grid);text-align:right;vertical-align:top}
td{white-space:nowrap}td.long{white-space:normal;min-width:15em;overflow-wrap:anywhere}
th:first-child,td:first-child{text-align:left;position:sticky;left:0;background:var(--paper);font-weight:400}
thead th{border-bottom:2px solid var(--axis);font-weight:600;vertical-align:bottom;
min-width:5.5em;max-width:18em;overflow-wrap:break-word}
thead th:first-child{font-weight:600}
@media (max-width:640px){
header,main,footer{padding:0 12px}header{padding-top:18px}
svg.wide{display:none}svg.narrow{display:block}
h1{font-size:1.35rem}th:first-child,td:first-child{min-width:8.5em;max-width:9.5em}}
@media print{
body{font-size:11pt}header,main,footer{max-width:none}nav,.skip{display:none}
svg.wide{display:block}svg.narrow{display:none}
figure{break-inside:avoid}h2{break-after:avoid}.wide-table{overflow:visible}
details:not([open])::details-content{display:none}}
""".replace("%FONT%", FONT).replace("\n", "")

_LONG = 34
"""Longer cells may break."""

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"


def html_page(page: Page, made: str) -> str:
    """The file's text. `made` says when and by what it was made."""
    return "".join(_parts(page, made))


def _parts(page: Page, made: str) -> Iterator[str]:
    title = escape(page.title)
    yield (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="viewport" content="width=device-width,initial-scale=1">\n'
        f"<title>{title}</title>\n<style>{ink_style()}{_STYLE}</style>\n</head>\n<body>\n"
        f'<a class="skip" href="#main">Skip to the figures</a>\n<header>\n<h1>{title}</h1>\n'
    )
    yield from (f'<p class="muted">{escape(line)}</p>\n' for line in page.lines)
    yield '<nav aria-label="Sections"><ul>'
    for number, section in enumerate(page.sections, start=1):
        yield f'<li><a href="#s{number}">{escape(section.title)}</a></li>'
    yield '</ul></nav>\n</header>\n<main id="main">\n'
    yield from (f'<p class="warn">{escape(warning)}</p>\n' for warning in page.warnings)
    for number, section in enumerate(page.sections, start=1):
        yield from _section(section, number)
    yield f"</main>\n<footer><p>{escape(made)}</p></footer>\n</body>\n</html>\n"


def _section(section: Section, number: int) -> Iterator[str]:
    yield f'<section aria-labelledby="s{number}">\n<h2 id="s{number}">{escape(section.title)}</h2>\n'
    yield from (f"<p>{escape(text)}</p>\n" for text in section.paragraphs)
    yield from (_table(table) for table in section.tables)
    for place, picture in enumerate(section.pictures, start=1):
        yield _figure(picture, f"p{number}-{place}")
    yield from (f'<p class="muted">{escape(text)}</p>\n' for text in section.closing)
    yield "</section>\n"


def _figure(picture: Picture, identity: str) -> str:
    notes = "".join(f"<figcaption>{escape(note)}</figcaption>" for note in picture.notes[:1])
    more = "".join(f'<p class="muted">{escape(note)}</p>' for note in picture.notes[1:])
    return (
        f"<figure>{svg_element(picture.wide, identity + 'w', 'wide')}"
        f"{svg_element(picture.narrow, identity + 'n', 'narrow', tips=False)}{notes}{more}"
        f"<details><summary>The numbers: {escape(picture.table.caption)}</summary>"
        f"{_table(picture.table)}</details></figure>\n"
    )


def _cell(text: str) -> str:
    long = ' class="long"' if len(text) > _LONG else ""
    return f"<td{long}>{escape(text) or NOTHING}</td>"


def _table(table: Table) -> str:
    head = "".join(f'<th scope="col">{escape(column)}</th>' for column in table.columns)
    rows = "".join(
        f'<tr><th scope="row">{escape(row[0])}</th>' + "".join(map(_cell, row[1:])) + "</tr>"
        for row in table.rows
    )
    return (
        f'<div class="wide-table" role="region" aria-label="{escape(table.caption)}" tabindex="0"><table>'
        f"<caption>{escape(table.caption)}</caption><thead><tr>{head}</tr></thead><tbody>{rows}</tbody>"
        "</table></div>\n"
    )

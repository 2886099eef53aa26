"""Reading chosen metrics out of a page in Prometheus' text format, fast enough to do it all the time.

A page of an engine has hundreds of lines, nearly all of them buckets that nobody here asks for, and a parser
that makes objects of all of them takes tens of milliseconds. This one looks only for the names it was made
for: one compiled pattern walks over the bytes, and Python touches only lines that begin with such a name.

What it keeps to (the text format 0.0.4, and OpenMetrics as far as engines write it):

- A name is matched whole: `..._waiting` never reads `..._waiting_by_reason`.
- Label values may hold anything, braces and `#` too, with `\\\\`, `\\"` and `\\n` as escapes.
- A timestamp or an exemplar after the value is not part of it; lines of HELP and TYPE are no samples.
- A line that begins with a wanted name and does not go on as a sample is an error, as is a page without any
  sample. Other lines are not judged.

One thing the format allows it does not see: a line that begins with blanks, which no engine writes.
Prometheus' own parser is its twin in the tests.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache

_QUOTED = rb'"[^"\\\n]*+(?:\\[^\n][^"\\\n]*+)*+"'
_LABELS = rb'[ \t]*+\{([^"}\n]*+(?:' + _QUOTED + rb'[^"}\n]*+)*+)\}[ \t]*+'
_VALUE = rb'([^\s{}"#_]++)(?=[ \t\n]|\Z)'
_SAMPLE = rb"(?:" + _LABELS + rb"|[ \t]++)" + _VALUE
_NO_SAMPLE = rb"([ \t{][^\n]*+|(?=\n|\Z))"
_LABEL = re.compile(rb"([a-zA-Z_][a-zA-Z0-9_]*)[ \t]*=[ \t]*(" + _QUOTED + rb")")
_ESCAPE = re.compile(r"\\([\\n\"])")
_ANY_SAMPLE = re.compile(rb"(?m)^[ \t]*[a-zA-Z_:][a-zA-Z0-9_:]*(?:[ \t]*\{.*\}[ \t]*|[ \t]+)[-+0-9.NnIi]")


Sample = tuple[bytes, float]
"""One line of a page: its labels as written, between the braces (`labels` decodes them), and its value."""


class PageReader:
    """Reads some metrics; made once and used for every page."""

    def __init__(self, names: Iterable[str]) -> None:
        """`names` as they stand on the page, e.g. `vllm:time_to_first_token_seconds_sum`."""
        wanted = _any_of(sorted({name.encode() for name in names}))
        self._pattern = re.compile(rb"\n(" + wanted + rb")(?:" + _SAMPLE + rb"|" + _NO_SAMPLE + rb")")

    def read(self, page: bytes) -> dict[bytes, list[Sample]]:
        """The samples by name, in the page's order; a name that is not there is absent.

        Raises `ValueError` for a page that is not one.
        """
        found: dict[bytes, list[Sample]] = {}
        # What precedes the first line is like what precedes the others, so that the pattern's fixed beginning
        # is as long as can be: that is what makes the search fast.
        for name, raw_labels, value, rest in self._pattern.findall(b"\n" + page):
            try:
                sample = (raw_labels, float(value))
            except ValueError:
                raise ValueError(f"'{_shown(name + (rest or value))}' is not a sample") from None
            if name in found:
                found[name].append(sample)
            else:
                found[name] = [sample]
        if not found and not _ANY_SAMPLE.search(page):
            raise ValueError("there is no sample in it")
        return found


@lru_cache(maxsize=1024)
def labels(raw_labels: bytes) -> Mapping[str, str]:
    """A sample's labels, decoded. They are the same from page to page, so the last ones are remembered."""
    return {
        name.decode(): _ESCAPE.sub(_unescaped, value[1:-1].decode(errors="replace"))
        for name, value in _LABEL.findall(raw_labels)
    }


def _unescaped(match: re.Match[str]) -> str:
    return "\n" if match[1] == "n" else match[1]


def _any_of(words: Sequence[bytes]) -> bytes:
    """A pattern for any of `words`, which are sorted: beginnings that they share are tried once."""
    groups: dict[bytes, list[bytes]] = {}
    for word in words:
        groups.setdefault(word[:1], []).append(word)
    ends = bool(groups.pop(b"", None))
    branches = []
    for group in groups.values():
        shared = _beginning(group[0], group[-1])
        branches.append(re.escape(shared) + _any_of([word[len(shared) :] for word in group]))
    if not branches:
        return b""
    pattern = b"|".join(branches)
    if ends or len(branches) > 1:
        pattern = b"(?:" + pattern + b")"
    return pattern + b"?" if ends else pattern


def _beginning(first: bytes, last: bytes) -> bytes:
    """What two words begin with alike, and so all that are sorted between them."""
    alike = 0
    while alike < len(first) and first[alike : alike + 1] == last[alike : alike + 1]:
        alike += 1
    return first[:alike]


def _shown(text: bytes) -> str:
    return text[:80].decode(errors="replace")

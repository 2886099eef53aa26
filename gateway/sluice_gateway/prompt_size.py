"""About how many tokens a prompt has, told from its bytes alone: there is no tokenizer here.

How many bytes a token has depends on what the text is written in, so a few kilobytes of it are looked at, and
counted by the first bytes of their characters (UTF-8 says there how long each is). The numbers are a start:
the router learns the rest by script and model, from what engines count (`sluice_router/cost.py`).

Images inside a request are weighed by what they cost a model, not by their bytes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

import msgspec

BYTES_PER_TOKEN: dict[str, float] = {
    "latin": 4.0,
    "accented": 3.5,
    "two_byte": 3.5,
    "three_byte": 2.0,
    "escaped": 5.0,
    "images": 4.0,
}
"""By script (`sluice_router.types.SCRIPTS`); English text has about four."""
IMAGE_TOKENS = 1024
_DATA_URL = re.compile(rb'"data:image/[^"]*"')
_SAMPLE_BYTES = 4096
_PIECE_BYTES = 1024
_BELOW_THREE = bytes(range(0xE0))
_NOT_TWO = bytes([*range(0xC2), *range(0xE0, 0x100)])
_MOSTLY = 0.3
_HARDLY = 0.02


class PromptSize(msgspec.Struct, frozen=True):
    """What was found."""

    tokens: int
    script: str


def measure(parts: Iterable[memoryview], *, with_images: bool = False) -> PromptSize:
    """Of a prompt's parts as JSON. At least one token."""
    size = 0
    images = 0
    largest: memoryview | None = None
    for part in parts:
        size += len(part)
        if with_images:
            found = [match.end() - match.start() for match in _DATA_URL.finditer(part)]
            images += len(found)
            size -= sum(found)
        if largest is None or len(part) > len(largest):
            largest = part
    script = "images" if with_images else script_of(largest if largest is not None else memoryview(b""))
    return PromptSize(int(size / BYTES_PER_TOKEN[script]) + 1 + images * IMAGE_TOKENS, script)


def script_of(text: memoryview) -> str:
    """What JSON text is mostly written in; of long text, what three pieces of it are."""
    sample = _sample(text)
    if b"\\u" in sample and 6 * sample.count(b"\\u") > _MOSTLY * len(sample):
        return "escaped"
    if sample.isascii():
        return "latin"
    three = 3 * len(sample.translate(None, _BELOW_THREE))
    two = 2 * len(sample.translate(None, _NOT_TWO))
    if three > _MOSTLY * len(sample):
        return "three_byte"
    if two > _MOSTLY * len(sample):
        return "two_byte"
    return "accented" if two + three > _HARDLY * len(sample) else "latin"


def _sample(text: memoryview) -> bytes:
    size = len(text)
    if size <= _SAMPLE_BYTES:
        return bytes(text)
    middle = size // 2
    pieces = (text[:_PIECE_BYTES], text[middle : middle + _PIECE_BYTES], text[size - _PIECE_BYTES :])
    return b"".join(pieces)

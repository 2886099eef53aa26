"""Copying, reversing and list making: the skills that are pure manipulation of the prompt."""

import random

from .exchange import Exchange, ask
from .words import join, name, word

_COPY = (
    "Repeat after me: {x}",
    "Say exactly this: {x}",
    "Copy this line: {x}",
    "Echo: {x}",
    "Please repeat: {x}",
    "Write this again: {x}",
    "Reply with exactly: {x}",
    "Repeat the following words.\n{x}",
)
_REVERSE = (
    "Reverse this list: {x}",
    "Write these words backwards: {x}",
    "Put these words in reverse order: {x}",
    "Turn this list around: {x}",
    "Say these words from last to first: {x}",
)
_BULLETS = (
    "Make a list of {x}.",
    "Write {x} as a bullet list.",
    "Put {x} into a list.",
    "Give me a list with {x}.",
)
_NUMBERED = (
    "Make a numbered list of {x}.",
    "Number these: {x}.",
    "Write {x} as a numbered list.",
)


def _words(rng: random.Random, low: int, high: int) -> list[str]:
    items: list[str] = []
    size = rng.randint(low, high)
    while len(items) < size:
        item = name(rng) if rng.random() < 0.15 else word(rng)
        if item not in items:
            items.append(item)
    return items


def copying(rng: random.Random) -> Exchange:
    """Return a request to repeat two to eight words, or a row of digits, unchanged."""
    if rng.random() < 0.2:
        text = "".join(rng.choice("0123456789") for _ in range(rng.randint(3, 8)))
    else:
        text = rng.choice((" ", " ", ", ")).join(_words(rng, 2, 8))
    return ask("copying", ("copy", text), rng.choice(_COPY).format(x=text), text)


def reversing(rng: random.Random) -> Exchange:
    """Return a request to write two to six items in reverse order."""
    if rng.random() < 0.25:
        items = [rng.choice("0123456789") for _ in range(rng.randint(3, 6))]
    else:
        items = _words(rng, 2, 6)
    mark = rng.choice((" ", ", ", ", "))
    text = mark.join(items)
    return ask("reversing", ("reverse", text), rng.choice(_REVERSE).format(x=text), mark.join(items[::-1]))


def listing(rng: random.Random) -> Exchange:
    """Return a request to lay items out as a bullet or numbered list, or to count up or down."""
    if rng.random() < 0.2:
        return _counting(rng)
    items = _words(rng, 2, 6)
    numbered = rng.random() < 0.4
    question = rng.choice(_NUMBERED if numbered else _BULLETS).format(x=join(items))
    lines = [f"{i}. {item}" if numbered else f"- {item}" for i, item in enumerate(items, 1)]
    return ask("lists", ("list", *items), question, "\n".join(lines))


def _counting(rng: random.Random) -> Exchange:
    start = rng.randint(1, 40)
    stop = start + rng.randint(2, 9)
    if rng.random() < 0.3:
        start, stop = stop, start
    step = 1 if stop > start else -1
    numbers = ", ".join(str(n) for n in range(start, stop + step, step))
    verb = rng.choice(
        ("Count from {a} to {b}.", "Write the numbers from {a} to {b}.", "Please count from {a} to {b}.")
    )
    return ask("lists", ("count", start, stop), verb.format(a=start, b=stop), numbers)

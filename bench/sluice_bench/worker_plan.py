"""What the worker bench measures: cells, each a few contestants under the same loads, in turn.

A cell answers one question, and its contestants are loaded at the same time and take turns, so a ratio
between two of them is of neighbours in time. Cells that load the same engines on the same shape are one
group. A row is one repeat of one step; its figures are a mapping, because loads differ in what can be
measured.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import StrEnum

import msgspec

from sluice_bench.worker_targets import (
    CONTINUOUS_BF16,
    GENERATE_BF16,
    LLAMA_BF16,
    LLAMA_Q4_0,
    LLAMA_Q4_K_M,
    LLAMA_Q8_0,
    VLLM_BF16,
    WORKER_BF16,
    WORKER_INT4,
    WORKER_INT8,
    WORKER_NONE,
)

LARGE, SMALL, TOY = "tinyllama-1.1b", "smollm-135m", "toy"
CONTEXT = 8192
"""Of every checkpoint: room for the long prompt. It changes no weight."""


class Lane(StrEnum):
    """The questions, in the order of the page."""

    DECODE = "decode"
    PREFILL = "prefill"
    ROOF = "roof"
    CONTEXT = "context"
    VERIFY = "verify"
    STUTTER = "stutter"
    BATCHING = "batching"
    HOG = "hog"
    START = "start"


class Group(StrEnum):
    """Who is loaded together."""

    PLAIN = "plain"
    """Unquantized engines, and the worker in 8 bits against them."""
    QUANTIZED = "quantized"
    TRANSFORMERS = "transformers"
    OWN = "own"
    """The worker alone, against itself or against the machine."""
    UNLOADED = "unloaded"
    """Nobody: each step starts its own server, and no other holds its files."""


class Streams(msgspec.Struct, frozen=True, kw_only=True, tag="streams"):
    """A closed loop of requests of fixed length."""

    streams: int = 1
    requests: int = 1
    """In all, per repeat."""
    prompt_tokens: int = 128
    output_tokens: int = 64
    hog: bool = False
    """Another process keeps one core busy meanwhile."""


class Extension(msgspec.Struct, frozen=True, kw_only=True, tag="extension"):
    """One request after another, each with a few new tokens behind a prefix that is in the cache."""

    prefix_tokens: int
    new_tokens: int
    requests: int


class Intrusion(msgspec.Struct, frozen=True, kw_only=True, tag="intrusion"):
    """A long prompt arrives while one stream is running."""

    prompt_tokens: int
    output_tokens: int
    intruder_tokens: int
    after_s: float


class RoofProbe(msgspec.Struct, frozen=True, kw_only=True, tag="roof"):
    """The memory's read bandwidth; no contestant takes part."""

    rounds: int = 3


class Start(msgspec.Struct, frozen=True, kw_only=True, tag="start"):
    """Start the server and ask for one token; it was not loaded before."""

    cold: bool
    """Its files are dropped from the system's cache first, as after a boot."""


Load = Streams | Extension | Intrusion | RoofProbe | Start
ROOF = "roof"
"""Stands for a contestant in a step with a `RoofProbe`."""


class Step(msgspec.Struct, frozen=True):
    """One contestant under one load; `label` tells the loads of a cell apart."""

    contestant: str
    load: Load
    label: str = ""


class Cell(msgspec.Struct, frozen=True, kw_only=True):
    """Steps that take turns."""

    lane: Lane
    shape: str
    group: Group
    name: str = ""
    """Tells the cells of a lane, shape and group apart."""
    steps: tuple[Step, ...]
    repeats: int

    @property
    def key(self) -> str:
        """Which result of an earlier run this one takes the place of."""
        return "/".join(part for part in (self.lane, self.shape, self.group, self.name) if part)

    @property
    def contestants(self) -> tuple[str, ...]:
        """Engines to be loaded, each once, in order."""
        wanted = (step for step in self.steps if not isinstance(step.load, RoofProbe | Start))
        return tuple(dict.fromkeys(step.contestant for step in wanted))


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One repeat of one step."""

    contestant: str
    label: str = ""
    repeat: int
    figures: dict[str, float]
    problem: str = ""
    """Why the row does not count: a failed request, or a length that was not as asked. Empty: it counts."""
    foreign_cores: float
    """Cores that processes outside the bench kept busy meanwhile."""


def full_plan(repeats: int) -> tuple[Cell, ...]:
    """Everything that has a bar, and what explains it."""
    return (*_large(repeats), *_small(repeats), *_own(repeats))


def quick_plan() -> tuple[Cell, ...]:
    """Some seconds on a toy model, by the worker alone; the figures mean nothing."""
    short = Streams(streams=2, requests=2, prompt_tokens=16, output_tokens=8)
    decode = Cell(
        lane=Lane.DECODE,
        shape=TOY,
        group=Group.PLAIN,
        name="2 streams",
        steps=_each([WORKER_BF16], short),
        repeats=2,
    )
    extension = Extension(prefix_tokens=64, new_tokens=1, requests=2)
    intrusion = Intrusion(prompt_tokens=16, output_tokens=2000, intruder_tokens=1024, after_s=0.25)
    change = msgspec.structs.replace
    return (
        decode,
        change(decode, lane=Lane.PREFILL, name="", steps=_each([WORKER_BF16], Streams(output_tokens=1))),
        change(decode, lane=Lane.ROOF, name="", steps=_roof_steps([WORKER_BF16], short)),
        change(decode, lane=Lane.VERIFY, name="", steps=_verify_steps([WORKER_BF16], extension)),
        change(decode, lane=Lane.STUTTER, name="", steps=_each([WORKER_BF16], intrusion), repeats=1),
        change(decode, lane=Lane.HOG, name="", steps=_hog_steps([WORKER_BF16], short), repeats=1),
        change(
            decode,
            lane=Lane.START,
            group=Group.UNLOADED,
            name="",
            steps=_start_steps([WORKER_BF16]),
            repeats=1,
        ),
    )


def chosen(
    cells: Iterable[Cell],
    lanes: Sequence[str] = (),
    shapes: Sequence[str] = (),
    groups: Sequence[str] = (),
    streams: Sequence[int] = (),
    without: Sequence[str] = (),
) -> tuple[Cell, ...]:
    """The cells asked for, every one where nothing is said, less some contestants' steps."""
    kept = []
    for cell in cells:
        counts = {step.load.streams for step in cell.steps if isinstance(step.load, Streams)}
        asked = ((lanes, {cell.lane}), (shapes, {cell.shape}), (groups, {cell.group}), (streams, counts))
        if all(not wanted or found & set(wanted) for wanted, found in asked):
            steps = tuple(step for step in cell.steps if step.contestant not in without)
            kept.append(msgspec.structs.replace(cell, steps=steps))
    return tuple(cell for cell in kept if any(step.contestant != ROOF for step in cell.steps))


def _each(contestants: Sequence[str], load: Load, label: str = "") -> tuple[Step, ...]:
    return tuple(Step(name, load, label) for name in contestants)


def streams_name(streams: int) -> str:
    """Of a cell whose engines have so many."""
    return f"{streams} stream" if streams == 1 else f"{streams} streams"


def _decode(
    shape: str, group: Group, streams: int, requests: int, contestants: Sequence[str], repeats: int
) -> Cell:
    return Cell(
        lane=Lane.DECODE,
        shape=shape,
        group=group,
        name=streams_name(streams),
        steps=_each(contestants, Streams(streams=streams, requests=requests)),
        repeats=repeats,
    )


def _prefill(shape: str, group: Group, contestants: Sequence[str], repeats: int) -> Cell:
    load = Streams(prompt_tokens=1024, output_tokens=1, requests=1)
    return Cell(lane=Lane.PREFILL, shape=shape, group=group, steps=_each(contestants, load), repeats=repeats)


def _large(repeats: int) -> tuple[Cell, ...]:
    plain, quantized, transformers = Group.PLAIN, Group.QUANTIZED, Group.TRANSFORMERS
    against = (WORKER_BF16, WORKER_INT8, LLAMA_BF16, VLLM_BF16)
    return (
        _decode(LARGE, plain, 1, 2, (WORKER_BF16, LLAMA_BF16, VLLM_BF16), repeats),
        _decode(LARGE, plain, 4, 4, (WORKER_BF16, LLAMA_BF16, VLLM_BF16), min(repeats, 3)),
        _decode(LARGE, plain, 16, 16, against, repeats),
        _prefill(LARGE, plain, against, repeats),
        _decode(
            LARGE, quantized, 1, 2, (WORKER_INT8, WORKER_INT4, LLAMA_Q8_0, LLAMA_Q4_0, LLAMA_Q4_K_M), repeats
        ),
        _decode(LARGE, quantized, 16, 16, (WORKER_INT8, WORKER_INT4, LLAMA_Q8_0), repeats),
        _prefill(LARGE, quantized, (WORKER_INT8, WORKER_INT4, LLAMA_Q8_0), repeats),
        _decode(LARGE, transformers, 1, 1, (WORKER_BF16, GENERATE_BF16), repeats),
        _decode(LARGE, transformers, 16, 16, (WORKER_BF16, GENERATE_BF16, CONTINUOUS_BF16), min(repeats, 5)),
    )


def _small(repeats: int) -> tuple[Cell, ...]:
    ours = (WORKER_BF16, WORKER_INT8, WORKER_INT4)
    four_bits = (LLAMA_Q8_0, LLAMA_Q4_0, LLAMA_Q4_K_M)
    return (
        _decode(SMALL, Group.PLAIN, 1, 3, (WORKER_BF16, LLAMA_BF16, VLLM_BF16), repeats),
        _decode(SMALL, Group.PLAIN, 16, 16, (WORKER_BF16, LLAMA_BF16, VLLM_BF16), repeats),
        _prefill(SMALL, Group.PLAIN, (WORKER_BF16, LLAMA_BF16), repeats),
        _decode(SMALL, Group.QUANTIZED, 1, 3, (WORKER_INT8, WORKER_INT4, *four_bits), repeats),
        _decode(SMALL, Group.QUANTIZED, 32, 32, (*ours, LLAMA_BF16, LLAMA_Q8_0, LLAMA_Q4_0), repeats),
    )


def _own(repeats: int) -> tuple[Cell, ...]:
    ours = (WORKER_BF16, WORKER_INT8, WORKER_INT4)
    short, long = Streams(prompt_tokens=128), Streams(prompt_tokens=2048 - 64)
    cell = Cell(lane=Lane.ROOF, shape=LARGE, group=Group.OWN, steps=(), repeats=repeats)
    change = msgspec.structs.replace
    at_length = (*_each([WORKER_BF16], short, "128"), *_each([WORKER_BF16], long, "2,048"))
    intrusion = Intrusion(prompt_tokens=128, output_tokens=384, intruder_tokens=4096, after_s=5.0)
    four = Streams(streams=4, requests=4)
    return (
        change(cell, steps=_roof_steps(ours, short)),
        change(cell, lane=Lane.CONTEXT, steps=at_length),
        change(
            cell,
            lane=Lane.VERIFY,
            steps=_verify_steps(
                [WORKER_BF16, WORKER_INT8], Extension(prefix_tokens=128, new_tokens=1, requests=10)
            ),
        ),
        change(cell, lane=Lane.STUTTER, steps=_each([WORKER_BF16], intrusion)),
        change(cell, lane=Lane.BATCHING, steps=_each([WORKER_BF16, WORKER_NONE], four)),
        change(cell, lane=Lane.HOG, steps=_hog_steps([WORKER_BF16], short)),
        change(
            cell, lane=Lane.START, group=Group.UNLOADED, steps=_start_steps(ours), repeats=min(repeats, 3)
        ),
    )


def _roof_steps(contestants: Sequence[str], load: Streams) -> tuple[Step, ...]:
    return (Step(ROOF, RoofProbe()), *_each(contestants, load))


def _verify_steps(contestants: Sequence[str], one: Extension) -> tuple[Step, ...]:
    four = msgspec.structs.replace(one, new_tokens=4)
    return tuple(Step(name, load, f"{load.new_tokens} new") for name in contestants for load in (one, four))


def _hog_steps(contestants: Sequence[str], load: Streams) -> tuple[Step, ...]:
    hogged = msgspec.structs.replace(load, hog=True)
    return (*_each(contestants, load, "quiet"), *_each(contestants, hogged, "hogged"))


def _start_steps(contestants: Sequence[str]) -> tuple[Step, ...]:
    return (
        *_each(contestants, Start(cold=True), "cold"),
        *_each(contestants, Start(cold=False), "warm"),
    )

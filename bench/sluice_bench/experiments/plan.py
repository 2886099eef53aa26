"""An experiment as data: which engines, which variants of asking them, which loads, and what its page shows.

A *group* is the engines that are up at once. Where variants share what they are measured on (one gateway,
several engines chosen by header) they are one group, started once; where each needs the machine's memory or
its caches to itself, each is a group of its own, started anew in every repeat.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal, TypeVar

import msgspec

from sluice_bench.baseline import BUNDLED_MODEL
from sluice_bench.experiments.loads import Load
from sluice_bench.experiments.stack import Engine
from sluice_bench.model_files import MODELS_FOLDER
from sluice_bench.peer_packages import DEFAULT_FOLDER

BUNDLED_FOLDER = Path(__file__).resolve().parents[3] / BUNDLED_MODEL
"""The bundled model, from wherever a command is run."""

Thing = TypeVar("Thing")
ExperimentName = Literal["batching", "paged-kv", "quant", "tensor-parallel", "short-prompts", "backends"]


class ExperimentOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What was typed."""

    quick: bool = False
    """Few requests and one repeat, to see that it works; the figures mean nothing."""
    model: str | None = None
    """A folder, the bundled model or a random shape by name; `None` takes the experiment's own."""
    repeats: int | None = None
    only: tuple[str, ...] = ()
    """Names of variants; empty: those that the experiment measures by default."""
    build: bool = False
    """Build other engines that are not there yet."""
    bundled_model: Path = BUNDLED_FOLDER
    models_folder: Path = MODELS_FOLDER
    peers_folder: Path = DEFAULT_FOLDER

    def repeats_or(self, usual: int) -> int:
        """How often everything is measured."""
        return self.repeats or (1 if self.quick else usual)


class Variant(msgspec.Struct, frozen=True, kw_only=True):
    """One of the things that are compared."""

    name: str
    """Of the folder of its run files, too."""
    engine: str
    """Name of the engine that it is to be served by."""
    headers: tuple[tuple[str, str], ...] = ()
    """That make the gateway choose the engine; none where there is only one."""
    direct: bool = False
    """The engine is asked itself, past the gateway."""


class Group(msgspec.Struct, frozen=True, kw_only=True):
    """Engines that are up at once, and the variants that they serve."""

    engines: tuple[Engine, ...]
    variants: tuple[Variant, ...]


class Column(msgspec.Struct, frozen=True, kw_only=True):
    """A further figure of an experiment's tables, by its name in `Row.figures`."""

    key: str
    title: str
    percent: bool = False


class LeftOut(msgspec.Struct, frozen=True):
    """A variant that is not measured, and why."""

    variant: str
    reason: str


class QualityPlan(msgspec.Struct, frozen=True, kw_only=True):
    """Whose predictions are compared, after everything that is timed. The first variant is the reference."""

    model: str
    group: Group
    windows: int
    """Pieces of text that are read."""
    prompts: int
    """That are answered greedily."""


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """Everything to measure, and how to tell it."""

    name: ExperimentName
    title: str
    remarks: tuple[str, ...]
    """Paragraphs: what is compared, and how to read it."""
    model: str
    groups: tuple[Group, ...]
    loads: tuple[Load, ...]
    repeats: int
    quick: bool
    reference: str
    """The variant that ratios are taken over."""
    headline: Literal["tokens_per_s", "ttft_ms"]
    """What is drawn and set in relation to the reference's."""
    columns: tuple[Column, ...] = ()
    kv_bytes_per_token: int = 0
    """Of the model, for memory per token; 0 where the page shows none."""
    left_out: tuple[LeftOut, ...] = ()
    quality: QualityPlan | None = None

    @property
    def variants(self) -> tuple[Variant, ...]:
        """All of them, in the order of the page."""
        return tuple(variant for group in self.groups for variant in group.variants)

    @property
    def steps(self) -> int:
        """How often progress is told."""
        starts = 1 if len(self.groups) == 1 else self.repeats * len(self.groups)
        beside = len(self.quality.group.variants) - 1 if self.quality else 0
        beside += self.quality is not None and self.quality.group not in self.groups
        return starts + self.repeats * len(self.loads) * len(self.variants) + beside


def rounds(plan: Plan) -> Iterator[tuple[Group, range]]:
    """What is started in turn, and the repeats that are measured before it is ended again."""
    if len(plan.groups) == 1:
        yield plan.groups[0], range(plan.repeats)
        return
    for repeat in range(plan.repeats):
        for group in shuffled(plan.groups, repeat):
            yield group, range(repeat, repeat + 1)


def shuffled(things: Sequence[Thing], seed: int) -> list[Thing]:
    """In an order that is drawn with the seed."""
    return random.Random(seed).sample(things, len(things))


def chosen_variants(known: Sequence[str], usual: Sequence[str], only: Sequence[str]) -> tuple[str, ...]:
    """Those that were asked for, in the order of `known`; the usual ones when none was.

    Raises `ValueError` for one that is not known.
    """
    for name in only:
        if name not in known:
            raise ValueError(f"--only does not know {name}; choose from {', '.join(known)}")
    return tuple(name for name in known if name in (only or usual))

"""From a preset to the requests of a run: how long each is, what it shares, when it is due; then its text.

A plan is drawn first, without any text, so that its statistics can be looked at for many requests. A prefix
is a stream of the corpus' words without end; a prompt takes as much of it as it shares and goes on with words
of its own. A longer plan begins with the shorter one.
"""

from __future__ import annotations

import math
import random
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import accumulate, islice
from statistics import NormalDist

import msgspec

from sluice_bench import arrivals
from sluice_bench.arrivals import NS_PER_S, Schedule
from sluice_bench.rate_stages import Stage
from sluice_bench.stats.percentile import percentile
from sluice_bench.workloads.corpus import Corpus
from sluice_bench.workloads.items import Workload, WorkloadItem
from sluice_bench.workloads.lengths import Lengths
from sluice_bench.workloads.phrases import Draw
from sluice_bench.workloads.presets import PRESETS, Bursts, Prefixes, Preset, PresetName, Sessions

TOKENS_PER_WORD = 1.3
"""Of a common large tokenizer; the usage of an answer says what it was."""


class Planned(msgspec.Struct, frozen=True, kw_only=True):
    """One request, tokens."""

    input: int
    output: int
    prefix: str = ""
    """What it begins with: requests of the same prefix begin alike."""
    shared: int = 0
    """How much of the input comes from the prefix."""
    after: int | None = None
    """The place of the turn before, in the plan."""
    think_ns: int = 0


def plan(name: PresetName, count: int, seed: int, fit: int | None = None) -> list[Planned]:
    """`count` requests. With `fit`, all lengths are scaled down so that the longest prompt and answer fit."""
    return list(islice(requests(name, seed, fit), count))


def requests(name: PresetName, seed: int, fit: int | None = None) -> Iterator[Planned]:
    """A plan without end."""
    preset, source = PRESETS[name], random.Random(f"{name}:{seed}")
    planned = _sessions(preset, preset.sessions, source) if preset.sessions else _single(preset, source)
    factor = scale(name, fit)
    return (_scaled(request, factor) for request in planned)


def session(name: PresetName, number: int, seed: int, fit: int | None = None) -> Iterator[Planned]:
    """The rounds of one session by itself. Raises `ValueError` for a preset without sessions."""
    preset, source = PRESETS[name], random.Random(f"{name}:{seed}:{number}")
    if preset.sessions is None:
        raise ValueError(f"{name} has no sessions")
    factor = scale(name, fit)
    rounds = _rounds(f"session-{number}", preset, preset.sessions, source)
    return (_scaled(request, factor) for request in rounds)


def scale(name: PresetName, fit: int | None) -> float:
    """What lengths are multiplied with to fit into so many positions; 1 when they do. Raises `ValueError`."""
    if fit is None:
        return 1.0
    if fit < 16:
        raise ValueError(f"--fit needs at least 16 positions, not {fit}")
    return min(1.0, fit / PRESETS[name].longest)


def schedule(name: PresetName, count: int, seed: int, rate_per_s: float | None = None) -> Schedule | None:
    """The preset's own arrivals, or `None` when its sessions set the pace.

    With `rate_per_s` they come at that mean rate instead, in the same shape: bursts last as long as they did.
    """
    preset = PRESETS[name]
    if preset.rate_per_s is None:
        return None
    rate = preset.rate_per_s if rate_per_s is None else rate_per_s
    if preset.bursts is not None:
        bursts = preset.bursts if rate_per_s is None else _at_rate(preset.bursts, rate)
        stages = _burst_stages(bursts, count, random.Random(f"{name}:stages:{seed}"))
        return Schedule.of("stages", arrivals.stages(stages, count, seed), rate_per_s=rate, seed=seed)
    if preset.cv == 1:
        offsets = arrivals.poisson(rate, count, seed)
        return Schedule.of("poisson", offsets, rate_per_s=rate, cv=1.0, seed=seed)
    offsets = arrivals.gamma(rate, preset.cv, count, seed)
    return Schedule.of("gamma", offsets, rate_per_s=rate, cv=preset.cv, seed=seed)


def workload(corpus: Corpus, name: PresetName, planned: Sequence[Planned], seed: int) -> Workload:
    """Chat requests with the lengths and prefixes planned."""
    passages = [turn.split() for prompt in corpus.suite("long") for turn in prompt.turns]

    def item(place: int, request: Planned) -> WorkloadItem:
        shared, own = _words(request.shared), _words(request.input - request.shared)
        parts = [_text(passages, f"{name}:{seed}:{request.prefix}", shared)] if shared else []
        parts += [_text(passages, f"{name}:{seed}:own:{place}", own)] if own else []
        return WorkloadItem(
            id=f"{name}-{place:04d}",
            endpoint="chat",
            body={"messages": [{"role": "user", "content": "\n\n".join(parts)}]},
            max_tokens=request.output,
            after=None if request.after is None else f"{name}-{request.after:04d}",
            think_ns=request.think_ns,
        )

    return Workload.of(name, (item(place, request) for place, request in enumerate(planned)))


def achieved(planned: Sequence[Planned], schedule: Schedule | None) -> dict[str, float]:
    """The plan's statistics, by the names of `Preset.published`."""
    found = {"reused": reused_share(planned)}
    for what, lengths in (
        ("input", [request.input for request in planned]),
        ("output", [request.output for request in planned]),
    ):
        weighted = [(float(length), 1) for length in lengths]
        found |= {f"{what} p{share}": percentile(weighted, share / 100) for share in (50, 90, 99)}
        found[f"{what} mean"] = sum(lengths) / len(lengths)
    if schedule is not None:
        found |= {f"IDC {seconds} s": dispersion(schedule.offsets_ns, seconds) for seconds in (1, 10, 60)}
    return found


def reused_share(planned: Sequence[Planned]) -> float:
    """Share of all input tokens that an earlier prompt began with: what a cache without end would save."""
    longest: Counter[str] = Counter()
    reused = 0
    for request in planned:
        reused += min(request.shared, longest[request.prefix])
        longest[request.prefix] = max(longest[request.prefix], request.shared)
    return reused / sum(request.input for request in planned)


def dispersion(offsets_ns: Sequence[int], seconds: int) -> float:
    """Variance over mean of the arrivals in whole windows: 1 for Poisson; 0 without a whole window."""
    width = seconds * NS_PER_S
    windows = offsets_ns[-1] // width
    if windows == 0:
        return 0.0
    counts = Counter(offset // width for offset in offsets_ns)
    numbers = [counts[window] for window in range(windows)]
    mean = sum(numbers) / windows
    return sum((number - mean) ** 2 for number in numbers) / windows / mean if mean else 0.0


def _single(preset: Preset, source: random.Random) -> Iterator[Planned]:
    ranking = _ranking(preset.prefixes)
    while True:
        length = _draw(preset.input, source)
        request = Planned(input=length, output=_draw(preset.output, source))
        if preset.prefixes is not None:
            group = min(len(ranking) - 1, bisect_right(ranking, source.random() * ranking[-1]))
            shared = round(preset.prefixes.share * length)
            request = msgspec.structs.replace(request, prefix=f"group-{group}", shared=shared)
        yield request


def _ranking(prefixes: Prefixes | None) -> list[float]:
    """Running sums of the groups' weights."""
    if prefixes is None:
        return []
    return list(accumulate(1 / rank**prefixes.skew for rank in range(1, prefixes.groups + 1)))


def _sessions(preset: Preset, shape: Sessions, source: random.Random) -> Iterator[Planned]:
    """A round of each running session in turn; where one ends, the next begins."""
    running: list[Iterator[Planned]] = [iter(()) for _ in range(shape.at_once)]
    number = 0
    last: list[int | None] = [None] * shape.at_once
    place = 0
    while True:
        for lane, session in enumerate(running):
            request = next(session, None)
            if request is None:
                running[lane] = _rounds(f"session-{number}", preset, shape, source)
                last[lane], number = None, number + 1
                request = next(running[lane])
            yield msgspec.structs.replace(request, after=last[lane])
            last[lane], place = place, place + 1


def _rounds(name: str, preset: Preset, shape: Sessions, source: random.Random) -> Iterator[Planned]:
    """At least one round; all of a prompt is the session's own prefix, which the next one takes more of."""
    sigma = NormalDist().inv_cdf(_open(source)) * shape.rounds_sigma
    rounds = max(1, round(shape.median_rounds * math.exp(sigma)))
    length, start = _draw(preset.input, source), 0
    for turn in range(rounds):
        output = _draw(preset.output, source)
        think_ns = _draw(shape.think_s, source) * NS_PER_S if turn else 0
        prefix = f"{name}.{start}"
        yield Planned(input=length, output=output, prefix=prefix, shared=length, think_ns=think_ns)
        length += output + _draw(shape.appended, source)
        if length > shape.longest:
            length, start = _draw(preset.input, source), start + 1


def _at_rate(bursts: Bursts, rate_per_s: float) -> Bursts:
    """With that mean rate over both states."""
    expected = bursts.low_per_s * bursts.low_s + bursts.high_per_s * bursts.high_s
    factor = rate_per_s * (bursts.low_s + bursts.high_s) / expected
    return msgspec.structs.replace(
        bursts, low_per_s=bursts.low_per_s * factor, high_per_s=bursts.high_per_s * factor
    )


def _burst_stages(bursts: Bursts, count: int, source: random.Random) -> list[Stage]:
    """Low and high in turn, enough for `count` requests."""
    stages, expected = [], 0.0
    while expected < count + 10 * math.sqrt(count) + 100:
        for rate, mean_s in ((bursts.low_per_s, bursts.low_s), (bursts.high_per_s, bursts.high_s)):
            seconds = max(0.001, -math.log(_open(source)) * mean_s)
            stages.append(Stage(from_rate=rate, to_rate=rate, seconds=seconds))
            expected += rate * seconds
    return stages


def _draw(lengths: Lengths, source: random.Random) -> int:
    return lengths.at(_open(source))


def _open(source: random.Random) -> float:
    """Uniform in (0, 1)."""
    return max(source.random(), 1e-12)


def _scaled(request: Planned, factor: float) -> Planned:
    if factor == 1.0:
        return request
    length = max(1, int(request.input * factor))
    return msgspec.structs.replace(
        request,
        input=length,
        output=max(1, int(request.output * factor)),
        shared=min(length, int(request.shared * factor)),
    )


def _words(tokens: int) -> int:
    return round(tokens / TOKENS_PER_WORD)


def _text(passages: Sequence[Sequence[str]], key: str, words: int) -> str:
    """The first words of the stream that belongs to `key`, which begins with a tag of its own."""
    draw = Draw(key)
    stream = [f"{draw.below(1 << 40):010x}:"]
    while len(stream) < words:
        stream += draw.pick(passages)
    return " ".join(stream[:words])

"""The scenarios of the router's report: each answers one question, and says which policies are asked."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from sluice_bench.simulator.faults import Fault
from sluice_bench.simulator.fleet import POLICIES, SLUICE
from sluice_bench.simulator.scenario import Scenario
from sluice_bench.simulator.traffic import TrafficShape
from sluice_bench.workloads.presets import PresetName

LOADS = (0.5, 0.75, 1.0, 1.25, 1.5, 2.0)
LOAD_PRESETS: tuple[PresetName, ...] = ("chat-azure24", "b2b-prefix")
OTHER_PRESETS: tuple[PresetName, ...] = (
    "code-azure23-spiky",
    "burstgpt-api",
    "kimi-conv",
    "kimi-toolagent",
    "qwen-api",
    "reasoning",
    "agent-coding",
)
BEST = (SLUICE, "weighted-scorers", "lmetric", "dual-hash")
"""The policies that look at both load and prefixes."""


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """A section of the report."""

    name: str
    title: str
    text: str
    varied: str
    """What differs between its rows beside the policy, as a column's title."""
    policies: tuple[str, ...]
    scenarios: tuple[tuple[str, Scenario], ...]
    """By what the column says."""


def questions(replicas: int, seconds: float) -> Iterator[Question]:
    """All of the report's, for fleets of about so many engines and so many seconds of arrivals."""
    yield from _by_load(replicas, seconds)
    yield _other_presets(replicas, seconds)
    yield _state_age(replicas, seconds)
    yield _gateways(replicas, seconds)
    yield _clients(replicas, seconds)
    yield _tenants(replicas, seconds)
    yield _classes(replicas, seconds)
    yield _slow_node(seconds)
    yield _pauses(replicas, seconds)
    yield _death(replicas, seconds)


def _by_load(replicas: int, seconds: float) -> Iterator[Question]:
    for preset in LOAD_PRESETS:
        base = Scenario(
            name=f"load-{preset}",
            traffic=TrafficShape(preset=preset),
            load=1.0,
            replicas=replicas,
            # Answers of a thousand tokens last for half a minute: a short overload would only be put off.
            seconds=6 * seconds if preset == "b2b-prefix" else seconds,
        )
        yield Question(
            name=base.name,
            title=f"Goodput by load: {preset}",
            text="Share of all requests whose first token came within 2 s, as the offered load grows.",
            varied="load",
            policies=POLICIES,
            scenarios=tuple((f"{load:g}", msgspec.structs.replace(base, load=load)) for load in LOADS),
        )


def _other_presets(replicas: int, seconds: float) -> Question:
    return Question(
        name="presets",
        title="The other presets at full load",
        text="Load 1: as much as the fleet could bear with an ideal prefix cache.",
        varied="preset",
        policies=BEST,
        scenarios=tuple(
            (
                preset,
                Scenario(
                    name="presets",
                    traffic=TrafficShape(preset=preset),
                    load=1.0,
                    replicas=replicas // 2,
                    seconds=seconds,
                ),
            )
            for preset in OTHER_PRESETS
        ),
    )


def _b2b(name: str, load: float, replicas: int, seconds: float) -> Scenario:
    return Scenario(
        name=name,
        traffic=TrafficShape(preset="b2b-prefix"),
        load=load,
        replicas=replicas,
        seconds=seconds,
    )


def _state_age(replicas: int, seconds: float) -> Question:
    base = _b2b("age", 0.9, replicas, seconds)
    return Question(
        name="age",
        title="How old the metrics are",
        text="b2b-prefix at load 0.9, four gateways: engines are scraped every so many seconds.",
        varied="scrape every",
        policies=BEST,
        scenarios=tuple(
            (f"{age:g} s", msgspec.structs.replace(base, scrape_s=age, gateways=4))
            for age in (0.05, 0.2, 1.0, 5.0)
        ),
    )


def _gateways(replicas: int, seconds: float) -> Question:
    base = _b2b("gateways", 0.9, replicas, seconds)
    alone = (Fault(kind="sync", share=1.0, start_s=0.0, seconds=100 * seconds),)
    numbers = (("1", 1, ()), ("4", 4, ()), ("16", 16, ()), ("16, none shares", 16, alone))
    return Question(
        name="gateways",
        title="Many gateways",
        text="b2b-prefix at load 0.9, metrics every second. Routers that share state do so every 0.2 s, or "
        "not at all.",
        varied="gateways",
        policies=BEST,
        scenarios=tuple(
            (word, msgspec.structs.replace(base, gateways=number, faults=faults))
            for word, number, faults in numbers
        ),
    )


def _clients(replicas: int, seconds: float) -> Question:
    lasting = _b2b("clients", 2.0, replicas, seconds)
    spiky = msgspec.structs.replace(
        lasting, traffic=TrafficShape(preset="code-azure23-spiky"), load=0.7, seconds=8 * seconds
    )

    def asked(base: Scenario, **clients: float) -> Scenario:
        traffic = msgspec.structs.replace(base.traffic, clients=clients)
        return msgspec.structs.replace(base, traffic=traffic)

    return Question(
        name="clients",
        title="What refused clients do",
        text="b2b-prefix at load 2 all the time, and code-azure23-spiky at load 0.7, which comes in bursts "
        "of ten times the mean. Who obeys waits exactly as long as Retry-After says; who hammers asks again "
        "in 0.15 s at most. Honesty is the share of first obeyed retries that were admitted.",
        varied="clients",
        policies=(SLUICE,),
        scenarios=(
            ("all leave", asked(lasting, leave=1)),
            ("a fifth obeys", asked(lasting, leave=4, obey=1)),
            ("all obey", asked(lasting, obey=1)),
            ("a third hammers", asked(lasting, leave=1, obey=1, hammer=1)),
            ("bursts, all leave", asked(spiky, leave=1)),
            ("bursts, all obey", asked(spiky, obey=1)),
        ),
    )


def _tenants(replicas: int, seconds: float) -> Question:
    without, abused = (0.0, 1.0, 1.0, 1.0, 1.0), (50.0, 1.0, 1.0, 1.0, 1.0)
    base = Scenario(
        name="tenants",
        traffic=TrafficShape(preset="chat-azure24"),
        load=1.5,
        replicas=replicas,
        seconds=seconds,
    )
    return Question(
        name="tenants",
        title="One tenant at fifty times the others",
        text="chat-azure24 at load 1.5, five tenants; and what the other four get alone. Jain's index is of "
        "what each got over what it could have had by equal shares.",
        varied="tenants",
        policies=(SLUICE, "least-outstanding"),
        scenarios=tuple(
            (
                word,
                msgspec.structs.replace(
                    base, load=load, traffic=msgspec.structs.replace(base.traffic, tenants=shares)
                ),
            )
            for word, shares, load in (
                ("without it", without, base.load * 4 / 54),
                ("one at 50×", abused, base.load),
            )
        ),
    )


def _classes(replicas: int, seconds: float) -> Question:
    mix = {"interactive": 0.2, "default": 0.5, "bulk": 0.3}
    base = Scenario(
        name="classes",
        traffic=TrafficShape(preset="chat-azure24", classes=mix),
        load=1.0,
        replicas=replicas,
        seconds=seconds,
    )
    return Question(
        name="classes",
        title="Classes of urgency",
        text="chat-azure24, a fifth interactive (2 s), half default (10 s), the rest bulk (300 s).",
        varied="load",
        policies=(SLUICE, "least-outstanding"),
        scenarios=tuple((f"{load:g}", msgspec.structs.replace(base, load=load)) for load in (0.9, 1.3)),
    )


def _slow_node(seconds: float) -> Question:
    slow = Fault(kind="slow", share=0.34, start_s=seconds / 3, seconds=10 * seconds)
    base = Scenario(
        name="slow",
        traffic=TrafficShape(preset="chat-azure24"),
        load=0.5,
        replicas=3,
        seconds=10 * seconds,
    )
    return Question(
        name="slow",
        title="One of three replicas is slow",
        text="chat-azure24 at load 0.5 of three engines; from early on one takes three times as long.",
        varied="",
        policies=POLICIES,
        scenarios=(
            ("all well", base),
            ("one slow", msgspec.structs.replace(base, faults=(slow,))),
        ),
    )


def _pauses(replicas: int, seconds: float) -> Question:
    pauses = Fault(kind="pauses", share=1.0, start_s=0.0, seconds=100 * seconds)
    base = Scenario(
        name="pauses",
        traffic=TrafficShape(preset="chat-azure24"),
        load=0.5,
        replicas=replicas,
        # One request in a thousand has to be told.
        seconds=20 * seconds,
        faults=(pauses,),
    )
    alone = msgspec.structs.replace(base, hedging=False)
    return Question(
        name="pauses",
        title="Engines that pause",
        text="chat-azure24 at load 0.5: each engine stands still for 5 s, about every five minutes. Second "
        "attempts are counted over all requests; their work is what was computed for attempts that were "
        "given up, over all work.",
        varied="late requests",
        policies=(SLUICE,),
        scenarios=(("wait", alone), ("are hedged", base)),
    )


def _death(replicas: int, seconds: float) -> Question:
    base = _b2b("death", 0.7, replicas, seconds)

    def struck(kind: str) -> Scenario:
        fault = Fault(kind=kind, share=0.1, start_s=seconds / 2, seconds=5.0)  # type: ignore[arg-type]
        return msgspec.structs.replace(base, faults=(fault,))

    blind = Fault(kind="metrics", share=1.0, start_s=0.0, seconds=10 * seconds)
    return Question(
        name="faults",
        title="When things break",
        text="b2b-prefix at load 0.7. Half-way a tenth of the replicas die and come back cold, or stand "
        "still for 5 s; or no metrics are seen at all.",
        varied="fault",
        policies=BEST,
        scenarios=(
            ("none", base),
            ("death", struck("death")),
            ("stall", struck("stall")),
            ("no metrics", msgspec.structs.replace(base, faults=(blind,))),
        ),
    )

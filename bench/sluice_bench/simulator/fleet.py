"""A whole simulation: gateways, engines, clients, scrapes and faults, put together from settings and a seed.

Each gateway has a balancer of its own and knows of the others nothing but what they share. Engines are
scraped by every gateway, all at once, every `scrape_s`: a reading is up to that old when it is used, and the
corrections for what happened since are the balancer's own. A gateway finds a dead engine by being refused a
connection, or by the next probe.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import msgspec

from sluice_bench.arrivals import NS_PER_S
from sluice_bench.simulator.balancer import Balancer
from sluice_bench.simulator.baseline_router import BaselineRouter
from sluice_bench.simulator.baselines import BASELINES
from sluice_bench.simulator.engine_model import EngineModel
from sluice_bench.simulator.engine_shape import EngineShape
from sluice_bench.simulator.events import Events
from sluice_bench.simulator.faults import PAUSE_S, PAUSES_EVERY_S, SLOWNESS, Fault
from sluice_bench.simulator.gateway_model import GatewayModel
from sluice_bench.simulator.observer import Observer
from sluice_bench.simulator.stopwatch import Stopwatch
from sluice_bench.simulator.tally import Tally
from sluice_bench.simulator.traffic import MODEL, Client, Request, Traffic, TrafficShape
from sluice_bench.workloads.preset_plan import schedule
from sluice_router.router_options import Options
from sluice_router.types import Endpoint, EngineLoad, Reject

SLUICE = "sluice"
POLICIES = (SLUICE, *BASELINES)


class FleetSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What is simulated."""

    policy: str
    """One of `POLICIES`."""
    traffic: TrafficShape
    shape: EngineShape
    replicas: int
    rate_per_s: float
    """Of a preset with sessions: so many users, spread over the first second."""
    requests: int
    """All, those that warm up included."""
    warm_up_requests: int = 0
    """The first ones: they fill caches and teach routers, and are in no figure."""
    warm_up_rate_per_s: float | None = None
    """At which they come; `None`: at the same as all others."""
    seed: int
    gateways: int = 1
    scrape_s: float = 1.0
    probe_s: float = 1.0
    sync_s: float = 0.2
    """Between exchanges of gateways whose balancers share state."""
    faults: tuple[Fault, ...] = ()
    patience_s: float | None = None
    """A client without a first token leaves then."""
    most_tries: int = 4
    max_queue: int = 1000
    """Of each gateway: requests that may wait in it."""
    queue_timeout_s: float = 30.0
    hedging: bool = True
    """Second attempts may be made."""


@runtime_checkable
class Sharing(Protocol):
    """A balancer that tells others of its kind what it does."""

    def export_delta(self, now: float) -> Any:
        """What has changed since the last time."""
        ...

    def apply_delta(self, delta: Any, now: float) -> None:
        """What another one has told."""
        ...


Make = Callable[[FleetSettings, random.Random], Balancer]
"""Makes one gateway's balancer. Raises `ValueError` for a policy that there is not."""


def engine_endpoints(settings: FleetSettings) -> list[Endpoint]:
    """The engines, as routers know them."""
    return [
        Endpoint(
            id=f"engine-{place}",
            backend="engine",
            url=f"http://engine-{place}.invalid",
            models=(MODEL,),
            max_in_flight=settings.shape.max_running,
            hedging=settings.hedging,
        )
        for place in range(settings.replicas)
    ]


def router_options(settings: FleetSettings) -> Options:
    """What the policy `sluice` makes its routers with."""
    return Options(max_queue=settings.max_queue, queue_timeout_s=settings.queue_timeout_s)


def make_balancer(settings: FleetSettings, source: random.Random) -> Balancer:
    """A `Make`: the policy's."""
    endpoints = engine_endpoints(settings)
    if settings.policy == SLUICE:
        return router_options(settings).router(endpoints, source.random)
    if settings.policy not in BASELINES:
        raise ValueError(f"there is no policy {settings.policy!r}; there are {', '.join(POLICIES)}")
    strategy = BASELINES[settings.policy](settings.replicas, settings.shape.kv_tokens, source)
    return BaselineRouter(endpoints, strategy)


class Fleet:
    """One simulation. `clock` gives real nanoseconds, for what deciding costs."""

    def __init__(
        self,
        settings: FleetSettings,
        clock: Callable[[], int],
        balancer: Make = make_balancer,
    ) -> None:
        self.settings = settings
        self.events = Events()
        self.tally = Tally()
        self.stopwatch = Stopwatch(clock)
        self.traffic = Traffic(settings.traffic, settings.seed)
        self.ids = [f"engine-{place}" for place in range(settings.replicas)]
        self.engines = [EngineModel(settings.shape, self.events) for _ in self.ids]
        self._source = random.Random(f"fleet:{settings.seed}")
        by_id = dict(zip(self.ids, self.engines, strict=True))
        self.gateways = [
            GatewayModel(
                balancer(settings, random.Random(f"gateway:{settings.seed}:{place}")),
                by_id, self.events, self.tally, self.stopwatch, self._refused, self._ended,
            )
            for place in range(settings.gateways)
        ]  # fmt: skip
        self.observer = Observer(self)
        self._healthy = [True] * settings.replicas
        self._offsets: tuple[int, ...] = ()

    def run(self) -> None:
        """From the first arrival until the last request is over. Raises `RuntimeError` if one never is."""
        self._plan_arrivals()
        self.events.at(0.0, self._scrape)
        self.events.at(self.settings.probe_s, self._probe)
        self.events.at(1.0, self._observe)
        if all(isinstance(gateway.balancer, Sharing) for gateway in self.gateways):
            self.events.at(self.settings.sync_s, self._sync)
        for fault in self.settings.faults:
            self.events.at(fault.start_s, self._strike, fault)
        self.events.run()
        if self.tally.open or self.traffic.drawn < self.settings.requests:
            raise RuntimeError(f"{self.tally.open} requests never ended")

    @property
    def _over(self) -> bool:
        return not self.tally.open and self.traffic.drawn >= self.settings.requests

    # Clients

    def _plan_arrivals(self) -> None:
        settings = self.settings
        if self.traffic.sessions is not None:
            users = max(1, round(settings.rate_per_s))
            for lane in range(min(users, settings.requests)):
                self.events.at(lane / users, self._next_round, lane)
            return
        self._offsets = _offsets(settings)
        self.events.at(self._offsets[0] / NS_PER_S, self._arrive, 0)

    def _arrive(self, place: int) -> None:
        if place + 1 < len(self._offsets):
            self.events.at(self._offsets[place + 1] / NS_PER_S, self._arrive, place + 1)
        self._open(self.traffic.next())

    def _next_round(self, lane: int) -> None:
        """A session's next prompt, after its user has thought."""
        if self.traffic.drawn >= self.settings.requests:
            return
        request, think_s = self.traffic.next_round(lane)
        self.tally.opened(request)
        self.events.at(self.events.now + think_s, self._arrive_in_session, request)

    def _arrive_in_session(self, request: Request) -> None:
        request.arrived = self.tally.arrived[request.number] = self.events.now
        self._ask(request)

    def _open(self, request: Request) -> None:
        request.arrived = self.events.now
        self.tally.opened(request)
        self._ask(request)

    def _ask(self, request: Request) -> None:
        gateways = self.gateways
        gateway = gateways[0] if len(gateways) == 1 else gateways[int(self._source.random() * len(gateways))]
        gateway.receive(request, self.settings.patience_s)

    def _refused(self, request: Request, reject: Reject) -> None:
        if request.tries < self.settings.most_tries:
            if request.client is Client.OBEY and reject.retry_after_s is not None:
                self.events.at(self.events.now + reject.retry_after_s, self._ask, request)
                return
            if request.client is Client.HAMMER:
                self.events.at(self.events.now + 0.05 + 0.1 * self._source.random(), self._ask, request)
                return
        self.tally.closed(request, reject.outcome.value)
        self._ended(request)

    def _ended(self, request: Request) -> None:
        if request.lane >= 0:
            self._next_round(request.lane)

    # Gateways watch engines and each other

    def _scrape(self, _: object) -> None:
        if self._over:
            return
        hidden = self._out("metrics")
        for place, engine in enumerate(self.engines):
            if engine.alive and place not in hidden:
                load = reading(engine)
                for gateway in self.gateways:
                    gateway.record_load(self.ids[place], load)
        self.events.at(self.events.now + self.settings.scrape_s, self._scrape)

    def _out(self, kind: str) -> range:
        """The replicas that a fault of this kind has now."""
        now = self.events.now
        return next(
            (
                fault.hit(self.settings.replicas)
                for fault in self.settings.faults
                if fault.kind == kind and fault.start_s <= now < fault.end_s
            ),
            range(0),
        )

    def _probe(self, _: object) -> None:
        if self._over:
            return
        for place, engine in enumerate(self.engines):
            if engine.alive is not self._healthy[place]:
                self._healthy[place] = engine.alive
                for gateway in self.gateways:
                    gateway.set_health(self.ids[place], engine.alive)
        self.events.at(self.events.now + self.settings.probe_s, self._probe)

    def _sync(self, _: object) -> None:
        if self._over:
            return
        if not self._out("sync"):
            balancers = [gateway.balancer for gateway in self.gateways]
            sharing = [balancer for balancer in balancers if isinstance(balancer, Sharing)]
            deltas = [balancer.export_delta(self.events.now) for balancer in sharing]
            for teller, delta in enumerate(deltas):
                for place, balancer in enumerate(sharing):
                    if place != teller:
                        balancer.apply_delta(delta, self.events.now)
        self.events.at(self.events.now + self.settings.sync_s, self._sync)

    def _observe(self, _: object) -> None:
        if not self._over:
            self.observer.look()
            self.events.at(self.events.now + 1.0, self._observe)

    # Faults

    def _pause(self, engine: EngineModel, fault: Fault) -> None:
        """Stand still for a while, now and then, until the fault is over."""
        if self._over or self.events.now >= fault.end_s:
            return

        def begin(_: object) -> None:
            engine.freeze(self.events.now + PAUSE_S)
            self._pause(engine, fault)

        self.events.at(self.events.now + self._source.expovariate(1 / PAUSES_EVERY_S), begin)

    def _strike(self, fault: Fault) -> None:
        cold_s = self.settings.shape.cold_start_s
        for place in fault.hit(self.settings.replicas):
            engine = self.engines[place]
            if fault.kind == "death":
                engine.kill()
                self.events.at(fault.end_s + cold_s, _revive, engine)
            elif fault.kind == "stall":
                engine.freeze(fault.end_s)
            elif fault.kind == "pauses":
                self._pause(engine, fault)
            elif fault.kind == "slow":
                engine.slow_down(SLOWNESS)
                self.events.at(fault.end_s, _recover, engine)


def _offsets(settings: FleetSettings) -> tuple[int, ...]:
    """When each request of a preset without sessions arrives, ns."""
    preset, seed, warm = settings.traffic.preset, settings.seed, settings.warm_up_requests
    if settings.warm_up_rate_per_s is None or not warm:
        planned = schedule(preset, settings.requests, seed, settings.rate_per_s)
        assert planned is not None
        return planned.offsets_ns
    slow = schedule(preset, warm, seed + 1_000_003, settings.warm_up_rate_per_s)
    quick = schedule(preset, settings.requests - warm, seed, settings.rate_per_s)
    assert slow is not None
    assert quick is not None
    start = slow.offsets_ns[-1]
    return (*slow.offsets_ns, *(start + offset for offset in quick.offsets_ns))


def _revive(engine: EngineModel) -> None:
    engine.revive()


def _recover(engine: EngineModel) -> None:
    engine.slow_down(1.0)


def reading(engine: EngineModel) -> EngineLoad:
    """What the engine's metrics page would say."""
    kv = engine.kv
    return EngineLoad(
        running=engine.running,
        waiting=len(engine.waiting),
        waiting_uncached_tokens=engine.uncomputed_tokens,
        max_running=engine.shape.max_running,
        kv_used_ratio=engine.kv_used_ratio,
        kv_block_tokens=engine.shape.block_tokens,
        kv_capacity_tokens=kv.capacity * engine.shape.block_tokens,
        prefix_queried_tokens=engine.queried_tokens,
        prefix_hit_tokens=engine.hit_tokens,
        preemptions=engine.preemptions,
        prompt_tokens=engine.queried_tokens,
    )

"""A gateway in simulated time: it asks its balancer, sends to engines, and tells the balancer what became of
it.

It makes the calls that the real gateway makes, in the same order: admit; on a failure before the first token,
retry; at the first token, answered; at the end, settle; and when a first token is late, a second attempt
where the balancer says. Every attempt belongs to one visit, and every visit is settled or refused or
cancelled.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from sluice_bench.simulator.engine_model import EngineModel
from sluice_bench.simulator.events import Events
from sluice_bench.simulator.job import PREFILL, Job
from sluice_bench.simulator.second_try import SecondTry
from sluice_bench.simulator.stopwatch import Stopwatch
from sluice_bench.simulator.tally import BROKEN, COMPLETE, LEFT, OUTPUT_WEIGHT, Tally
from sluice_bench.simulator.traffic import Request
from sluice_router.types import Endpoint, EngineLoad, FailureClass, Reject, Usage

if TYPE_CHECKING:
    from sluice_bench.simulator.balancer import Balancer, Hedges, Stay

Refused = Callable[[Request, Reject], None]
Ended = Callable[[Request], None]


class GatewayModel:
    """One gateway. `refused` and `ended` are the clients' side."""

    def __init__(
        self,
        balancer: Balancer,
        engines: Mapping[str, EngineModel],
        events: Events,
        tally: Tally,
        stopwatch: Stopwatch,
        refused: Refused,
        ended: Ended,
    ) -> None:
        self.balancer = balancer
        self.hedges: Hedges | None = getattr(balancer, "hedges", None)
        self.engines = engines
        self.events = events
        self.tally = tally
        self.stopwatch = stopwatch
        self.refused = refused
        self.ended = ended
        self.backlog: dict[str, int] = {}
        """Waiting requests of each tenant that has some."""
        self._alarm = float("inf")

    def receive(self, request: Request, patience_s: float | None) -> None:
        """A client asks."""
        now = self.events.now
        request.tries += 1
        visit = Visit(self, request)
        self.stopwatch.start()
        visit.stay = stay = self.balancer.admit(request.facts, now, visit.decided)
        self.stopwatch.stop(admitted=True)
        if stay.decision is None:
            visit.wait()
            self.set_alarm()
        else:
            visit.act()
        if patience_s is not None:
            self.events.at(request.arrived + patience_s, visit.lose_patience)

    def set_alarm(self, _: object = None) -> None:
        """Something waits: be there when its time is up."""
        self.stopwatch.start()
        at = self.balancer.expire(self.events.now)
        self.stopwatch.stop()
        if at is not None and at < self._alarm:
            self._alarm = at
            self.events.at(at, self._ring)

    def _ring(self, _: object) -> None:
        self._alarm = float("inf")
        self.set_alarm()

    def set_health(self, endpoint_id: str, healthy: bool) -> None:
        """What a probe found."""
        self.stopwatch.start()
        self.balancer.set_health(endpoint_id, healthy, self.events.now)
        self.stopwatch.stop()

    def record_load(self, endpoint_id: str, load: EngineLoad) -> None:
        """What a scrape found."""
        self.stopwatch.start()
        self.balancer.record_load(endpoint_id, load, self.events.now)
        self.stopwatch.stop()


class Visit(Job):
    """One try of a request at a gateway: the job that an engine gets is the same object."""

    __slots__ = (
        "carrier",
        "engine",
        "first_at",
        "gateway",
        "over",
        "request",
        "second",
        "stay",
        "waiting",
    )

    def __init__(self, gateway: GatewayModel, request: Request) -> None:
        facts = request.facts
        super().__init__(facts.stream_id, facts.shared, request.prompt, request.output)
        self.gateway = gateway
        self.request = request
        self.stay: Stay
        self.engine: EngineModel | None = None
        self.second: SecondTry | None = None
        """Under way beside this one."""
        self.carrier: SecondTry | None = None
        """It was the second attempt that answered."""
        self.first_at = -1.0
        self.waiting = False
        self.over = False

    # The balancer's side

    def wait(self) -> None:
        """It has no decision yet."""
        tenant, backlog = self.request.facts.tenant, self.gateway.backlog
        self.waiting = True
        backlog[tenant] = backlog.get(tenant, 0) + 1

    def _waits_no_more(self) -> None:
        if self.waiting:
            self.waiting = False
            self.gateway.backlog[self.request.facts.tenant] -= 1

    def decided(self) -> None:
        """The balancer has decided on a waiting request."""
        self.gateway.stopwatch.pause()
        self.act()
        self.gateway.stopwatch.start()

    def act(self) -> None:
        """Do what was decided."""
        self._waits_no_more()
        gateway = self.gateway
        while True:
            decision = self.stay.decision
            if decision is None:
                self.wait()
                gateway.set_alarm()
                return
            if isinstance(decision, Reject):
                self._refuse(decision)
                return
            if self._send(decision):
                return
            self._try_elsewhere(FailureClass.UNREACHABLE)

    def _send(self, endpoint: Endpoint) -> bool:
        engine = self.gateway.engines[endpoint.id]
        if not engine.alive:
            return False
        self.engine, self.carrier = engine, None
        engine.submit(self)
        hedges = self.gateway.hedges
        if hedges is not None:
            self.gateway.stopwatch.start()
            due_at = hedges.due_at(self.stay, self.gateway.events.now)
            self.gateway.stopwatch.stop()
            if due_at is not None:
                self.gateway.events.at(due_at, self._try_beside)
        return True

    def _try_elsewhere(self, failure: FailureClass) -> None:
        gateway = self.gateway
        self.engine = None
        gateway.stopwatch.start()
        self.stay.retry(gateway.events.now, failure, self.decided)
        gateway.stopwatch.stop()

    def _try_beside(self, _: object) -> None:
        """The first token is late: make a second attempt, if there is to be one."""
        gateway, hedges = self.gateway, self.gateway.hedges
        if self.over or self.answered or self.engine is None or hedges is None:
            return
        gateway.stopwatch.start()
        endpoint = hedges.begin(self.stay, gateway.events.now)
        if endpoint is not None and not gateway.engines[endpoint.id].alive:
            hedges.failed(self.stay, FailureClass.UNREACHABLE, gateway.events.now)
            endpoint = None
        gateway.stopwatch.stop()
        if endpoint is not None:
            self.second = SecondTry(self, gateway.engines[endpoint.id])
            self.second.engine.submit(self.second)

    def _give_up(self, job: Job, engine: EngineModel) -> None:
        """Another attempt has answered. All of a prompt that was begun counts as computed in vain."""
        if job.state == PREFILL:
            self.gateway.tally.hedged_tokens += max(0, job.prompt - job.hit)
        engine.abort(job)

    def _settle(self, usage: Usage | None, failure: FailureClass | None) -> None:
        gateway = self.gateway
        gateway.stopwatch.start()
        self.stay.settle(gateway.events.now, usage, failure)
        gateway.stopwatch.stop()

    def _refuse(self, reject: Reject) -> None:
        self.over = True
        self.gateway.tally.tried(self.request, admitted=False)
        self.gateway.tally.refused(self.request, reject)
        self.gateway.refused(self.request, reject)

    # The engine's side

    def first_token(self, now: float) -> None:
        """See `Job`."""
        self.first_at = now
        if self.second is not None:
            self._give_up(self.second, self.second.engine)
            self.second = None
        request, gateway = self.request, self.gateway
        assert self.engine is not None
        gateway.tally.tried(request, admitted=True)
        gateway.tally.ttft[request.number] = now - request.arrived + self.engine.shape.overhead_s
        gateway.tally.cached[request.number] = min(self.hit, self.prompt)
        gateway.tally.serve(request.facts.tenant, max(0, self.prompt - self.hit))
        gateway.stopwatch.start()
        self.stay.answered(now)
        gateway.stopwatch.stop()

    def finished(self, now: float) -> None:
        """See `Job`."""
        if self.output > 1:
            self.gateway.tally.itl[self.request.number] = (now - self.first_at) / (self.output - 1)
        usage = Usage(
            prompt_tokens=self.prompt, completion_tokens=self.output, cached_tokens=min(self.hit, self.prompt)
        )
        self.gateway.tally.serve(self.request.facts.tenant, OUTPUT_WEIGHT * self.output)
        self._settle(usage, None)
        self._end(COMPLETE)

    def broken(self, now: float) -> None:
        """See `Job`."""
        if self.answered:
            self._settle(None, FailureClass.BROKEN)
            self._end(BROKEN)
            return
        self.generated = self.remaining = self.recomputed = 0
        second, self.carrier = self.second, None
        self._try_elsewhere(FailureClass.BROKEN)
        if second is None:
            self.act()
        else:  # it takes over, wherever it has got to
            self.engine, self.carrier, self.second = second.engine, second, None

    def second_answered(self, now: float) -> None:
        """The second attempt has its first token."""
        if self.carrier is None:
            second, hedges, first = self.second, self.gateway.hedges, self.engine
            assert second is not None and hedges is not None and first is not None
            self.gateway.stopwatch.start()
            hedges.won(self.stay, now)
            self.gateway.stopwatch.stop()
            self._give_up(self, first)
            self.engine, self.carrier, self.second = second.engine, second, None
        assert self.carrier is not None
        self.answered, self.hit = True, self.carrier.hit
        self.first_token(now)

    def second_broken(self, second: SecondTry, now: float) -> None:
        """The second attempt's engine has died."""
        if self.carrier is second:
            self.broken(now)
            return
        hedges, self.second = self.gateway.hedges, None
        assert hedges is not None
        self.gateway.stopwatch.start()
        hedges.failed(self.stay, FailureClass.BROKEN, now)
        self.gateway.stopwatch.stop()

    # The client's side

    def lose_patience(self, _: object) -> None:
        """The client leaves unless it has been answered, at least in part."""
        if self.over or self.answered:
            return
        now, gateway = self.gateway.events.now, self.gateway
        if self.engine is not None:
            self.engine.abort(self.carrier or self)
            if self.second is not None:
                self.second.engine.abort(self.second)
            self._settle(None, FailureClass.CLIENT_GONE)
        else:
            gateway.stopwatch.start()
            self.stay.cancel(now)
            gateway.stopwatch.stop()
        self._waits_no_more()
        gateway.tally.tried(self.request, admitted=False)
        self._end(LEFT)

    def _end(self, ending: str) -> None:
        self.over = True
        tally, number = self.gateway.tally, self.request.number
        tally.waited[number] = self.stay.waited_s
        tally.made[number] = self.generated
        tally.closed(self.request, ending)
        self.gateway.ended(self.request)

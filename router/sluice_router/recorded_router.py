"""A router whose calls and decisions are written down, line by line (`decision_log.py`).

`RecordedRouter` has the interface of a `Router` and changes nothing that is decided; a router that is not
recorded knows nothing of it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from sluice_router.breaker import BreakerState
from sluice_router.decision_log import Call, Drawn, Ended, Line, Start, decided, encode, is_over
from sluice_router.hedging import Hedges
from sluice_router.inspection import RouterDetails
from sluice_router.matching import Mismatch
from sluice_router.router_options import Options
from sluice_router.snapshot import RouterSnapshot
from sluice_router.ticket import Notify, Ticket
from sluice_router.types import Endpoint, EngineLoad, FailureClass, RequestFacts, Usage


class Recorder:
    """Writes down calls and what comes of them, and knows the numbers of the tickets that are open."""

    def __init__(self, write: Callable[[bytes], None], random: Callable[[], float]) -> None:
        """`write` gets each line, at once and in order; `random` is what the router would draw."""
        self._write = write
        self._random = random
        self._numbers: dict[Ticket, int] = {}
        """Of the tickets that are open, or whose end was not told yet."""
        self._issued = 0
        self._depth = 0

    def issue(self) -> int:
        """The number of the next ticket."""
        self._issued += 1
        return self._issued

    def note(self, ticket: Ticket, number: int) -> None:
        """The ticket has this number."""
        self._numbers[ticket] = number

    def number(self, ticket: Ticket) -> int | None:
        """A ticket's number; `None` once nothing can come of it any more."""
        return self._numbers.get(ticket)

    def call(self, name: str, args: tuple[Any, ...], do: Callable[[], Any]) -> Any:
        """Write down a call, and do it."""
        self.line(Call(name=name, args=args, depth=self._depth))
        self._depth += 1
        try:
            return do()
        except Exception as error:
            self.line(Ended(raised=type(error).__name__))
            raise
        finally:
            self._depth -= 1

    def of_ticket(self, name: str, ticket: Ticket, rest: tuple[Any, ...], do: Callable[[], Any]) -> Any:
        """One of a ticket's verbs. On a ticket whose end is known it changes nothing, and is not recorded."""
        number = self._numbers.get(ticket)
        if number is None:
            return do()
        returned = self.call(name, (number, *rest), do)
        self._forget(ticket)
        return returned

    def telling(self, told: list[Ticket], notify: Notify) -> Notify:
        """A `notify` that writes down what has been decided first. `told` has the ticket by then."""

        def tell() -> None:
            self.tell(told[0])
            notify()

        return tell

    def tell(self, ticket: Ticket) -> None:
        """Write down how things stand with an open ticket."""
        self.line(decided(self._numbers[ticket], ticket))
        self._forget(ticket)

    def line(self, line: Line) -> None:
        """Write a line."""
        self._write(encode(line))

    def draw(self) -> float:
        """A random number."""
        number = self._random()
        self.line(Drawn(number=number))
        return number

    def _forget(self, ticket: Ticket) -> None:
        """Nothing will come of it any more, once it is closed and nobody has to be told."""
        if is_over(ticket):
            self._numbers.pop(ticket, None)


class RecordedHedges:
    """The second attempts of a router, written down; see `hedging.Hedges`."""

    def __init__(self, hedges: Hedges, recorder: Recorder) -> None:
        self._hedges = hedges
        self._recorder = recorder

    def due_at(self, ticket: Ticket, now: float) -> float | None:
        """See `Hedges.due_at`."""
        if self._recorder.number(ticket) is None:
            return None
        do = partial(self._hedges.due_at, ticket, now)
        due_at: float | None = self._recorder.of_ticket("hedges.due_at", ticket, (now,), do)
        self._recorder.line(Ended(returned=due_at))
        return due_at

    def begin(self, ticket: Ticket, now: float) -> Endpoint | None:
        """See `Hedges.begin`."""
        if self._recorder.number(ticket) is None:
            return None
        do = partial(self._hedges.begin, ticket, now)
        endpoint: Endpoint | None = self._recorder.of_ticket("hedges.begin", ticket, (now,), do)
        self._recorder.line(Ended(returned=None if endpoint is None else endpoint.id))
        return endpoint

    def won(self, ticket: Ticket, now: float) -> None:
        """See `Hedges.won`."""
        self._recorder.of_ticket("hedges.won", ticket, (now,), partial(self._hedges.won, ticket, now))
        if self._recorder.number(ticket) is not None:
            self._recorder.tell(ticket)

    def failed(self, ticket: Ticket, failure: FailureClass, now: float) -> None:
        """See `Hedges.failed`."""
        do = partial(self._hedges.failed, ticket, failure, now)
        self._recorder.of_ticket("hedges.failed", ticket, (failure, now), do)


class RecordedRouter:
    """A router whose calls and decisions are written down. `write` gets each line, at once and in order."""

    def __init__(
        self,
        endpoints: Sequence[Endpoint],
        write: Callable[[bytes], None],
        *,
        random: Callable[[], float],
        options: Options,
    ) -> None:
        """Raises `ValueError` as `Router` does."""
        self._recorder = Recorder(write, random)
        self._router = options.router(endpoints, self._recorder.draw)
        self.hedges = RecordedHedges(self._router.hedges, self._recorder)
        self._recorder.line(Start(endpoints=tuple(endpoints), options=options))

    # What changes nothing

    @property
    def endpoints(self) -> int:
        """See `Router.endpoints`."""
        return self._router.endpoints

    def backends(self) -> tuple[str, ...]:
        """See `Router.backends`."""
        return self._router.backends()

    def models(self, backend: str | None = None) -> tuple[str, ...]:
        """See `Router.models`."""
        return self._router.models(backend)

    def mismatch(self, facts: RequestFacts) -> Mismatch | None:
        """See `Router.mismatch`."""
        return self._router.mismatch(facts)

    def snapshot(self) -> RouterSnapshot:
        """See `Router.snapshot`."""
        return self._router.snapshot()

    def details(self, now: float) -> RouterDetails:
        """See `Router.details`."""
        return self._router.details(now)

    # A request's stay

    def admit(self, facts: RequestFacts, now: float, notify: Notify) -> Ticket:
        """See `Router.admit`."""
        recorder = self._recorder
        number = recorder.issue()
        told: list[Ticket] = []
        ticket: Ticket = recorder.call(
            "admit", (facts, now), lambda: self._router.admit(facts, now, recorder.telling(told, notify))
        )
        told.append(ticket)
        ticket.hand_to(self)
        recorder.note(ticket, number)
        recorder.tell(ticket)
        return ticket

    def cancel(self, ticket: Ticket, now: float) -> None:
        """See `Ticket.cancel`."""
        self._recorder.of_ticket("cancel", ticket, (now,), lambda: self._router.cancel(ticket, now))

    def settle(self, ticket: Ticket, now: float, usage: Usage | None, failure: FailureClass | None) -> None:
        """See `Ticket.settle`."""
        self._recorder.of_ticket(
            "settle", ticket, (now, usage, failure), lambda: self._router.settle(ticket, now, usage, failure)
        )

    def answered(self, ticket: Ticket, now: float) -> None:
        """See `Ticket.first_token`."""
        self._recorder.of_ticket("answered", ticket, (now,), lambda: self._router.answered(ticket, now))

    def retry(self, ticket: Ticket, now: float, failure: FailureClass, notify: Notify) -> None:
        """See `Ticket.retry`."""
        self._again(
            "retry", ticket, (now, failure), notify, partial(self._router.retry, ticket, now, failure)
        )

    def resume(
        self, ticket: Ticket, now: float, failure: FailureClass, facts: RequestFacts, notify: Notify
    ) -> None:
        """See `Ticket.resume`."""
        do = partial(self._router.resume, ticket, now, failure, facts)
        self._again("resume", ticket, (now, failure, facts), notify, do)

    def _again(
        self, name: str, ticket: Ticket, rest: tuple[Any, ...], notify: Notify, do: Callable[[Notify], None]
    ) -> None:
        recorder = self._recorder
        number = recorder.number(ticket)
        if number is None:
            do(notify)
            return
        telling = recorder.telling([ticket], notify)
        recorder.call(name, (number, *rest), lambda: do(telling))
        recorder.tell(ticket)

    # What the outside reports

    def expire(self, now: float) -> float | None:
        """See `Router.expire`."""
        returned: float | None = self._recorder.call("expire", (now,), lambda: self._router.expire(now))
        self._recorder.line(Ended(returned=returned))
        return returned

    def set_health(self, endpoint_id: str, healthy: bool, now: float) -> None:
        """See `Router.set_health`."""
        self._report("set_health", endpoint_id, healthy, now)

    def set_draining(self, endpoint_id: str, draining: bool, now: float) -> None:
        """See `Router.set_draining`."""
        self._report("set_draining", endpoint_id, draining, now)

    def force_breaker(self, endpoint_id: str, state: BreakerState | None, now: float) -> None:
        """See `Router.force_breaker`."""
        self._report("force_breaker", endpoint_id, state, now)

    def set_models(self, endpoint_id: str, models: Sequence[str], now: float) -> None:
        """See `Router.set_models`."""
        self._report("set_models", endpoint_id, tuple(models), now)

    def set_quant(self, endpoint_id: str, quant: str, now: float) -> None:
        """See `Router.set_quant`."""
        self._report("set_quant", endpoint_id, quant, now)

    def record_load(self, endpoint_id: str, load: EngineLoad, now: float) -> None:
        """See `Router.record_load`."""
        self._report("record_load", endpoint_id, load, now)

    def _report(self, name: str, *args: Any) -> None:
        self._recorder.call(name, args, lambda: getattr(self._router, name)(*args))

"""Two attempts at one request: when, where and whether is the router's (`sluice_router/hedging.py`); here
they run.

The first attempt runs in the request's own task, so that a request which is never hedged costs a timer and
nothing else. The second one has a task. What either makes is held back until it has content (or, of a plain
answer, all of it); who comes first asks here, is told yes, and writes to the client; the other is cancelled
in the same moment, which closes its connection and makes the engine stop. So there is one answer, one usage
and one price.

- A failure of one leaves the other. When the first one fails, the second takes its place in the router, no
  retry is spent, and what it ends with is what the request ends with.
- A client that leaves cancels both, and they are waited for.
- The second attempt keeps a record of its own, which becomes the request's when it has answered; so does
  what it told the client, for whoever goes on with its stream if that is cut (`resumption/`).

The cancellation of the first attempt looks to its task like any other. It is told apart by asyncio's count of
them: if it is the only one, it is taken back (`Task.uncancel`, as `asyncio.timeout` does).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from functools import partial

from sluice_gateway.admission import Admission
from sluice_gateway.attempt import Attempts, Job
from sluice_gateway.engines import Engine
from sluice_gateway.errors import Problem, failure_class
from sluice_gateway.exchange import Exchange
from sluice_router.failure import is_the_endpoints
from sluice_router.ticket import Ticket
from sluice_router.types import Endpoint

NoteFailure = Callable[[Endpoint, Problem], None]
Found = Problem | BaseException | None
"""How an attempt ended: well, with a failure, or by being interrupted."""


class Hedging:
    """Runs attempts, two where the router says so. One for the whole gateway."""

    def __init__(
        self,
        admission: Admission,
        engines: Mapping[str, Engine],
        attempts: Attempts,
        note_failure: NoteFailure,
    ) -> None:
        """`engines` by endpoint id; `note_failure` is told of attempts that another one made up for."""
        self._admission = admission
        self._engines = engines
        self._attempts = attempts
        self._note_failure = note_failure

    async def run(self, engine: Engine, job: Job, ticket: Ticket) -> Problem | None:
        """Have the ticket's engine answer, or another one if it is late; `None` when the client has its whole
        answer."""
        # What was opened for another dialect has a state that two attempts would share.
        wait_s = None if job.opened is not None else self._admission.hedge_in(ticket)
        if wait_s is None:
            return await self._attempts.run(engine, job)
        race = Race(self._admission, ticket, job, wait_s, self._second)
        found: Found
        try:
            found = await self._attempts.run(engine, job)
        except BaseException as error:
            found = error
        if not race.alone:
            found = await race.conclude(found, self._note_failure)
        race.close()
        if isinstance(found, BaseException):
            raise found
        return found

    async def _second(self, race: Race, endpoint: Endpoint, job: Job) -> Problem | None:
        found = await self._attempts.run(self._engines[endpoint.id], job)
        if found is not None and race.failed(found):
            self._note_failure(endpoint, found)
        return found


class Race:
    """One request that may get a second attempt."""

    def __init__(
        self,
        admission: Admission,
        ticket: Ticket,
        job: Job,
        wait_s: float,
        attempt: Callable[[Race, Endpoint, Job], object],
    ) -> None:
        """Begins to wait, from within the first attempt's task. `attempt` makes the second's coroutine."""
        task = asyncio.current_task()
        assert task is not None
        self._admission = admission
        self._ticket = ticket
        self._job = job
        self._wait_s = wait_s
        self._attempt = attempt
        self._first = task
        self._upstream_s = job.exchange.upstream_s
        self._second: asyncio.Task[Problem | None] | None = None
        self._other: Job | None = None
        """The second attempt's."""
        self._endpoint: Endpoint | None = None
        self._answered = False
        """One of the two has been told that it is the one."""
        self._won = False
        """It was the second."""
        self._first_over = False
        job.contend = self._first_answers
        self._timer = asyncio.get_running_loop().call_later(wait_s, self._begin)

    @property
    def alone(self) -> bool:
        """There was no second attempt."""
        return self._second is None

    def close(self) -> None:
        """The request goes on without a second attempt, or has ended."""
        self._timer.cancel()
        self._job.contend = None

    def _begin(self) -> None:
        """The first token is late."""
        endpoint = None if self._answered else self._admission.hedge(self._ticket)
        if endpoint is None:
            return
        self._endpoint = endpoint
        self._other = self._second_job(self._job)
        coroutine = self._attempt(self, endpoint, self._other)
        self._second = asyncio.get_running_loop().create_task(coroutine)  # type: ignore[arg-type]

    def _second_job(self, job: Job) -> Job:
        told = job.exchange
        record = Exchange(told.request_id, told.kind, told.path, told.started_s)
        return Job(
            record,
            job.client,
            job.body,
            job.facts,
            job.headers,
            model=job.model,
            content_type=job.content_type,
            on_content=partial(self._admission.first_token, self._ticket) if job.facts.stream else None,
            contend=self._second_answers,
            keeps=job.keeps,
        )

    def _first_answers(self) -> bool:
        if self._answered:
            return False
        self._answered = True
        self._timer.cancel()
        if self._second is not None:
            self._second.cancel()
        return True

    def _second_answers(self) -> bool:
        if self._answered:
            return False
        self._answered = self._won = True
        if not self._first_over:
            self._admission.hedge_won(self._ticket)
            self._first.cancel()
        self._become()
        return True

    def _become(self) -> None:
        """The second attempt's record is the request's."""
        other, endpoint, exchange = self._other, self._endpoint, self._job.exchange
        assert other is not None and endpoint is not None
        self._job.told, record = other.told, other.exchange
        exchange.backend, exchange.endpoint, exchange.quant = endpoint.backend, endpoint.id, endpoint.quant
        exchange.route = self._ticket.route
        exchange.upstream_s = self._upstream_s + self._wait_s + record.upstream_s
        exchange.usage, exchange.usage_is_exact = record.usage, record.usage_is_exact
        exchange.first_token_s = record.first_token_s

    def failed(self, found: Problem) -> bool:
        """The second attempt has ended with a failure: whether it is to be held against its engine here, and
        not by whoever waits for it."""
        if self._answered or self._first_over:
            return False
        self._admission.hedge_failed(self._ticket, failure_class(found))
        return True

    async def conclude(self, found: Found, note_failure: NoteFailure) -> Found:
        """The first attempt has ended: wait for what the second one still is. How the request ends."""
        second = self._second
        assert second is not None
        if self._won:
            if isinstance(found, BaseException) and self._first.uncancel() > 0:
                await _end(second)  # the client has left, too
                self._become()
                return found
            return await self._follow(second)
        if isinstance(found, Problem) and not self._answered and not second.done():
            failure, endpoint = failure_class(found), self._ticket.endpoint
            if is_the_endpoints(failure) and endpoint is not None:
                note_failure(endpoint, found)
                self._first_over = True
                await self._admission.retry(self._ticket, failure)
                return await self._follow(second)
        await _end(second)
        return found

    async def _follow(self, second: asyncio.Task[Problem | None]) -> Found:
        found: Found
        try:
            found = await second
        except BaseException as error:
            found = error
        self._become()
        return found


async def _end(task: asyncio.Task[Problem | None]) -> None:
    """Cancel a task and wait until it holds nothing any more."""
    task.cancel()
    await asyncio.wait((task,))
    if not task.cancelled():
        task.exception()

"""Streams that were cut, and what becomes of them.

Each counts once: `completed` by another engine, `refused` as unsafe, `exhausted` for lack of another engine,
of attempts or of the budget of retries, or `failed` when whoever went on failed in a way that is not retried.
A client that leaves meanwhile counts nowhere.
"""

from __future__ import annotations

from collections.abc import Callable

from sluice_gateway.attempt import Job
from sluice_gateway.errors import Problem, failure_class
from sluice_gateway.resumption import delivered, rest
from sluice_gateway.resumption.delivered import Delivered
from sluice_gateway.resumption.splice import Splice
from sluice_gateway.resumption.told import Rest, Told
from sluice_router.failure import may_retry
from sluice_router.resumption import Cut, facts_of_rest, unsafe
from sluice_router.ticket import Ticket
from sluice_router.types import FailureClass, RequestFacts

COMPLETED, REFUSED, EXHAUSTED, FAILED = RESULTS = ("completed", "refused", "exhausted", "failed")


class Resumptions:
    """Decides for one gateway which streams go on."""

    def __init__(
        self, enabled: bool, total_s: float, clock: Callable[[], float], count: Callable[[str], None]
    ) -> None:
        """`total_s`: what the whole answer may take. `count` is told each result."""
        self.enabled = enabled
        self._total_s = total_s
        self._clock = clock
        self._count = count

    def begin(self, job: Job, ticket: Ticket, found: Problem) -> RequestFacts | None:
        """Have the job ask for the rest of what `found` has cut. Returns what the router has to know of that;
        `None` when the stream ends here."""
        endpoint, told = ticket.endpoint, job.told
        if not job.facts.stream:
            return None
        if not self.enabled or not may_retry(failure_class(found)):
            self._end(job, FAILED, resumed_only=True)
            return None
        if endpoint is None or told is None:
            self._end(job, REFUSED)
            return None
        text = delivered.read(told.transcript)
        cut = self._cut(job, told, text)
        if unsafe(cut) is not None:
            self._end(job, REFUSED)
            return None
        job.rest = Rest(
            told=told,
            body=rest.with_text(told.kind, told.original, cut.text, cut.tokens),
            splice=Splice(text.envelope, cut.tokens, _prompt_tokens(job, told), begun=cut.text != ""),
            left_s=cut.left_s,
            cause=found if job.rest is None else job.rest.cause,
        )
        if job.trace is not None:
            job.trace.note_resumption(endpoint.id, cut.tokens)
        return facts_of_rest(ticket.facts, cut, ticket.model, endpoint)

    def complete(self, job: Job) -> None:
        """The client has its whole answer."""
        self._end(job, COMPLETED, resumed_only=True)

    def exhaust(self, job: Job) -> None:
        """Nobody is left to go on."""
        self._end(job, EXHAUSTED, resumed_only=True)

    def outcome(self, job: Job, found: Problem) -> Problem:
        """A failure as the client is told of it: that an engine does not go on as it was asked to is not the
        client's mistake, and the cause is what cut the stream."""
        if job.rest is not None and failure_class(found) is FailureClass.CALLER:
            return job.rest.cause
        return found

    def _end(self, job: Job, result: str, *, resumed_only: bool = False) -> None:
        if job.rest is not None or not resumed_only:
            self._count(FAILED if result == REFUSED and job.rest is not None else result)

    def _cut(self, job: Job, told: Told, text: Delivered) -> Cut:
        asked = rest.read(told.kind, told.original)
        left_s = self._total_s - (self._clock() - job.exchange.started_s)
        if asked is None:
            return Cut(kind=told.kind, read=False, text="", tokens=0, left_s=left_s)
        tokens = text.tokens if told.usage is None else told.usage.completion_tokens
        return Cut(
            kind=told.kind,
            read=text.read,
            kept=told.transcript.whole,
            text=text.text,
            tokens=tokens,
            counted=text.counted or told.usage is not None,
            finished=text.finished,
            calls=text.calls,
            reasoning=text.reasoning,
            thinks=asked.thinks,
            unknown=asked.unknown,
            guided=asked.guided,
            several=asked.several,
            logprobs=asked.logprobs or text.logprobs,
            penalties=asked.penalties,
            one_prompt=asked.one_prompt,
            max_tokens=asked.max_tokens,
            stops=asked.stops,
            left_s=left_s,
        )


def _prompt_tokens(job: Job, told: Told) -> int:
    """The prompt's, without what came behind it; an estimate, unless an engine told."""
    return job.facts.prompt_tokens_estimate if told.usage is None else told.usage.prompt_tokens

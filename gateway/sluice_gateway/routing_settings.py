"""The sections `admission`, `failover` and `aliases` of `sluice.yaml`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Annotated

from msgspec import Meta

from sluice_gateway.settings_base import Count, Name, Quant, Seconds, Section
from sluice_router.admission_policy import AdmissionPolicy
from sluice_router.failure import Failover
from sluice_router.types import Choice


class AdmissionSettings(Section, frozen=True, kw_only=True):
    """How long a first token may take, and how much is sent to an engine. A request whose first token would
    come later, by what was measured of the engines, gets 429 at once instead of a late answer; while too
    little was measured nothing is refused. There should be no need to set any of it."""

    interactive_ttft_s: Annotated[
        Seconds,
        Meta(
            description="Seconds to the first token for requests with `X-Priority: interactive`."
            " `X-SLO-TTFT-Ms` wins over it. The differences between the three are how long a class lets more"
            " urgent ones go first."
        ),
    ] = 2.0
    default_ttft_s: Annotated[Seconds, Meta(description="The same for `default`.")] = 10.0
    bulk_ttft_s: Annotated[Seconds, Meta(description="The same for `bulk`.")] = 300.0
    queued_prefill_s: Annotated[
        Seconds,
        Meta(
            description="Seconds of prompts that an engine may have queued inside it; more wait in the"
            " gateway, where the order is kept."
        ),
    ] = 1.0
    kv_share: Annotated[
        float,
        Meta(
            gt=0,
            le=1,
            description="Share of an engine's KV cache that requests are sent for. Holds for engines that"
            " say how large theirs is.",
        ),
    ] = 0.92

    def mistake(self) -> tuple[str, str] | None:
        """(key, what is wrong with it), if a class has less time than a more urgent one."""
        times = {
            "interactive_ttft_s": self.interactive_ttft_s,
            "default_ttft_s": self.default_ttft_s,
            "bulk_ttft_s": self.bulk_ttft_s,
        }
        for (urgent, urgent_s), (less, less_s) in pairwise(times.items()):
            if less_s < urgent_s:
                return (
                    less,
                    f"must not be less than '{urgent}' ({urgent_s:g}), which is for more urgent requests",
                )
        return None

    def policy(self, max_queue_tokens: int | None, max_queue_bytes: int | None) -> AdmissionPolicy:
        """The same for the router, with the queue's bounds."""
        return AdmissionPolicy(
            interactive_ttft_s=self.interactive_ttft_s,
            default_ttft_s=self.default_ttft_s,
            bulk_ttft_s=self.bulk_ttft_s,
            queued_prefill_s=self.queued_prefill_s,
            kv_share=self.kv_share,
            max_queue_tokens=max_queue_tokens,
            max_queue_bytes=max_queue_bytes,
        )


class FailoverSettings(Section, frozen=True, kw_only=True):
    """What happens when engines fail. What is the request's own fault, or the client's who left, does not
    count."""

    max_attempts: Annotated[
        Count,
        Meta(
            description="Endpoints that one request may be tried on when they fail before its first byte was"
            " sent to the client, or amid a stream that can be resumed."
        ),
    ] = 3
    retry_budget: Annotated[
        float,
        Meta(
            ge=0,
            le=1,
            description="Retries that all requests together may cause, as a share of the requests of the last"
            " ten seconds. A few are always allowed.",
        ),
    ] = 0.2
    hedge_share: Annotated[
        float,
        Meta(
            ge=0,
            le=0.1,
            description="Second attempts for requests whose first token is late, as a share of the requests"
            " of the last five minutes, and of their work. 0: none. Only between backends with `hedging`.",
        ),
    ] = 0.02
    resume_streams: Annotated[
        bool,
        Meta(
            description="Whether a stream of plain text goes on at another endpoint when its own dies amid"
            " the answer, where that is safe."
        ),
    ] = True
    breaker_failures: Annotated[
        Count,
        Meta(description="Failures in a row after which an endpoint gets no more requests for a while."),
    ] = 5
    breaker_open_s: Annotated[
        Seconds,
        Meta(
            description="How long. Then one request tries it out; each time that fails the pause doubles, up"
            " to twelve times this."
        ),
    ] = 5.0

    def policy(self) -> Failover:
        """The same for the router."""
        return Failover(
            max_attempts=self.max_attempts,
            retry_ratio=self.retry_budget,
            breaker_failures=self.breaker_failures,
            breaker_open_s=self.breaker_open_s,
            breaker_max_open_s=12 * self.breaker_open_s,
        )


class DecisionLogSettings(Section, frozen=True, kw_only=True):
    """Every call into the router and every decision is written down, for `sluice replay-decisions`. It holds
    names of tenants, models and sessions, sizes, and hashes of prompts, never their text."""

    folder: Annotated[
        str,
        Meta(
            min_length=1,
            description="Where; it is made if need be. Each process writes a file of its own, and another one"
            " after a reload that changes engines or queue.",
        ),
    ]
    max_bytes: Annotated[
        Count,
        Meta(
            description="A file that has grown to this size ends, for a log can be replayed only from its"
            " start. A request takes about 1 kB, and 20 bytes for every 64 tokens of its prompt."
        ),
    ] = 268_435_456
    files: Annotated[
        Count, Meta(description="Files that are kept; when one more begins, the oldest is removed.")
    ] = 8


class AliasTarget(Section, frozen=True, kw_only=True):
    """One model that an alias stands for. Clients ask for the alias; the first target that has a healthy
    engine serves, the next ones are fallbacks. Engines are asked for the target's model."""

    model: Annotated[str, Meta(min_length=1, description="The model id to ask the engine for.")]
    backend: Annotated[Name | None, Meta(description="Only on this backend. Absent: on any that has it.")] = (
        None
    )
    quant: Annotated[Quant | None, Meta(description="Only with this quantization. Absent: with any.")] = None


Aliases = Mapping[str, Sequence[AliasTarget]]


def choices(aliases: Aliases) -> dict[str, tuple[Choice, ...]]:
    """The aliases as the router takes them."""
    return {
        name: tuple(Choice(model=t.model, backend=t.backend, quant=t.quant) for t in targets)
        for name, targets in aliases.items()
    }


def mistakes(
    aliases: Aliases, models: Mapping[str, Sequence[str]]
) -> list[tuple[tuple[str | int, ...], str]]:
    """(where in the section, what is wrong there). `models`: those configured, by backend."""
    known = {model: backend for backend, names in models.items() for model in names}
    found: list[tuple[tuple[str | int, ...], str]] = []
    for name, targets in aliases.items():
        if not name:
            found.append(((name,), "has no name; give the model id that clients are to write"))
        if name in known:
            taken = f"is already the id of a model of backend '{known[name]}'; choose another name"
            found.append(((name,), taken))
        if not targets:
            found.append(((name,), "has no target; give a list of at least one {model: ID}"))
        for index, target in enumerate(targets):
            where = (name, index)
            if target.backend is not None and target.backend not in models:
                valid = ", ".join(models)
                text = f"there is no backend '{target.backend}'; there are: {valid}"
                found.append(((*where, "backend"), text))
            if target.model in aliases:
                text = f"'{target.model}' is an alias itself; name a model"
                found.append(((*where, "model"), text))
    return found

"""Audits a server: asks what no honest server need fear, and gathers the findings.

All questions are asked one after another, so that no answer waits for another one. Prompts come from the
corpus, tagged by the seed; a new seed makes prompts that nobody has asked before.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Sequence
from random import Random

import msgspec

from sluice_bench.api_calls import Server, answers, token_ids
from sluice_bench.audit.answer_lengths import answer_lengths
from sluice_bench.audit.cached_answers import cached_answers
from sluice_bench.audit.finding import AuditRecord, Finding
from sluice_bench.audit.seeds import CHECK as SEED
from sluice_bench.audit.seeds import seeds
from sluice_bench.audit.streams import Refused, Stream, ask, chat, takes_logprobs
from sluice_bench.audit.token_counts import Recount, chunks_and_tokens, usage_and_tokenize
from sluice_bench.workloads import suites
from sluice_bench.workloads.corpus import Corpus

SEED_TRIALS = 4
SEED_TOKENS = 24


class AuditSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Who is audited, and how much is asked."""

    server: Server
    seed: int
    pairs: int = 8
    """Of a fresh prompt and a repeated one."""
    max_tokens: int = 64
    command: str = ""


STEPS = 3
"""How many times `audit` tells its progress."""


def audit(settings: AuditSettings, corpus: Corpus, on_step: Callable[[str], None]) -> AuditRecord:
    """Ask and judge. Raises `ApiFailed` when the server gives no answers at all, `CorpusError`."""
    started = datetime.datetime.now(datetime.UTC)
    source = Random(settings.seed)
    prompts = _prompts(settings, corpus)
    on_step("fresh and repeated prompts")
    pairs = _pairs(settings, prompts, source)
    fresh = [stream for stream, _ in pairs]
    on_step("seeds")
    seeded = _seeds(settings, prompts[-SEED_TRIALS:])
    on_step("counting again")
    recounts = _recounts(settings.server, prompts[2 : 2 + settings.pairs], fresh)
    return AuditRecord(
        command=settings.command,
        started_utc=started.isoformat(timespec="seconds"),
        url=settings.server.target.url,
        model=settings.server.model,
        seed=settings.seed,
        findings=(
            cached_answers(pairs, source),
            answer_lengths(fresh),
            seeded,
            chunks_and_tokens(fresh),
            usage_and_tokenize(recounts),
        ),
    )


def _prompts(settings: AuditSettings, corpus: Corpus) -> list[str]:
    """One to try with, the repeated one, the fresh ones, and those for seeds."""
    count = 2 + settings.pairs + SEED_TRIALS
    items = suites.build(corpus, "short", count, settings.seed).items
    return [item.body["messages"][-1]["content"] for item in items]


def _pairs(settings: AuditSettings, prompts: Sequence[str], source: Random) -> list[tuple[Stream, Stream]]:
    """In turn; a coin says which of a pair comes first."""
    server = settings.server
    extra = {"logprobs": True} if takes_logprobs(server, prompts[0]) else {}

    def body(prompt: str) -> dict[str, object]:
        return chat(prompt, settings.max_tokens, temperature=0, **extra)

    again, fresh = prompts[1], prompts[2 : 2 + settings.pairs]
    order = [source.random() < 0.5 for _ in fresh]
    bodies = [body(again)]
    for prompt, fresh_first in zip(fresh, order, strict=True):
        bodies += [body(prompt), body(again)] if fresh_first else [body(again), body(prompt)]
    streams = ask(server, bodies)[1:]
    found = zip(streams[::2], streams[1::2], order, strict=True)
    return [(one, other) if fresh_first else (other, one) for one, other, fresh_first in found]


def _seeds(settings: AuditSettings, prompts: Sequence[str]) -> Finding:
    chosen = (settings.seed % 2**31, settings.seed % 2**31, settings.seed % 2**31 + 1)
    bodies = [chat(prompt, SEED_TOKENS, temperature=1, seed=seed) for prompt in prompts for seed in chosen]
    try:
        found = ask(settings.server, bodies)
    except Refused as error:
        return Finding(check=SEED, verdict="cannot tell", evidence=f"A seed is refused. {error}")
    return seeds(list(zip(found[::3], found[1::3], found[2::3], strict=True)))


def _recounts(server: Server, prompts: Sequence[str], streams: Sequence[Stream]) -> list[Recount] | None:
    """`None` when there is no `/tokenize`."""
    bodies = [{"messages": [{"role": "user", "content": prompt}]} for prompt in prompts]
    counted = answers(server, "/tokenize", bodies)
    texts = token_ids(server, [stream.text or "" for stream in streams], special=False)
    if texts is None or not all(answer.good for answer in counted):
        return None
    return [
        Recount(
            stream=stream,
            prompt=len(answer.decoded(_Tokens).tokens),
            text=None if stream.text is None else len(ids),
        )
        for stream, answer, ids in zip(streams, counted, texts, strict=True)
    ]


class _Tokens(msgspec.Struct):
    tokens: list[int]

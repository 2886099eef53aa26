"""Which of the endpoints that could serve a request should.

A session's home goes before all else, while it has room (`affinity.py`). A prompt whose beginning is known by
its chain of hashes goes to the best of a few candidates: those of its key (`candidates.py`), those that
computed it lately (`prefix_owners.py`); best by what it would cost there (`scoring.py`), counting on what
their caches hold (`prefix_index.py`, `speculation.py`). Two more are drawn by chance when the best would take
long: they get it if they are a good deal faster. And when none of its candidates has room, whoever has.

All else goes to the least loaded: own requests in flight plus those the engine reports as waiting, relative
to the endpoint's size; equals take turns. Of more than `FEW` endpoints, to the least loaded of eight that are
drawn. What has just failed is chosen last.

No decision looks at all endpoints while there is room: what has none is remembered as such until something
happens to it. When those looked at are full, all that may have room are, before a request has to wait.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from math import inf
from typing import NamedTuple

from sluice_router import scoring
from sluice_router.admission_policy import AdmissionPolicy
from sluice_router.affinity import home, session_key
from sluice_router.candidates import WIDEST, Demand, Pool, demand
from sluice_router.cost import Cost
from sluice_router.key_traffic import KeyTraffic
from sluice_router.prefixes import Prefixes
from sluice_router.replica import Replica
from sluice_router.scoring import Considered, Score
from sluice_router.types import RequestFacts

LEAST_LOADED = "least_loaded"
AFFINITY = "affinity"
PREFIX_HIT = "prefix_hit"
PREFIX_HASH = "prefix_hash"
SPILL = "spill"

FEW = 16
"""Endpoints that are all looked at."""
DRAWN = 8
SPILL_SHARE = 0.5
"""Of its patience that a prompt may be expected to wait for its first token before others are tried;"""
SPILL_GAIN = 0.7
"""and of that time, what it may take there."""


class Pick(NamedTuple):
    """Where to, and why."""

    replica: Replica
    reason: str
    """`least_loaded`, `affinity`, `prefix_hit`, `prefix_hash` or `spill`."""
    hit_tokens: int = 0
    """Prompt tokens that its cache is expected to have."""
    key: int = 0
    """The prompt's placement key; 0 when it has none."""
    scores: tuple[Score, ...] = ()
    """Of all candidates, in the order in which they were looked at."""


class Placement:
    """Chooses endpoints. One for a router."""

    __slots__ = (
        "_load_ttl_s",
        "_open",
        "_policy",
        "_prefixes",
        "_random",
        "_replicas",
        "_traffic",
    )

    def __init__(
        self,
        replicas: Sequence[Replica],
        prefixes: Prefixes,
        policy: AdmissionPolicy,
        random: Callable[[], float],
        load_ttl_s: float,
    ) -> None:
        """`replicas`: all of the router's, by their numbers. `random` gives numbers from 0 to 1."""
        self._replicas = replicas
        self._prefixes = prefixes
        self._policy = policy
        self._random = random
        self._load_ttl_s = load_ttl_s
        self._traffic = KeyTraffic()
        self._open = (1 << len(replicas)) - 1
        """The numbers of all that may have room, as bits."""

    def reopened(self, replica: Replica) -> None:
        """Something happened after which the endpoint may have room."""
        self._open |= 1 << replica.number

    def choose(
        self, pool: Pool, facts: RequestFacts, cost: Cost, excluded: frozenset[str], now: float
    ) -> Pick | None:
        """The endpoint to place a request on now, and why; `None` when none takes it.

        `excluded`: ids of endpoints that are not to be chosen.
        """
        if not self._open & pool.numbers:
            return None
        asked = _Asked(pool, facts, cost, excluded, now)
        if facts.session is not None:
            key = session_key(facts.tenant, facts.session)
            at_home = home(pool, key, excluded)
            if at_home is not None and at_home.takes(cost, now) and now >= at_home.avoid_until:
                one = self._consider(asked, at_home, scoring.FIRST)
                return Pick(at_home, AFFINITY, one.hit_tokens, key, tuple(scoring.scores([one], now)))
        return self._by_prefix(asked) if facts.prefix else self._by_load(asked)

    # Without a prefix

    def _by_load(self, asked: _Asked) -> Pick | None:
        members: Sequence[Replica] = asked.pool.members
        if len(members) > FEW:
            members = self._draw(asked, asked.excluded, DRAWN)
        elif asked.excluded:
            members = [r for r in members if r.endpoint.id not in asked.excluded]
        least = least_loaded(members, asked.cost, asked.now, self._load_ttl_s)
        return None if least is None else Pick(least, LEAST_LOADED)

    def _draw(self, asked: _Asked, excluded: frozenset[str], wanted: int) -> list[Replica]:
        """Up to so many endpoints that take the request, from places that are spread evenly from a random one
        on; fewer only when there are no more."""
        numbers = asked.pool.numbers
        first = (numbers & -numbers).bit_length() - 1
        span = numbers.bit_length() - first
        chance = self._random()
        drawn: list[Replica] = []
        for turn in range(wanted):
            place = first + int((chance + turn / wanted) % 1.0 * span)
            while True:
                numbers &= self._open
                following = numbers >> place << place or numbers
                if not following:
                    return drawn
                lowest = following & -following
                numbers ^= lowest
                replica = self._replicas[lowest.bit_length() - 1]
                if not replica.available:
                    self._open ^= lowest
                elif replica.endpoint.id not in excluded and replica.takes(asked.cost, asked.now):
                    drawn.append(replica)
                    break
        return drawn

    # With a prefix

    def _by_prefix(self, asked: _Asked) -> Pick | None:
        found = self._candidates(asked)
        now = asked.now
        considered = [self._consider(asked, r, why) for r, why in found if r.takes(asked.cost, now)]
        if not considered:
            drawn = self._draw(asked, asked.excluded, DRAWN)
            if not drawn:
                return None
            considered = [self._consider(asked, r, scoring.DRAWN) for r in drawn]
        ranked = scoring.scores(considered, now)
        best = _best(considered, ranked, now)
        others = self._faster(asked, considered, considered[best])
        if others:  # they differ by how soon they answer, so the best of the key's is out
            theirs = scoring.scores(others, now)
            best = len(considered) + _best(others, theirs, now)
            considered += others
            ranked += theirs
        one = considered[best]
        reason = SPILL if one.why == scoring.DRAWN else PREFIX_HIT if one.hit_tokens else PREFIX_HASH
        return Pick(one.replica, reason, one.hit_tokens, asked.key, tuple(ranked))

    def _candidates(self, asked: _Asked) -> list[tuple[Replica, str]]:
        """Those of the prompt's key first, then those that computed it lately."""
        facts, pool = asked.facts, asked.pool
        if facts.session is not None:
            wanted = Demand(session_key(facts.tenant, facts.session))
        else:
            wanted = demand(facts.prefix, self._traffic, len(pool.members), asked.now)
        key = asked.key = wanted.key
        asked.hot_tokens = self._prefixes.tokens(wanted.hot_blocks, facts, asked.cost.prompt_tokens)
        if wanted.spread > WIDEST:
            ranked = pool.some_usable(key, wanted.spread, self._random(), asked.excluded)
        else:
            ranked = pool.usable(key, wanted.spread, asked.excluded)
        found: list[tuple[Replica, str]] = []
        numbers = 0
        for rank, replica in enumerate(ranked):
            found.append((replica, _RANKS[min(rank, 2)]))
            numbers |= 1 << replica.number
        for number in self._prefixes.owners(facts.prefix, wanted.key):
            bit = 1 << number
            replica = self._replicas[number]
            if pool.numbers & bit and not numbers & bit and replica.endpoint.id not in asked.excluded:
                found.append((replica, scoring.OWNER))
                numbers |= bit
        return found

    def _consider(self, asked: _Asked, replica: Replica, why: str) -> Considered:
        prompt, now = asked.cost.prompt_tokens, asked.now
        hit = self._prefixes.hit_tokens(replica.number, asked.facts, prompt, now) if asked.facts.prefix else 0
        return Considered(
            replica,
            why,
            hit,
            prompt - (max(hit, asked.hot_tokens) if why in _RANKS else hit),
            replica.new_tokens_queued(now),
            replica.running(now),
            replica.kv_used_ratio(now),
        )

    def _faster(self, asked: _Asked, considered: Sequence[Considered], best: Considered) -> list[Considered]:
        """Of two endpoints that are drawn, those where the prompt is a good deal faster; none, unless it
        would take long where it is best, or that has just failed."""
        now = asked.now
        avoided = now < best.replica.avoid_until
        prompt = asked.cost.prompt_tokens
        expected_s = best.replica.predicted_ttft_s(prompt - best.hit_tokens, now)
        patience_s = SPILL_SHARE * self._policy.ttft_budget_s(asked.facts)
        if not avoided and (expected_s is None or expected_s <= patience_s):
            return []
        known = asked.excluded | {one.replica.endpoint.id for one in considered}
        faster = []
        for replica in self._draw(asked, known, 2):
            one = self._consider(asked, replica, scoring.DRAWN)
            if now >= replica.avoid_until and (avoided or _is_faster(one, expected_s, now)):
                faster.append(one)
        return faster


class _Asked:
    """One request that is to be placed."""

    __slots__ = ("cost", "excluded", "facts", "hot_tokens", "key", "now", "pool")

    def __init__(
        self, pool: Pool, facts: RequestFacts, cost: Cost, excluded: frozenset[str], now: float
    ) -> None:
        self.pool = pool
        self.facts = facts
        self.cost = cost
        self.excluded = excluded
        self.now = now
        self.key = 0
        self.hot_tokens = 0
        """At the prompt's beginning, see `Demand.hot_blocks`."""


_RANKS = (scoring.FIRST, scoring.SECOND, scoring.WIDER)


def _is_faster(one: Considered, than_s: float | None, now: float) -> bool:
    ttft_s = one.replica.predicted_ttft_s(one.new_tokens, now)
    return ttft_s is not None and than_s is not None and ttft_s < SPILL_GAIN * than_s


def _best(considered: Sequence[Considered], ranked: Sequence[Score], now: float) -> int:
    """The index of the lowest score; what has just failed comes last. Of equals the one with less work, then
    the first."""
    best = 0
    lowest = (True, inf, 0)
    for index, one in enumerate(considered):
        rank = (now < one.replica.avoid_until, ranked[index].score, one.replica.ledger.work)
        if rank < lowest:
            best, lowest = index, rank
    return best


def least_loaded(replicas: Iterable[Replica], cost: Cost, now: float, load_ttl_s: float) -> Replica | None:
    """The replica with the smallest relative load of those that take the request; `None` when none does.

    Readings older than `load_ttl_s` count as unknown. Equal loads take turns. What has just failed is chosen
    only when nothing else is available; what has just recovered counts as smaller than it is.
    """
    best, smallest = None, (True, inf, 0)
    for replica in replicas:
        if replica.takes(cost, now):
            occupied = replica.in_flight + replica.reported_waiting(now, load_ttl_s)
            share = occupied / replica.endpoint.max_in_flight
            if occupied and now - replica.recovered_at < scoring.SLOW_START_S:
                share /= scoring.warmth(replica.recovered_at, now)
            load = (now < replica.avoid_until, share, replica.last_placed)
            if load < smallest:
                best, smallest = replica, load
    return best

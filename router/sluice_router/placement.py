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
    new_tokens: int = 0
    """Those to be computed."""
    scores: tuple[Score, ...] = ()
    """Of all candidates, in the order in which they were looked at."""


class Home(NamedTuple):
    """Where to wait: that costs less than to be computed where there is room."""

    replica: Replica
    new_tokens: int
    """Prompt tokens that it would have to compute."""


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
        self,
        pool: Pool,
        facts: RequestFacts,
        cost: Cost,
        excluded: frozenset[str],
        now: float,
        claimed: frozenset[str] = frozenset(),
        first_at: str | None = None,
        waited_s: float = 0.0,
    ) -> Pick | Home | None:
        """The endpoint to place a request on now, and why; where it should rather wait; or `None` when none
        takes it and it does not matter where it waits.

        `excluded`: ids of endpoints that are not to be chosen; `claimed`: of those that others wait for, so
        that it could only wait there as well. `first_at`: one of those, where it has waited for so long,
        `waited_s`, that it is the next.
        """
        if not facts.prefix and not self._open & pool.numbers:
            return None
        asked = _Asked(pool, facts, cost, excluded, claimed, now)
        asked.first_at, asked.waited_s = first_at, waited_s
        if facts.session is not None:
            key = session_key(facts.tenant, facts.session)
            at_home = home(pool, key, excluded)
            if at_home is not None and self._takes(asked, at_home) and now >= at_home.avoid_until:
                return self._pick(asked, at_home, AFFINITY, key)
        return self._by_prefix(asked) if facts.prefix else self._by_load(asked)

    def at(self, pool: Pool, replica: Replica, facts: RequestFacts, cost: Cost, now: float) -> Pick:
        """That one, for a prompt that has waited for it."""
        asked = _Asked(pool, facts, cost, frozenset(), frozenset(), now)
        return self._pick(asked, replica, "", self._key(asked).key)

    def _pick(self, asked: _Asked, replica: Replica, reason: str, key: int) -> Pick:
        one = self._consider(asked, replica, scoring.FIRST)
        reason = reason or (PREFIX_HIT if one.hit_tokens else PREFIX_HASH)
        return Pick(
            replica,
            reason,
            one.hit_tokens,
            key,
            self._to_compute(asked, one),
            tuple(scoring.scores([one], asked.now)),
        )

    def _takes(self, asked: _Asked, replica: Replica) -> bool:
        """Whether there is room at once, that nobody waits for."""
        return replica.endpoint.id not in asked.claimed and replica.takes(asked.cost, asked.now)

    # Without a prefix

    def _by_load(self, asked: _Asked) -> Pick | None:
        members: Sequence[Replica] = asked.pool.members
        if len(members) > FEW:
            members = self._draw(asked, asked.left_out, DRAWN)
        elif left_out := asked.left_out:
            members = [r for r in members if r.endpoint.id not in left_out]
        least = least_loaded(members, asked.cost, asked.now, self._load_ttl_s)
        return None if least is None else Pick(least, LEAST_LOADED, new_tokens=asked.cost.prompt_tokens)

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

    def _by_prefix(self, asked: _Asked) -> Pick | Home | None:
        now = asked.now
        considered = [self._consider(asked, r, why) for r, why in self._candidates(asked)]
        if not considered:
            return self._elsewhere(asked)
        ranked = scoring.scores(considered, now)
        best = _best(considered, ranked, now)
        wanted = considered[best]
        room = self._takes(asked, wanted.replica)
        others = self._faster(asked, considered, wanted, room)
        if not room and not others:
            return self._home(asked, wanted)
        if others:  # they differ by how soon they answer, so the best of the key's is out
            theirs = scoring.scores(others, now)
            best = len(considered) + _best(others, theirs, now)
            considered += others
            ranked += theirs
        one = considered[best]
        reason = SPILL if one.why == scoring.DRAWN else PREFIX_HIT if one.hit_tokens else PREFIX_HASH
        return Pick(
            one.replica, reason, one.hit_tokens, asked.key, self._to_compute(asked, one), tuple(ranked)
        )

    def _candidates(self, asked: _Asked) -> list[tuple[Replica, str]]:
        """Those of the prompt's key first, then those that computed it lately; all of them usable, be they
        full: a prompt may have to wait for one."""
        facts, pool = asked.facts, asked.pool
        wanted = self._key(asked)
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
            if not pool.numbers & bit or numbers & bit:
                continue
            if replica.usable and replica.endpoint.id not in asked.excluded:
                found.append((replica, scoring.OWNER))
                numbers |= bit
        return found

    def _key(self, asked: _Asked) -> Demand:
        facts = asked.facts
        if facts.session is not None:
            return Demand(session_key(facts.tenant, facts.session))
        return demand(facts.prefix, self._traffic, len(asked.pool.members), asked.now)

    def _consider(self, asked: _Asked, replica: Replica, why: str) -> Considered:
        prompt, now = asked.cost.prompt_tokens, asked.now
        first = replica.endpoint.id == asked.first_at
        hit = self._prefixes.hit_tokens(replica.number, asked.facts, prompt, now) if asked.facts.prefix else 0
        return Considered(
            replica,
            why,
            hit,
            replica.expected_new(prompt, max(hit, asked.hot_tokens)) if why in _RANKS else prompt - hit,
            replica.new_tokens_queued(now) + (0 if first else replica.waiting_tokens),
            replica.running(now) + (0 if first else replica.waiting),
            replica.kv_used_ratio(now),
        )

    def _faster(
        self, asked: _Asked, considered: Sequence[Considered], best: Considered, room: bool
    ) -> list[Considered]:
        """Those of the other candidates, and of two endpoints that are drawn, that have room and where the
        prompt is a good deal faster; none, unless it would take long where it is best or that has no room or
        has just failed."""
        now = asked.now
        avoided = now < best.replica.avoid_until
        expected_s = self._expected_s(asked, best, room)
        if room and not avoided:
            patience_s = SPILL_SHARE * self._policy.ttft_budget_s(asked.facts)
            if expected_s is None or expected_s <= patience_s:
                return []
        known = asked.left_out | {one.replica.endpoint.id for one in considered}
        found = [self._consider(asked, r, scoring.DRAWN) for r in self._draw(asked, known, 2)]
        if not room:
            found += [one for one in considered if one is not best and self._takes(asked, one.replica)]
        return [
            one
            for one in found
            if now >= one.replica.avoid_until
            and (avoided or (not room and expected_s is None) or _is_faster(one, expected_s, now))
        ]

    def _expected_s(self, asked: _Asked, one: Considered, room: bool) -> float | None:
        """Seconds to the first token there, once there is room; `None` when unknown."""
        replica, now = one.replica, asked.now
        ttft_s = replica.predicted_ttft_s(self._to_compute(asked, one), now)
        if room or ttft_s is None:
            return ttft_s
        first = replica.endpoint.id == asked.first_at
        if first:  # whatever was foreseen, so long it takes
            ttft_s += asked.waited_s
        if replica.shared:
            return ttft_s + replica.room_in_s(now, 0 if first else replica.waiting_tokens)
        drain = replica.drain_work_per_s(now)
        work = asked.cost.work + (0 if first else replica.waiting_work)
        return ttft_s + work / drain if drain > 0.0 else None

    def _to_compute(self, asked: _Asked, one: Considered) -> int:
        """Prompt tokens, where `Considered.new_tokens` leaves out what will be computed but once."""
        prompt = asked.cost.prompt_tokens
        if one.why in _RANKS:
            return one.replica.expected_new(prompt, one.hit_tokens)
        return prompt - one.hit_tokens

    def _home(self, asked: _Asked, one: Considered) -> Home | None:
        """To wait for it, if it is known how long that takes."""
        if self._expected_s(asked, one, room=False) is None:
            return None
        return Home(one.replica, self._to_compute(asked, one))

    def _elsewhere(self, asked: _Asked) -> Pick | None:
        """None of the key's endpoints is usable."""
        drawn = self._draw(asked, asked.left_out, DRAWN)
        if not drawn:
            return None
        considered = [self._consider(asked, r, scoring.DRAWN) for r in drawn]
        ranked = scoring.scores(considered, asked.now)
        one = considered[_best(considered, ranked, asked.now)]
        return Pick(
            one.replica, SPILL, one.hit_tokens, asked.key, self._to_compute(asked, one), tuple(ranked)
        )


class _Asked:
    """One request that is to be placed."""

    __slots__ = (
        "claimed",
        "cost",
        "excluded",
        "facts",
        "first_at",
        "hot_tokens",
        "key",
        "left_out",
        "now",
        "pool",
        "waited_s",
    )

    def __init__(
        self,
        pool: Pool,
        facts: RequestFacts,
        cost: Cost,
        excluded: frozenset[str],
        claimed: frozenset[str],
        now: float,
    ) -> None:
        self.pool = pool
        self.facts = facts
        self.cost = cost
        self.excluded = excluded
        self.claimed = claimed
        self.left_out = claimed | excluded if claimed and excluded else claimed or excluded
        self.now = now
        self.first_at: str | None = None
        self.waited_s = 0.0
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

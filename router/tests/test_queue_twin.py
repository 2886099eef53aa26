"""Whatever happens, the queue decides as its twin does, which is the rules once more, written down plainly:
every decision goes through all that wait. It has no heaps, and forgets no tenant while anybody waits.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from sluice_router.queue import WaitingQueue

DEADLINES_S = (2.0, 10.0, 300.0)
Lane = frozenset[str]
Place = tuple[float, int]


@dataclass
class Waiting:
    place: Place
    item: str
    lane: Lane
    band: int
    until: float
    tenant: str
    weight: float
    pushed: int
    """Counts pushes: what was pushed first ends first among equal ends."""
    newness: int = 0
    """What is older than the newest of its tenant when it comes, because it comes again, gives way last."""


@dataclass
class Given:
    """To a tenant, of those that compete with it in one lane and class."""

    since: int
    served: float = 0.0


@dataclass
class Contest:
    """Those who compete in one lane and class."""

    floor: float = 0.0
    given: dict[str, Given] = field(default_factory=dict)


@dataclass
class NaiveCharge:
    endpoint: str
    band: int
    tenant: str
    cost: float
    at: int


class NaiveQueue:
    def __init__(self) -> None:
        self.waiting: list[Waiting] = []
        self.contests: dict[tuple[Lane, int], Contest] = {}
        self.classes_given: dict[str, dict[int, float]] = {}
        self.lanes_given: dict[str, dict[tuple[Lane, int], float]] = {}
        self.changed: dict[tuple[int, str], int] = {}
        self.events = 0

    # What waits

    def push(self, place, item, lane, band, until, tenant, weight) -> None:
        self.events += 1
        found = Waiting(place, item, lane, band, until, tenant, weight, self.events)
        mates = [w for w in self.waiting if (w.band, w.tenant) == (band, tenant)]
        newest = max(mates, key=lambda w: w.newness, default=None)
        is_newest = newest is None or newest.place[1] < place[1]
        found.newness = self.events if is_newest else -self.events
        self._enter(found)
        self.waiting.append(found)
        self.changed[band, tenant] = self.events

    def remove(self, item: str) -> None:
        found = self._find(item)
        self.events += 1
        self.changed[found.band, found.tenant] = self.events
        self.waiting.remove(found)
        self._clean()

    def move(self, item: str, lane: Lane) -> None:
        found = self._find(item)
        if found.lane != lane:
            self.waiting.remove(found)
            self._clean(nobody_left=False)
            found.lane = lane
            self._enter(found)
            self.waiting.append(found)
            self.waiting.sort(key=lambda w: w.pushed)

    def _find(self, item: str) -> Waiting:
        return next(w for w in self.waiting if w.item == item)

    def _clean(self, nobody_left: bool = True) -> None:
        """Where nobody waits, nothing is remembered."""
        kept = {(w.lane, w.band) for w in self.waiting}
        self.contests = {key: contest for key, contest in self.contests.items() if key in kept}
        for given in self.lanes_given.values():
            for key in given.keys() - kept:
                del given[key]
        if nobody_left and not self.waiting:
            self.classes_given.clear()
            self.lanes_given.clear()

    def _enter(self, new: Waiting) -> None:
        self.events += 1
        contest = self.contests.setdefault((new.lane, new.band), Contest())
        rivals = [w for w in self.waiting if (w.lane, w.band) == (new.lane, new.band)]
        if new.tenant in {w.tenant for w in rivals}:
            return
        if rivals:
            contest.floor = max(contest.floor, min(contest.given[w.tenant].served for w in rivals))
        given = contest.given.setdefault(new.tenant, Given(since=self.events))
        given.served = max(given.served, contest.floor)

    # Who goes next

    def first_for(self, endpoint: str, now: float) -> str | None:
        here = [w for w in self.waiting if endpoint in w.lane]
        if not here:
            return None
        self._notice(endpoint, here)
        band = self._class(endpoint, here, now)
        lane = self._lane(endpoint, [w for w in here if w.band == band])
        return self._tenants_first([w for w in here if (w.lane, w.band) == (lane, band)]).item

    def _notice(self, endpoint: str, here: list[Waiting]) -> None:
        old = self.classes_given.get(endpoint, {})
        bands = {w.band for w in here}
        level = min((old[b] for b in bands if b in old), default=0.0)
        self.classes_given[endpoint] = {b: old.get(b, level) for b in bands}
        lanes = {(w.lane, w.band) for w in here}
        before = self.lanes_given.get(endpoint, {})
        self.lanes_given[endpoint] = {
            key: before.get(key, min((before[k] for k in lanes if k in before and k[1] == key[1]), default=0))
            for key in lanes
        }

    def _class(self, endpoint: str, here: list[Waiting], now: float) -> int:
        given = self.classes_given[endpoint]
        due = {band: min(w.place for w in here if w.band == band) for band in given}
        chosen = min(given)
        for band in sorted(given):
            is_due = due[band][0] <= now + DEADLINES_S[chosen]
            if is_due and (given[band], due[band]) < (given[chosen], due[chosen]):
                chosen = band
        return chosen

    def _lane(self, endpoint: str, mine: list[Waiting]) -> Lane:
        given = self.lanes_given[endpoint]
        return min(mine, key=lambda w: (given[w.lane, w.band], w.place)).lane

    def _tenants_first(self, rivals: list[Waiting]) -> Waiting:
        given = self.contests[rivals[0].lane, rivals[0].band].given
        first = {t: min(w.place for w in rivals if w.tenant == t) for t in {w.tenant for w in rivals}}
        tenant = min(first, key=lambda t: (given[t].served, first[t]))
        return next(w for w in rivals if w.place == first[tenant])

    # What was given

    def charge(self, endpoint, lane, band, tenant, cost, weight) -> NaiveCharge:
        self.events += 1
        for contest in self._competing(endpoint, band):
            if tenant in contest.given:
                contest.given[tenant].served += cost / weight
        classes, lanes = self.classes_given.get(endpoint, {}), self.lanes_given.get(endpoint, {})
        if band in classes:
            classes[band] += cost * 3**band
        if (lane, band) in lanes:
            rivals = {w.tenant: w.weight for w in self.waiting if (w.lane, w.band) == (lane, band)}
            lanes[lane, band] += cost / sum({tenant: weight, **rivals}.values())
        return NaiveCharge(endpoint, band, tenant, cost, self.events)

    def settle(self, charge: NaiveCharge, cost: float, weight: float) -> None:
        for contest in self._competing(charge.endpoint, charge.band):
            given = contest.given.get(charge.tenant)
            if given is not None and given.since <= charge.at:
                given.served += (cost - charge.cost) / weight

    def add(self, endpoint: str, band: int, tenant: str, cost: float, weight: float) -> None:
        for contest in self._competing(endpoint, band):
            if tenant in contest.given:
                contest.given[tenant].served += cost / weight

    def _competing(self, endpoint: str, band: int) -> list[Contest]:
        return [c for (lane, b), c in self.contests.items() if b == band and endpoint in lane]

    # Room

    def from_the_last(self, band: int, tenant: str, weight: float) -> list[str]:
        found: list[str] = []
        for lower in (2, 1, 0):
            crowd = [w for w in self.waiting if w.band == lower]
            mine = sum(w.tenant == tenant for w in crowd)
            bound = 0.0 if lower > band else (mine + 1) / weight
            if lower >= band:
                found += self._giving_way(crowd, bound)
        return found

    def _giving_way(self, crowd: list[Waiting], bound: float) -> list[str]:
        """One after the other, as if each was gone then."""
        found, changed = [], dict(self.changed)
        while crowd:
            held = {t: [w for w in crowd if w.tenant == t] for t in {w.tenant for w in crowd}}
            share = {t: len(mine) / mine[0].weight for t, mine in held.items()}
            greediest = max(share, key=lambda t: (share[t], changed[crowd[0].band, t]))
            if share[greediest] <= bound:
                break
            newest = max(held[greediest], key=lambda w: w.newness)
            crowd.remove(newest)
            changed[newest.band, greediest] = 1_000_000 + len(found)
            found.append(newest.item)
        return found

    def claimed(self, item: str | None) -> Lane:
        own = None if item is None else self._find(item)
        mine = None if own is None else (own.lane, own.band)
        return frozenset(e for w in self.waiting if (w.lane, w.band) != mine for e in w.lane)

    def rivals(self, lane: Lane, band: int, tenant: str, weight: float) -> float:
        near = {(w.lane, w.tenant): w.weight for w in self.waiting if w.band == band and w.lane & lane}
        is_there = any(other == tenant for _, other in near)
        return sum(near.values()) + (0.0 if is_there else weight)

    def expired(self, now: float) -> list[str]:
        late = [w for w in self.waiting if w.until <= now]
        return [w.item for w in sorted(late, key=lambda w: (w.until, w.pushed))]

    def next_deadline(self) -> float | None:
        return min((w.until for w in self.waiting), default=None)


# Both


LANES = tuple(frozenset(ids) for ids in ("a", "b", "ab", "bc"))
WEIGHTS = {"t": 1.0, "u": 1.0, "v": 4.0, "w": 0.5}
COSTS = st.sampled_from([1.0, 8.0, 64.0])
"""Sums and quotients of these are exact, so that the order of adding does not matter."""

lanes, bands, tenants = st.sampled_from(LANES), st.integers(0, 2), st.sampled_from(sorted(WEIGHTS))
budgets = st.sampled_from([0.0, 2.0, 2.0, 10.0, 30.0, 300.0])


class QueueMachine(RuleBasedStateMachine):
    @initialize()
    def start(self) -> None:
        self.now, self.order = 0.0, 0
        self.real: WaitingQueue[str] = WaitingQueue(shared=True)
        self.naive = NaiveQueue()
        self.places: dict[str, tuple[float, int]] = {}
        self.facts: dict[str, tuple[frozenset[str], int, str]] = {}
        self.charges: list[tuple] = []
        self.gone: list[str] = []

    def push(self, item: str) -> None:
        lane, band, tenant = self.facts[item]
        until = self.now + (5.0, 20.0, 60.0)[band]
        for queue in (self.real, self.naive):
            queue.push(self.places[item], item, lane, band, until, tenant, WEIGHTS[tenant])

    def take(self, item: str) -> None:
        self.real.remove(self.places[item])
        self.naive.remove(item)
        self.gone.append(item)

    def waiting(self) -> list[str]:
        return [w.item for w in self.naive.waiting]

    @rule(lane=lanes, band=bands, tenant=tenants, budget_s=budgets, number=st.integers(1, 4))
    def some_arrive(self, lane, band, tenant, budget_s, number) -> None:
        for _ in range(number):
            self.order += 1
            item = f"{tenant}{self.order}"
            self.places[item], self.facts[item] = (self.now + budget_s, self.order), (lane, band, tenant)
            self.push(item)

    @rule(endpoint=st.sampled_from("abc"), number=st.integers(1, 4), cost=COSTS)
    def an_endpoint_has_room(self, endpoint, number, cost) -> None:
        for _ in range(number):
            item = self.real.first_for(endpoint, self.now)
            assert item == self.naive.first_for(endpoint, self.now)
            if item is not None:
                lane = next(w.lane for w in self.naive.waiting if w.item == item)
                _, band, tenant = self.facts[item]
                self.take(item)
                given = (endpoint, lane, band, tenant, cost, WEIGHTS[tenant])
                self.charges.append((self.real.charge(*given), self.naive.charge(*given), tenant))

    @rule(endpoint=st.sampled_from("abc"))
    def somebody_looks(self, endpoint) -> None:
        assert self.real.first_for(endpoint, self.now) == self.naive.first_for(endpoint, self.now)

    @precondition(lambda self: self.charges)
    @rule(data=st.data(), cost=COSTS | st.just(0.0))
    def a_request_ends(self, data, cost) -> None:
        real, naive, tenant = self.charges.pop(data.draw(st.integers(0, len(self.charges) - 1)))
        self.real.settle(real, cost)
        self.naive.settle(naive, cost, WEIGHTS[tenant])

    @precondition(lambda self: self.naive.waiting)
    @rule(data=st.data())
    def a_client_leaves(self, data) -> None:
        self.take(data.draw(st.sampled_from(self.waiting())))

    @precondition(lambda self: self.gone)
    @rule(data=st.data(), lane=lanes)
    def one_waits_again(self, data, lane) -> None:
        item = self.gone.pop(data.draw(st.integers(0, len(self.gone) - 1)))
        self.facts[item] = (lane, *self.facts[item][1:])
        self.push(item)

    @precondition(lambda self: self.naive.waiting)
    @rule(data=st.data(), lane=lanes)
    def one_waits_elsewhere(self, data, lane) -> None:
        item = data.draw(st.sampled_from(self.waiting()))
        self.real.move(self.places[item], lane)
        self.naive.move(item, lane)

    @rule(endpoint=st.sampled_from("abc"), band=bands, tenant=tenants, cost=COSTS | st.just(-8.0))
    def another_gateway_reports(self, endpoint, band, tenant, cost) -> None:
        self.real.apply_delta([(endpoint, band, tenant, cost)])
        self.naive.add(endpoint, band, tenant, cost, WEIGHTS[tenant])

    @rule(seconds=st.sampled_from([0.5, 3.0, 12.0]))
    def time_passes(self, seconds) -> None:
        self.now += seconds
        late = self.real.expired(self.now)
        assert late == self.naive.expired(self.now)
        for item in late:
            self.take(item)

    @rule(band=bands, tenant=tenants, displaced=st.booleans())
    def a_full_room_is_asked_for_a_place(self, band, tenant, displaced) -> None:
        weak = list(self.real.from_the_last(band, tenant, WEIGHTS[tenant]))
        assert weak == self.naive.from_the_last(band, tenant, WEIGHTS[tenant])
        if displaced:
            for item in weak[:2]:
                self.take(item)

    @invariant()
    def both_hold_the_same(self) -> None:
        if hasattr(self, "real"):
            assert len(self.real) == len(self.naive.waiting)
            assert list(self.real) == self.waiting()
            assert self.real.next_deadline() == self.naive.next_deadline()
            for item in [None, *self.waiting()[:3]]:
                assert self.real.claimed(self.places.get(item)) == self.naive.claimed(item)
            for tenant, weight in WEIGHTS.items():
                near = (LANES[2], 1, tenant, weight)
                assert self.real.rivals(*near) == self.naive.rivals(*near)


TestQueueMachine = QueueMachine.TestCase
TestQueueMachine.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)

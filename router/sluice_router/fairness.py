"""Who among tenants goes next: the one that has been given least.

Virtual token counters (Sheng and others, *Fairness in serving large language models*, OSDI 2024). A tenant's
counter grows by the cost of a request, divided by the tenant's weight, when the request is dispatched; the
cost is an estimate then, and is put right when the request ends. The tenant with the smallest counter goes
next. One that comes back from having nothing waiting starts no lower than the lowest of those that wait: what
it did not ask for is no claim.

Between two tenants that both wait all the time, the difference of what they were given, by weight, is at most

    2 * max(w_p * L, w_q * M)

for prompts of at most L tokens, and M tokens, prompts included, in flight at once: in what is known of it at
any time, and in real service. Where the estimates are right it is at most the costs of one request of each: a
tenant gets ahead only by a request that it was given when it was not ahead. What a request costs, and the
weights w_p = 1 and w_q = 2, is `cost.py`'s to say.

Counters live as long as somebody waits. When nobody does, everybody got what they asked for, and all are
equal again. Of tenants that have nothing waiting, those are remembered that are ahead of the others or have
something in flight, `REMEMBERED` of them at most: a forgotten one comes back as a newcomer.

Knows nothing of endpoints and classes: there is one such set of counters for each shelf of the queue.
"""

from __future__ import annotations

from collections import OrderedDict
from heapq import heapify, heappop, heappush

REMEMBERED = 4096
"""Tenants without anything waiting whose counters are kept."""

_SLACK = 32
"""Outdated entries of a heap that are put up with, beside as many as it has valid ones."""

Rank = tuple[float, int]
"""Deadline and order of arrival of a tenant's first request: what decides between equal counters."""


class Account:
    """What one tenant was given."""

    __slots__ = ("open", "rank", "served", "since", "tenant", "waiting", "weight")

    def __init__(self, tenant: str, weight: float, since: int) -> None:
        self.tenant = tenant
        self.weight = weight
        self.since = since
        """When it was opened, as a number that grows. Earlier charges are none of its business."""
        self.served = 0.0
        """The counter: cost by weight."""
        self.open = 0
        """Charges that are estimates still."""
        self.waiting = False
        self.rank: Rank = (0.0, 0)


class FairShare:
    """The counters of tenants that compete with each other. All is O(log tenants), amortized."""

    def __init__(self) -> None:
        self.weight = 0.0
        """The sum over those that have something waiting."""
        self._accounts: dict[str, Account] = {}
        self._idle: OrderedDict[str, Account] = OrderedDict()
        """Those without anything waiting, in the order in which they stopped."""
        self._heap: list[tuple[float, float, int, int, Account]] = []
        """Those that wait, by counter and rank. An entry that does not say what its account says is void."""
        self._filings = 0
        """Makes entries different that are equal otherwise: a tenant may have been forgotten in between."""
        self._waiting = 0
        self._floor = 0.0
        """The highest that the lowest counter was when somebody began to wait: where newcomers start."""

    def __len__(self) -> int:
        return len(self._accounts)

    def enter(self, tenant: str, weight: float, rank: Rank, at: int) -> None:
        """A tenant that had nothing waiting has something now. `at` grows from call to call."""
        least = self._least()
        if least is not None:
            self._floor = max(self._floor, least.served)
        account = self._accounts.get(tenant)
        if account is None:
            account = self._accounts[tenant] = Account(tenant, weight, at)
        else:
            del self._idle[tenant]
            account.weight = weight
        account.served = max(account.served, self._floor)
        account.waiting, account.rank = True, rank
        self._waiting += 1
        self.weight += weight
        self._file(account)
        self._forget()

    def rerank(self, tenant: str, rank: Rank) -> None:
        """Another request of a waiting tenant is its first one now."""
        account = self._accounts[tenant]
        if account.rank != rank:
            account.rank = rank
            self._file(account)

    def leave(self, tenant: str) -> None:
        """Nothing of a tenant waits any more."""
        account = self._accounts[tenant]
        account.waiting = False
        self._idle[tenant] = account
        self._waiting -= 1
        self.weight = self.weight - account.weight if self._waiting else 0.0

    def least(self) -> str | None:
        """The waiting tenant with the smallest counter, the one with the first rank among equals."""
        account = self._least()
        return None if account is None else account.tenant

    def served(self, tenant: str) -> float | None:
        """A tenant's counter, if there is one."""
        account = self._accounts.get(tenant)
        return None if account is None else account.served

    def weight_with(self, tenant: str, weight: float) -> float:
        """The sum of weights of those that wait, and of this tenant if it does not."""
        account = self._accounts.get(tenant)
        return self.weight if account is not None and account.waiting else self.weight + weight

    def charge(self, tenant: str, cost: float) -> None:
        """A tenant known here was given something that is estimated to cost so much."""
        account = self._accounts.get(tenant)
        if account is not None:
            account.open += 1
            self._add(account, cost)

    def correct(self, tenant: str, difference: float, charged_at: int) -> None:
        """What was charged then has turned out to cost more, or less."""
        account = self._accounts.get(tenant)
        if account is not None and account.since <= charged_at:
            account.open -= 1
            self._add(account, difference)

    def add(self, tenant: str, cost: float) -> None:
        """A tenant known here was given something by another gateway, or gave something of that back."""
        account = self._accounts.get(tenant)
        if account is not None:
            self._add(account, cost)

    def _add(self, account: Account, cost: float) -> None:
        account.served += cost / account.weight
        if account.waiting:
            self._file(account)

    def _file(self, account: Account) -> None:
        """Put an account where it belongs among those that wait."""
        heap = self._heap
        if len(heap) > 2 * self._waiting + _SLACK:
            heap[:] = [entry for entry in heap if _holds(entry)]
            heapify(heap)
        deadline, order = account.rank
        self._filings += 1
        heappush(heap, (account.served, deadline, order, self._filings, account))

    def _least(self) -> Account | None:
        heap = self._heap
        while heap:
            if _holds(heap[0]):
                return heap[0][4]
            heappop(heap)
        return None

    def _forget(self) -> None:
        """Close accounts that say nothing: not ahead of what a newcomer gets, and nothing to be put right.

        Looks at two for each one that can have been added, so that all are looked at in turn.
        """
        idle = self._idle
        for _ in range(min(2, len(idle))):
            tenant, account = idle.popitem(last=False)
            if account.open or account.served > self._floor:
                idle[tenant] = account
            else:
                del self._accounts[tenant]
        while len(idle) > REMEMBERED:
            del self._accounts[idle.popitem(last=False)[0]]


def _holds(entry: tuple[float, float, int, int, Account]) -> bool:
    served, deadline, order, _, account = entry
    return account.waiting and account.served == served and account.rank == (deadline, order)

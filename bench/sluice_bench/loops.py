"""What a load is: which requests, where to, when each is sent, and when to give up.

A closed loop sends a request when another one has ended, so a slow server slows the load down; an open loop
sends on a schedule that exists before the run. A loop of sessions is a closed one whose users converse.
`load_run.py` carries a plan out.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

import msgspec

from sluice_bench.target import Target, WireRequest

MOST_WARM_CONNECTIONS = 512
"""More are not opened ahead unless they are asked for: a server keeps memory for each."""


class ClosedLoop(msgspec.Struct, frozen=True, tag=True):
    """`concurrency` requests in flight; the next one starts when one ends."""

    concurrency: int
    think_s: float = 0.0
    """Between the end of a request and the start of the next one."""


class SessionLoop(msgspec.Struct, frozen=True, tag=True):
    """`concurrency` users, each in one conversation at a time; the next one begins when one has ended.

    Within a conversation a turn is due its thinking time after the end of the turn before, however that
    ended: what a server answered is in no later turn.
    """

    concurrency: int
    sessions: tuple[tuple[int, ...], ...]
    """Of each conversation the places of its turns among the plan's requests."""
    think_ns: tuple[int, ...]
    """Before each request."""


class OpenLoop(msgspec.Struct, frozen=True, tag=True):
    """Request k is due `offsets_ns[k]` after the start, whatever became of the others."""

    offsets_ns: tuple[int, ...]


Loop = ClosedLoop | SessionLoop | OpenLoop


class LoadPlan(msgspec.Struct, frozen=True, kw_only=True):
    """What to send, where, when, and when to give up."""

    target: Target
    requests: Sequence[WireRequest]
    loop: Loop
    warm_connections: int = 0
    """Connections opened before the clock starts, so that handshakes are not in the first answers."""
    request_timeout_s: float = 300.0
    hard_stop_s: float = 3600.0
    """After this, whatever is in flight is cut off and whatever is unsent stays unsent; both are recorded."""


def sessions_of(turns: Sequence[tuple[str, str | None]]) -> tuple[tuple[int, ...], ...]:
    """Conversations from (id, id of the turn before) of each request, in the order of their beginnings.

    A turn whose predecessor is not there begins one.
    """
    sessions: list[list[int]] = []
    of_turn: dict[str, list[int]] = {}
    for place, (name, before) in enumerate(turns):
        session = of_turn.get(before) if before is not None else None
        if session is None:
            session = []
            sessions.append(session)
        session.append(place)
        of_turn[name] = session
    return tuple(tuple(session) for session in sessions)


def connections_needed(loop: Loop, requests: int, answer_s: float) -> int:
    """How many of `requests` are in flight at once, at most, when each is answered within `answer_s`.

    A closed loop's concurrency; of an open loop, the most requests that are due within such a time. Never
    more than `MOST_WARM_CONNECTIONS`.
    """
    if not isinstance(loop, OpenLoop):
        return min(loop.concurrency, requests)
    offsets, span_ns = loop.offsets_ns[:requests], round(answer_s * 1e9)
    crowds = (bisect_left(offsets, due + span_ns) - index for index, due in enumerate(offsets))
    return min(MOST_WARM_CONNECTIONS, max(crowds, default=0))

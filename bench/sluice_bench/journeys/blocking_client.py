"""One user's client: a connection that is kept, blocking reads, a stamp on each.

It uses `socket` and `ssl` and nothing else. Locust lets gevent replace both, so a user who waits for bytes
lets the others go on; in a plain thread the same code blocks that thread. What comes out is the record of
the load client (`connection.Exchange`), so `answers.py` and `metrics.py` say what is a token and what is
TTFT here too.

While an answer streams in nothing is done but to stamp reads and to look for its end. A request is sent
once: no retries, and a connection that has idled so long that a server may be closing it is not used
again.
"""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Callable

from sluice_bench.connection import Exchange
from sluice_bench.http_wire import HttpWireError, ResponseEnd
from sluice_bench.records import Failure
from sluice_bench.target import Target, WireRequest

_READ_BYTES = 65536
_KEPT_NS = 4_000_000_000
"""Common servers close a connection that has idled for 5 s."""


class BlockingClient:
    """Sends one request at a time over one connection."""

    def __init__(
        self, target: Target, timeout_s: float, clock_ns: Callable[[], int] = time.perf_counter_ns
    ) -> None:
        """`timeout_s` is the limit of a whole request, connecting included."""
        self._target = target
        self._timeout_ns = int(timeout_s * 1e9)
        self._clock_ns = clock_ns
        self._socket: socket.socket | None = None
        self._idle_since_ns = 0
        self.in_flight = False
        """A request is out; stays true when whoever waited for its answer was stopped."""

    def send(self, request: WireRequest) -> Exchange:
        """Send a request and read its answer. Never raises for what the network or the server does."""
        exchange, _ = self._send(request, None)
        return exchange

    def send_and_leave(self, request: WireRequest, after_reads: int) -> tuple[Exchange, bool]:
        """Send a request and close the connection after so many reads of a good answer.

        With 0 the client leaves before it has read anything. Says whether it left: it does not from an answer
        that failed, or was over before.
        """
        return self._send(request, after_reads)

    def close(self) -> None:
        """Close the connection, if there is one."""
        kept, self._socket = self._socket, None
        if kept is not None:
            kept.close()

    def _send(self, request: WireRequest, leave_after: int | None) -> tuple[Exchange, bool]:
        now = self._clock_ns()
        exchange = Exchange(0, request, now)
        exchange.dispatched_ns = now
        left, self.in_flight = False, True
        try:
            connection = self._connection(exchange, now + self._timeout_ns)
            left = self._exchange(exchange, connection, now + self._timeout_ns, leave_after)
        except TimeoutError:
            exchange.failure, exchange.detail = Failure.TIMEOUT, f"no answer in {self._timeout_ns / 1e9:g} s"
        except OSError as error:
            connecting = exchange.connected_ns is None
            exchange.failure = Failure.CONNECT_FAILED if connecting else Failure.CONNECTION_LOST
            exchange.detail = str(error)
        except HttpWireError as error:
            exchange.failure, exchange.detail = Failure.PROTOCOL, str(error)
        except BaseException:  # Locust ends its users so; the connection is in the middle of an answer
            self.close()
            raise
        if left or exchange.failure is not None:
            self.close()
        self.in_flight = False
        exchange.end_ns = self._idle_since_ns = exchange.end_ns or self._clock_ns()
        return exchange, left

    def _connection(self, exchange: Exchange, deadline_ns: int) -> socket.socket:
        if self._socket is not None and self._clock_ns() - self._idle_since_ns > _KEPT_NS:
            self.close()
        exchange.reused = self._socket is not None
        if self._socket is None:
            self._socket = self._open(deadline_ns)
        exchange.connected_ns = self._clock_ns()
        return self._socket

    def _open(self, deadline_ns: int) -> socket.socket:
        target = self._target
        plain = socket.create_connection((target.host, target.port), self._left_s(deadline_ns))
        try:
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if not target.tls:
                return plain
            return ssl.create_default_context().wrap_socket(plain, server_hostname=target.host)
        except BaseException:
            plain.close()
            raise

    def _exchange(
        self, exchange: Exchange, connection: socket.socket, deadline_ns: int, leave_after: int | None
    ) -> bool:
        """Write, then read to the end. True when the client left before it."""
        end = ResponseEnd()
        connection.settimeout(self._left_s(deadline_ns))
        exchange.written_ns = self._clock_ns()
        connection.sendall(exchange.request.wire)
        if leave_after == 0:
            return True
        while True:
            connection.settimeout(self._left_s(deadline_ns))
            data = connection.recv(_READ_BYTES)
            now = self._clock_ns()
            if not data:
                self._peer_closed(exchange, end, now)
                return False
            exchange.reads.append((now, data))
            if end.feed(data):
                exchange.end_ns = now
                if not end.keep_alive:
                    self.close()
                return False
            good = end.head is not None and end.head.status == 200
            if leave_after is not None and good and len(exchange.reads) >= leave_after:
                return True

    def _peer_closed(self, exchange: Exchange, end: ResponseEnd, now: int) -> None:
        self.close()
        exchange.closed, exchange.end_ns = True, now
        if not end.at_eof():
            exchange.failure, exchange.detail = Failure.CONNECTION_LOST, "the peer closed"

    def _left_s(self, deadline_ns: int) -> float:
        """Seconds until the deadline. Raises `TimeoutError` when it has passed."""
        left_ns = deadline_ns - self._clock_ns()
        if left_ns <= 0:
            raise TimeoutError
        return left_ns * 1e-9

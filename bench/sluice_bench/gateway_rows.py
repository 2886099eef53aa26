"""What the gateway bench sends (`...Load`) and what it writes down (`...Row`), lane by lane.

A row is one repeat on one target. CPU cost rows are `gateway_overhead.OverheadRow`.
"""

from __future__ import annotations

import msgspec

from sluice_bench.gateway_overhead import Kind


class CostLoad(msgspec.Struct, frozen=True, kw_only=True):
    """Closed loops whose CPU time is measured."""

    targets: tuple[str, ...]
    kinds: tuple[Kind, ...]
    connections: int
    seconds: float
    """Length of one repeat, about."""
    repeats: int
    chunks: int = 100
    """In a stream."""
    pace_ms: float = 2.0
    """Between two chunks of a stream: each travels alone, as an engine's tokens do."""
    large: bool = False
    """Prompts of 400 KB, and a look at the event loop."""
    pin: bool = False
    """The gateway has one core for itself, client and null server share another."""


class LatencyLoad(msgspec.Struct, frozen=True, kw_only=True):
    """One request at a time. Groups keep servers that take milliseconds away from those that do not."""

    groups: tuple[tuple[str, ...], ...]
    rounds: tuple[int, ...]
    """Of each group, per repeat."""
    repeats: int


class StreamsLoad(msgspec.Struct, frozen=True, kw_only=True):
    """Many concurrent streams."""

    targets: tuple[str, ...]
    streams: int
    chunks_per_s: float
    """Of each stream."""
    ramp_s: float
    """In which the streams begin, at random times."""
    window_s: float
    """All streams run together for about so long."""
    repeats: int

    @property
    def chunks(self) -> int:
        """Of each stream: enough for the ramp, a second more, and the window."""
        return round((self.ramp_s + 1 + self.window_s) * self.chunks_per_s)


class LatencyRow(msgspec.Struct, frozen=True, kw_only=True):
    """Microseconds. `added` is of the differences to `direct` within each round."""

    target: str
    repeat: int
    rounds: int
    failures: int
    p50_us: float
    p99_us: float
    direct_p50_us: float
    direct_p99_us: float
    added_p50_us: float
    added_p99_us: float
    foreign_cores: float


class BlockRow(msgspec.Struct, frozen=True, kw_only=True):
    """Probes of a loaded event loop, milliseconds."""

    target: str
    repeat: int
    probes: int
    probe_p50_ms: float
    probe_p99_ms: float
    probe_max_ms: float
    own_p99_ms: float
    own_max_ms: float
    """Of an idle server asked from the same client in the same way."""
    lag_histogram_ms: float | None
    """Upper bound of the longest lag that the server itself sampled; `None` when it sampled none."""
    foreign_cores: float


class MemoryRow(msgspec.Struct, frozen=True, kw_only=True):
    """Resident memory, MB (10^6 bytes), of the largest process of the tree and of the whole tree."""

    target: str
    idle_process_mb: float
    loaded_process_mb: float
    idle_tree_mb: float
    loaded_tree_mb: float
    requests: int
    """Plain and streamed ones between idle and loaded."""
    failures: int
    foreign_cores: float


class StreamsRow(msgspec.Struct, frozen=True, kw_only=True):
    """Many streams, milliseconds."""

    target: str
    repeat: int
    streams: int
    chunks_per_s: float
    failures: int
    first_failure: str
    chunks: int
    """That were due while every stream was running; the delays are theirs. 0: never all at once."""
    delay_p50_ms: float
    delay_p99_ms: float
    delay_max_ms: float
    """After the null server's schedule."""
    sent_delay_p99_ms: float
    """After the null server's sending."""
    server_cpu_us_per_chunk: float
    server_cores: float
    client_cores: float
    server_resident_mb: float
    foreign_cores: float

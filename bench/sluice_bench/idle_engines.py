"""Engines that serve nobody and only say so: many ports in one process, each with vLLM's pages.

Health, version, model list, and a metrics page of about the size of a real one, whose numbers differ from
look to look. For measuring what it costs a gateway to watch a fleet.
`python -m sluice_bench.idle_engines PORT COUNT` takes PORT, answers `/targets` there with the addresses and
`/looks` with how often pages were read.
"""

from __future__ import annotations

import asyncio
import sys
from collections import Counter
from typing import cast

import msgspec

from sluice_bench.load_run import new_event_loop

_HISTOGRAMS = (
    "time_to_first_token_seconds",
    "inter_token_latency_seconds",
    "request_time_per_output_token_seconds",
    "e2e_request_latency_seconds",
    "request_queue_time_seconds",
    "request_inference_time_seconds",
    "request_prefill_time_seconds",
    "request_decode_time_seconds",
    "iteration_tokens_total",
    "request_prompt_tokens",
    "request_generation_tokens",
    "request_max_num_generation_tokens",
)
_GAUGES = ("num_requests_running", "num_requests_waiting", "kv_cache_usage_perc")
_COUNTERS = (
    "prefix_cache_queries",
    "prefix_cache_hits",
    "num_preemptions",
    "prompt_tokens",
    "generation_tokens",
)
_LABELS = 'engine="0",model_name="null"'
_VARYING = "@"
MODELS = b'{"object":"list","data":[{"id":"null","object":"model","owned_by":"vllm","max_model_len":4096}]}'


def metrics_page(histograms: int = len(_HISTOGRAMS), buckets: int = 36) -> str:
    """A page in the shape of vLLM's, with `@` for a number that changes."""
    lines = []
    for name in _GAUGES:
        lines += [f"# HELP vllm:{name} A gauge.", f"# TYPE vllm:{name} gauge"]
        lines.append(f"vllm:{name}{{{_LABELS}}} 0.{_VARYING}")
    lines.append(f'vllm:num_requests_waiting_by_reason{{{_LABELS},reason="capacity"}} 1{_VARYING}.0')
    lines.append(f'vllm:num_requests_waiting_by_reason{{{_LABELS},reason="deferred"}} 2.0')
    for name in _COUNTERS:
        lines += [f"# HELP vllm:{name}_total A counter.", f"# TYPE vllm:{name}_total counter"]
        lines.append(f"vllm:{name}_total{{{_LABELS}}} 1{_VARYING}.0")
    for name in _HISTOGRAMS[:histograms]:
        lines += [f"# HELP vllm:{name} A histogram of something.", f"# TYPE vllm:{name} histogram"]
        lines += [
            f'vllm:{name}_bucket{{engine="0",le="{(i + 1) / 8}",model_name="null"}} 1234.0'
            for i in range(buckets)
        ]
        lines += [f'vllm:{name}_bucket{{engine="0",le="+Inf",model_name="null"}} 1234.0']
        lines += [
            f"vllm:{name}_count{{{_LABELS}}} 1{_VARYING}.0",
            f"vllm:{name}_sum{{{_LABELS}}} 7{_VARYING}.5",
        ]
    lines.append('vllm:cache_config_info{block_size="16",engine="0",num_gpu_blocks="4096"} 1.0')
    return "\n".join(lines) + "\n"


class IdleEngine(asyncio.Protocol):
    """One connection to one of them; requests may come in one piece or many, pipelined or not."""

    def __init__(self, pieces: list[bytes], looks: Counter[str], targets: bytes) -> None:
        self._pieces = pieces
        self._looks = looks
        self._targets = targets
        self._transport: asyncio.Transport | None = None
        self._received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep it."""
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """Answer every request that is complete. They are all GETs."""
        *heads, self._received = (self._received + data).split(b"\r\n\r\n")
        for head in heads:
            path = head.split(b" ", 2)[1].decode()
            self._looks[path] += 1
            self._answer(path)

    def _answer(self, path: str) -> None:
        body = self._body(path)
        status = b"404 Not Found" if body is None else b"200 OK"
        head = b"HTTP/1.1 %b\r\nContent-Length: %d\r\n\r\n" % (status, len(body or b""))
        if self._transport is not None:
            self._transport.write(head + (body or b""))

    def _body(self, path: str) -> bytes | None:
        if path == "/metrics":
            return (b"%06d" % (self._looks[path] % 1_000_000)).join(self._pieces)
        known = {
            "/health": b"",
            "/version": b'{"version":"0.32.0"}',
            "/v1/models": MODELS,
            "/targets": self._targets,
        }
        return msgspec.json.encode(self._looks) if path == "/looks" else known.get(path)


async def _serve(port: int, count: int) -> None:
    loop = asyncio.get_running_loop()
    pieces = metrics_page().encode().split(_VARYING.encode())
    looks: Counter[str] = Counter()
    servers = [
        await loop.create_server(lambda: IdleEngine(pieces, looks, b""), "127.0.0.1", 0) for _ in range(count)
    ]
    urls = [f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}" for server in servers]
    targets = msgspec.json.encode(urls)
    front = await loop.create_server(lambda: IdleEngine(pieces, looks, targets), "127.0.0.1", port)
    await front.serve_forever()


def main() -> None:
    """Serve until killed."""
    port, count = int(sys.argv[1]), int(sys.argv[2])
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        runner.run(_serve(port, count))


if __name__ == "__main__":
    main()

"""From a workload's items to the bytes of requests for one server, all of them before a run begins."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from sluice_bench.target import Target, WireRequest
from sluice_bench.workload import Asking, post, request_body
from sluice_bench.workloads.items import Endpoint, Workload, WorkloadItem

PATHS: Mapping[Endpoint, str] = {
    "chat": "/v1/chat/completions",
    "completions": "/v1/completions",
    "embeddings": "/v1/embeddings",
}


def prepare(target: Target, workload: Workload, asking: Asking) -> tuple[WireRequest, ...]:
    """A request for every item, in their order."""
    return tuple(_request(target, item, asking) for item in workload.items)


def _request(target: Target, item: WorkloadItem, asking: Asking) -> WireRequest:
    path = PATHS[item.endpoint]
    if item.endpoint == "embeddings":
        body = msgspec.json.encode({"model": asking.model, **item.body})
        return WireRequest(post(target, path, body, asking), stream=False, item=item.id)
    if item.needs:  # a call or a form ends by itself; going on after its end would break it
        asking = msgspec.structs.replace(asking, ignore_eos=False)
    shortest = {} if item.min_tokens is None else {"min_tokens": item.min_tokens}
    body = request_body({**item.body, **shortest}, item.max_tokens, asking)
    return WireRequest(
        post(target, path, body, asking), asking.stream, asked_tokens=item.max_tokens, item=item.id
    )

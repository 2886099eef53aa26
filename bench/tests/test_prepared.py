"""From items to bytes: the same for every server, with nothing that was not asked for."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from sluice_bench.recording.digest import requests_sha256
from sluice_bench.target import Target, WireRequest
from sluice_bench.workload import Asking
from sluice_bench.workloads import suites
from sluice_bench.workloads.corpus import Corpus, load_corpus
from sluice_bench.workloads.items import Workload, WorkloadItem
from sluice_bench.workloads.prepared import prepare

HERE, THERE = Target(host="127.0.0.1", port=8000), Target(host="example.org", port=443, tls=True)


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    return load_corpus()


def body(request: WireRequest) -> dict[str, Any]:
    decoded: dict[str, Any] = json.loads(request.wire.partition(b"\r\n\r\n")[2])
    return decoded


def one(item: WorkloadItem, asking: Asking) -> WireRequest:
    return prepare(HERE, Workload.of("test", [item]), asking)[0]


def test_every_variant_is_asked_the_same(corpus: Corpus) -> None:
    workload = suites.build(corpus, "short", 20, seed=1)
    here = prepare(HERE, workload, Asking(model="m"))
    there = prepare(THERE, workload, Asking(model="m", api_key="sk-1"))
    assert requests_sha256(here) == requests_sha256(there)
    assert [body(request) for request in here] == [body(request) for request in there]
    assert here[0].wire != there[0].wire


def test_the_digest_sees_what_is_asked_and_how(corpus: Corpus) -> None:
    workload, other = (suites.build(corpus, "short", 20, seed=seed) for seed in (1, 2))
    ways = [Asking(model="m"), Asking(model="n"), Asking(model="m", stream=False)]
    digests = {requests_sha256(prepare(HERE, asked, way)) for asked in (workload, other) for way in ways}
    assert len(digests) == 6


def test_a_request_is_the_item_and_the_way_of_asking(corpus: Corpus) -> None:
    (item,) = suites.build(corpus, "short", 1, seed=1).items
    request = one(item, Asking(model="m", ignore_eos=True))
    assert request.wire.startswith(b"POST /v1/chat/completions HTTP/1.1\r\n")
    assert request.stream
    assert (request.item, request.asked_tokens) == (item.id, 64)
    assert body(request) == {
        "model": "m",
        "messages": item.body["messages"],
        "max_tokens": 64,
        "temperature": 0,
        "stream": True,
        "stream_options": {"include_usage": True},
        "ignore_eos": True,
    }


@pytest.mark.parametrize("name", ["tools", "json"])
def test_calls_and_forms_may_end_by_themselves(corpus: Corpus, name: Any) -> None:
    (item,) = suites.build(corpus, name, 1, seed=1).items
    assert "ignore_eos" not in body(one(item, Asking(model="m", ignore_eos=True)))


def test_completions_and_embeddings_have_their_paths_and_fields() -> None:
    completion = WorkloadItem(
        id="c", endpoint="completions", body={"prompt": "Once"}, max_tokens=5, min_tokens=2
    )
    embedding = WorkloadItem(id="e", endpoint="embeddings", body={"input": "Once"}, max_tokens=0)
    plain = one(completion, Asking(model="m", stream=False))
    assert plain.wire.startswith(b"POST /v1/completions ")
    assert body(plain) == {"model": "m", "prompt": "Once", "min_tokens": 2, "max_tokens": 5, "temperature": 0}
    embedded = one(embedding, Asking(model="m"))
    assert embedded.wire.startswith(b"POST /v1/embeddings ")
    assert body(embedded) == {"model": "m", "input": "Once"}
    assert not embedded.stream


def test_the_items_are_left_as_they_were(corpus: Corpus) -> None:
    workload = suites.build(corpus, "json", 3, seed=1)
    before = msgspec.json.encode(workload)
    prepare(HERE, workload, Asking(model="m"))
    assert msgspec.json.encode(workload) == before

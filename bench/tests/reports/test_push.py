"""What is pushed to Prometheus, by a real PUT; and the dashboard that shows it."""

from __future__ import annotations

import base64
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from sluice_bench.reports.push import METRICS, PushFailed, grouping_key, push, registry_of, samples

from ..recording.invented_run import plain_without_usage, run_of
from .invented_runs import EVIL, closed_run

DASHBOARD: dict[str, Any] = json.loads((Path(__file__).parents[2] / "grafana_dash.json").read_text())


class Gateway(HTTPServer):
    """Takes what is pushed and answers with `status`."""

    status = 200

    def __init__(self) -> None:
        self.seen: list[tuple[str, str, str | None, str]] = []
        super().__init__(("127.0.0.1", 0), _Handler)


class _Handler(BaseHTTPRequestHandler):
    server: Gateway

    def do_PUT(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        self.server.seen.append((self.command, self.path, self.headers.get("Authorization"), body))
        self.send_response(self.server.status)
        self.end_headers()

    def log_message(self, *arguments: Any) -> None:
        pass


@contextmanager
def gateway(status: int = 200) -> Iterator[tuple[Gateway, str]]:
    server = Gateway()
    server.status = status
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server, f"127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_a_run_arrives_as_one_group_by_put() -> None:
    run = closed_run(3, 140, variant="a/b")
    with gateway() as (server, address):
        push(run, f"http://{address}")
    [(method, path, authorization, body)] = server.seen
    encoded = base64.urlsafe_b64encode(b"a/b").decode()
    assert (method, authorization) == ("PUT", None)
    assert path.startswith("/metrics/job/sluice_bench/") and f"/variant@base64/{encoded}" in path
    assert f"/load@base64/{base64.urlsafe_b64encode(b'3 users').decode()}" in path
    found = {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(body)
        for sample in family.samples
    }
    summary = run.summary
    assert summary.ttft_user_ms is not None and summary.ttft_user_ms.p95 is not None
    assert found["sluice_bench_ttft_seconds", "0.95"] == summary.ttft_user_ms.p95 / 1000
    assert found["sluice_bench_output_tokens_per_second", "peak"] == summary.peak_tokens_per_s
    assert found["sluice_bench_requests", "complete"] == 140
    assert found["sluice_bench_tokens", "cached"] == 0
    assert found[("sluice_bench_void",)] == 0


def test_the_unknown_is_not_pushed() -> None:
    pushed = {(metric.name, label) for metric, label, _ in samples(run_of(plain_without_usage(0)))}
    assert not {name for name, _ in pushed} & {"sluice_bench_tokens", "sluice_bench_ttft_seconds"}
    assert ("sluice_bench_requests", "complete") in pushed


def test_every_metric_can_be_pushed() -> None:
    names = {metric.name for metric, _, _ in samples(closed_run(3, 140, failing=1))}
    assert names == {metric.name for metric in METRICS}
    assert ("sluice_bench_requests", "timeout", 1) in {
        (metric.name, label, value) for metric, label, value in samples(closed_run(3, 140, failing=1))
    }


def test_credentials_go_into_a_header_and_into_no_message() -> None:
    run = closed_run(1, 4)
    with gateway() as (server, address):
        push(run, f"http://me:s%40cret@{address}/")
    [(_, _, authorization, _)] = server.seen
    assert authorization == "Basic " + base64.b64encode(b"me:s@cret").decode()
    with gateway(status=500) as (_, address), pytest.raises(PushFailed) as failure:
        push(run, f"http://me:secret@{address}")
    assert "secret" not in str(failure.value) and "500" in str(failure.value)


@pytest.mark.parametrize("url", ["nowhere", "ftp://h:1", "http://", "http://h:port", "http://me:secret@h:x"])
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(PushFailed, match=r"is no URL; it looks like http://HOST:9091") as failure:
        push(closed_run(1, 4), url)
    assert "secret" not in str(failure.value)


def test_strange_names_are_labels() -> None:
    run = closed_run(1, 4, variant=EVIL, model='quote " and \\')
    assert grouping_key(run)["variant"] == EVIL
    with gateway() as (server, address):
        push(run, f"http://{address}")
    assert EVIL not in server.seen[0][1]


# --- the dashboard ----------------------------------------------------------------------------------------


def expressions() -> list[str]:
    variables = [entry["definition"] for entry in DASHBOARD["templating"]["list"] if "definition" in entry]
    return [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]] + variables


def test_the_dashboard_asks_for_nothing_that_is_not_pushed() -> None:
    pushed = {metric.name for metric in METRICS}
    asked = {name for text in expressions() for name in re.findall(r"sluice_bench_\w+", text)}
    assert asked == pushed


def test_the_dashboard_uses_labels_and_values_that_exist() -> None:
    run = closed_run(3, 140, failing=1)
    values: dict[str, set[str]] = {}
    for family in registry_of(run).collect():
        for sample in family.samples:
            for label, value in sample.labels.items():
                values.setdefault(label, set()).add(value)
    for key, value in grouping_key(run).items():
        values.setdefault(key, set()).add(value)
    for text in expressions():
        for label, operator, value in re.findall(r"(\w+)(=~|!=|=)\"([^\"]*)\"", text):
            assert label in values, text
            if operator == "=":
                assert value in values[label], text
    legends = {
        label
        for panel in DASHBOARD["panels"]
        for target in panel["targets"]
        for label in re.findall(r"{{(\w+)}}", target["legendFormat"])
    }
    assert legends <= set(values)


def test_every_panel_has_a_unit_and_a_place_of_its_own() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        unit = panel["fieldConfig"]["defaults"]["unit"]
        asks = " ".join(target["expr"] for target in panel["targets"])
        expected = {"_seconds{": "s", "_ratio{": "percentunit", "_requests_per_second{": "reqps"}
        for ending, right in expected.items():
            if ending in asks and "timestamp" not in asks:
                assert unit == right, panel["title"]
        assert unit and panel["title"] and panel["description"]
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken and place["x"] + place["w"] <= 24
        taken |= cells
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])


def test_variables_of_the_dashboard_are_defined() -> None:
    defined = {entry["name"] for entry in DASHBOARD["templating"]["list"]}
    used = set(re.findall(r"\$\{?(\w+)", json.dumps(DASHBOARD["panels"])))
    assert used <= defined

"""Pages of real engines, scraped by a real Prometheus, become the one set of names that dashboards use."""

from __future__ import annotations

import json
import subprocess
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
import yaml
from local_stack import free_port
from repository import ROOT

PAGES = {
    "worker": "worker/metrics.busy",
    "vllm": "vllm/metrics.busy",
    "llamacpp": "llamacpp/metrics.busy",
    "sglang": "sglang/metrics",
    "trt": "trt/prometheus-metrics",
    "tgi": "tgi-3/metrics",
}
WITHOUT = {
    "sluice:kv_usage_ratio": {"tgi", "llamacpp"},
    "sluice:generation_tokens:rate1m": {"trt"},
    "sluice:prompt_tokens:rate1m": {"trt"},
    "sluice:ttft_seconds_bucket:rate5m": {"tgi", "llamacpp"},
    "sluice:queue_seconds_bucket:rate5m": {"worker", "llamacpp"},
}
"""Who does not tell what, as `docs/deploy.md` says."""
EVERYWHERE = ("sluice:requests_waiting", "sluice:requests_running")
PATIENCE_S = 30.0


class Page(BaseHTTPRequestHandler):
    """Answers with the file that the path names."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("content-type", "text/plain; version=0.0.4")
        self.end_headers()
        self.wfile.write((ROOT / "engines/tests/pages" / self.path.lstrip("/")).read_bytes())

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Prometheus with our rules and one target for each page."""
    folder, port = tmp_path_factory.mktemp("prometheus"), free_port(None)
    with ThreadingHTTPServer(("127.0.0.1", 0), Page) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        configuration = folder / "prometheus.yml"
        configuration.write_text(yaml.safe_dump(scraping(server.server_port)))
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(
                [
                    *(
                        "prometheus",
                        f"--config.file={configuration}",
                        f"--storage.tsdb.path={folder / 'data'}",
                    ),
                    f"--web.listen-address=127.0.0.1:{port}",
                ],
                stdout=log,
                stderr=log,
            )
        yield f"http://127.0.0.1:{port}"
        process.terminate()
        assert process.wait(PATIENCE_S) == 0, (folder / "log").read_text()
        server.shutdown()


def scraping(port: int) -> dict[str, Any]:
    jobs = [
        {
            "job_name": engine,
            "metrics_path": f"/{page}",
            "static_configs": [{"targets": [f"127.0.0.1:{port}"]}],
            "relabel_configs": [
                {"source_labels": ["job"], "target_label": name} for name in ("backend", "engine")
            ],
        }
        for engine, page in PAGES.items()
    ]
    return {
        "global": dict.fromkeys(("scrape_interval", "scrape_timeout", "evaluation_interval"), "500ms"),
        "rule_files": [str(ROOT / "ops/prometheus/rules/*.yml")],
        "scrape_configs": jobs,
    }


def engines_that_tell(prometheus: str, name: str) -> set[str]:
    url = f"{prometheus}/api/v1/query?{urllib.parse.urlencode({'query': name})}"
    try:
        with urllib.request.urlopen(url, timeout=PATIENCE_S) as answer:
            return {series["metric"]["engine"] for series in json.load(answer)["data"]["result"]}
    except (urllib.error.URLError, ConnectionError):
        return set()  # not up yet


@pytest.mark.parametrize("name", [*EVERYWHERE, *WITHOUT])
def test_each_engine_has_the_common_name(name: str, prometheus: str) -> None:
    wanted = set(PAGES) - WITHOUT.get(name, set())
    deadline = time.monotonic() + PATIENCE_S
    found = engines_that_tell(prometheus, name)
    while found != wanted and time.monotonic() < deadline:
        time.sleep(0.2)
        found = engines_that_tell(prometheus, name)
    assert found == wanted

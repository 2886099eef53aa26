"""`sluice engines`: looks at what is there, and says what is not."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from sluice_gateway.cli import app
from sluice_gateway.config import ConfigError

from .page_server import page_server

METRICS = """\
vllm:num_requests_running{engine="0"} 3
vllm:num_requests_waiting{engine="0"} 1
vllm:gpu_cache_usage_perc{engine="0"} 0.25
"""
VLLM = {
    "/health": (200, ""),
    "/version": (200, '{"version": "0.32.0"}'),
    "/metrics": (200, METRICS),
    "/v1/models": (200, '{"data": [{"id": "tiny", "owned_by": "vllm", "max_model_len": 2048}]}'),
}


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["engines", *arguments])


@pytest.fixture
def config(tmp_path: Path):
    def write(*backends: dict[str, object]) -> str:
        file = tmp_path / "sluice.yaml"
        file.write_text(json.dumps({"backends": backends}))
        return str(file)

    return write


def words(result: Result) -> list[str]:
    return [" ".join(line.split()) for line in result.stdout.splitlines()]


def test_probe_says_what_a_url_is_and_what_to_write_into_the_configuration() -> None:
    with page_server(VLLM) as url:
        result = run("probe", url)

    assert result.exit_code == 0
    found = words(result)
    assert found[:4] == ["engine vLLM 0.32.0", "models tiny", "limits max_model_len 2048", "metrics /metrics"]
    assert "kv_used_ratio (vllm:gpu_cache_usage_perc)" in found[4]
    assert f"sluice.yaml {{name: vllm, adapter: vllm, url: {url}}}" in found
    assert any(line.startswith("answers itself chat, ") for line in found)


def test_probe_as_json() -> None:
    with page_server(VLLM) as url:
        found = json.loads(run("probe", url, "--json").stdout)

    assert found["identity"]["engine"] == "vllm"
    assert found["identity"]["limits"] == {"max_model_len": 2048}
    assert found["metrics"]["running"] == "vllm:num_requests_running"


def test_probe_with_the_servers_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_KEY", "secret")
    with page_server(VLLM, key="secret") as url:
        without = run("probe", url)
        result = run("probe", url, "--api-key-env", "VLLM_KEY")

    assert str(without.exception).endswith("/v1/models answered 401: it wants an API key.")
    assert result.exit_code == 0
    assert "api_key_env: VLLM_KEY" in result.stdout
    assert "secret" not in result.stdout


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["http://127.0.0.1:9"], "Nothing answers there: /v1/models: "),
        (["localhost:8001"], "'localhost:8001' is no usable address; write http://host:port."),
        (["http://user:pw@127.0.0.1:9"], "is no usable address; write http://host:port."),
        (["http://127.0.0.1:9", "--api-key-env", "NOT_SET_AT_ALL"], "NOT_SET_AT_ALL is not set."),
    ],
)
def test_what_cannot_be_probed_is_said_in_a_sentence(arguments: list[str], sentence: str) -> None:
    result = run("probe", *arguments)

    assert isinstance(result.exception, ConfigError)
    assert sentence in str(result.exception)


def test_list_shows_adapters_and_backends_as_they_are(config) -> None:
    with page_server(VLLM) as url:
        file = config(
            {"name": "gpu", "adapter": "vllm", "url": [url, "http://127.0.0.1:9"]},
            {"name": "say", "adapter": "echo"},
        )
        result = run("list", "--config", file)

    assert result.exit_code == 0
    found = words(result)
    assert any(line.startswith("llamacpp llama.cpp 8007 ") for line in found)
    assert f"gpu-0 vllm {url} ready 0.32.0 tiny 3 running, 1 waiting, KV 25%" in found
    assert any(line.startswith("gpu-1 vllm http://127.0.0.1:9 not ready /health: ") for line in found)
    assert any(line.startswith("say echo inside the gateway ready") for line in found)


def test_list_as_json_has_the_reasons(config) -> None:
    file = config({"name": "gpu", "adapter": "vllm", "url": "http://127.0.0.1:9"})
    found = json.loads(run("list", "--config", file, "--json").stdout)

    assert {"worker", "vllm", "sglang", "trt", "llamacpp"} <= {a["name"] for a in found["adapters"]}
    [look] = found["backends"]
    assert (look["state"], look["load"]) == ("not ready", None)
    assert look["problem"].startswith("/health: ")


def test_a_managed_engine_without_a_url_is_looked_for_at_its_own_port(config) -> None:
    file = config({"name": "w", "adapter": "worker", "managed": {}})
    [look] = json.loads(run("list", "--config", file, "--json").stdout)["backends"]

    assert (look["url"], look["managed"]) == ("http://127.0.0.1:8006", True)


def test_up_waits_for_an_engine_that_is_loading(config) -> None:
    pages = dict(VLLM)
    pages["/health"] = (503, "")
    with page_server(pages) as url:
        file = config({"name": "gpu", "adapter": "vllm", "url": url})
        timer = threading.Timer(0.2, lambda: pages.update({"/health": (200, "")}))
        timer.start()
        result = run("up", "--config", file, "--wait-s", "20")
        timer.join()

    assert result.exit_code == 0
    assert words(result) == [f"gpu at {url}: ready, 0.32.0"]


def test_up_says_which_engine_is_not_ready_and_why(config) -> None:
    with page_server(VLLM) as url, page_server({**VLLM, "/health": (503, "")}) as loading:
        file = config(
            {"name": "gpu", "adapter": "vllm", "url": url},
            {"name": "late", "adapter": "vllm", "url": loading},
        )
        result = run("up", "--config", file, "--wait-s", "0")

    assert isinstance(result.exception, ConfigError)
    assert str(result.exception) == f"Not ready after 0 s: late at {loading}: /health answered 503."
    assert words(result) == [f"gpu at {url}: ready, 0.32.0"]

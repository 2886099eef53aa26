"""The `sluice-worker` command: what it says when something is wrong, and that it serves."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from parrot import running, write_folder

from sluice_worker.cli import listen, parse_memory
from sluice_worker.errors import ConfigError

COMMAND = [sys.executable, "-m", "sluice_worker"]


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, **environment},
        check=False,
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--dtype", "float8"], "--dtype is 'float8'; choose auto, float32 or bfloat16."),
        (["--quantization", "int2"], "--quantization is 'int2'; choose none, int8 or int4."),
        (["--kv-cache-dtype", "int4"], "--kv-cache-dtype is 'int4'; choose auto or int8."),
        (["--device", "tpu"], "--device is 'tpu'; choose"),
        (["--batching", "all"], "--batching is 'all'; choose none, static, dynamic or continuous."),
        (["--kv", "sparse"], "--kv is 'sparse'; choose dense or paged."),
        (["--batch-wait-ms", "-1"], "batch_wait_ms is -1; choose milliseconds from 0 to 60000."),
        (["--kv-memory", "lots"], "--kv-memory is 'lots'; write a size such as 2GiB"),
        (["--max-num-seqs", "0"], "max_num_seqs is 0"),
        (["--model", "./nowhere", "--port", "0"], "There is no model folder ./nowhere"),
        (["--host", "no such host"], "--host no such host is not an address"),
        (["--port", "99999"], "--port is 99999; choose a number from 0 to 65535."),
    ],
)
def test_a_wrong_setting_is_one_line_that_says_what_to_do(arguments: list[str], message: str) -> None:
    result = run("serve", *arguments)

    assert result.returncode == 1
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert line.startswith("sluice-worker: ")
    assert message in line


def test_a_port_that_is_taken_is_said_in_one_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]

        result = run("serve", SLUICE_WORKER_PORT=str(port))

    assert result.returncode == 1
    (line,) = result.stderr.splitlines()
    assert f"Cannot listen on 127.0.0.1 port {port}: Address already in use. Choose another --port" in line


def test_a_port_is_taken_from_the_moment_a_worker_has_it() -> None:
    with listen("127.0.0.1", 0) as first:
        port = first.getsockname()[1]

        with pytest.raises(ConfigError, match="Address already in use"):
            listen("127.0.0.1", port)


def test_a_model_that_cannot_be_loaded_ends_the_server_in_one_line(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "hollow")  # its config.json is empty

    result = run("serve", "--model", str(folder), "--port", "0")

    assert result.returncode == 1
    (line,) = result.stderr.splitlines()
    assert "config.json" in line


def test_help_names_every_setting_and_its_environment_variable() -> None:
    text = run("serve", "--help").stdout

    for option in (
        "--model",
        "--port",
        "--dtype",
        "--quantization",
        "--device",
        "--kv-memory",
        "--max-model-len",
    ):
        assert option in text
    assert "SLUICE_WORKER_MAX_NUM_SEQS" in text


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("4096", 4096),
        ("2GiB", 2 * 2**30),
        ("1.5 GB", 1_500_000_000),
        ("512m", 512_000_000),
        ("1KiB", 1024),
        ("0.5Ti", 2**39),
    ],
)
def test_memory_sizes(text: str, size: int) -> None:
    assert parse_memory(text) == size


def test_a_free_port_is_picked_and_ipv6_is_understood() -> None:
    with listen("127.0.0.1", 0) as listener:
        assert listener.getsockname()[1] > 0
    with pytest.raises(ConfigError):
        listen("256.256.256.256", 0)


def test_the_http_process_imports_neither_torch_nor_transformers() -> None:
    code = (
        "import sys, sluice_worker.cli, sluice_worker.server.lifecycle, sluice_worker.server.served_model\n"
        "import sluice_worker.loading.model_folder\n"
        "heavy = {'torch', 'transformers', 'numpy', 'fastapi', 'huggingface_hub'} & set(sys.modules)\n"
        "sys.exit(f'imported: {heavy}' if heavy else 0)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert result.returncode == 0, result.stderr


def test_serve_announces_where_it_listens_and_under_which_names() -> None:
    command = [*COMMAND, "serve", "--port", "0", "--served-model-name", "one", "--served-model-name", "two"]

    settings = [
        "--dtype",
        "float32",
        "--quantization",
        "int8",
        "--max-model-len",
        "64",
        "--kv-memory",
        "8MiB",
    ]
    with running([*command, *settings]) as worker:
        assert worker.ready_line.startswith("sluice-worker is ready: one at http://127.0.0.1:")
        assert "float32, int8 weights" in worker.ready_line
        assert [card["id"] for card in worker.http.get("/v1/models").json()["data"]] == ["one", "two"]
        model = worker.http.get("/model").json()
        assert (model["model"], model["dtype"], model["max_model_len"]) == ("one", "float32", 64)
        assert (model["quantization"], model["weight_bytes"]) == ("int8", 4_811_264)

"""`ops/engines`: what is installed for tests against real engines, as far as it goes without installing."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from repository import ROOT

from sluice_bench.peer_packages import PeerUnavailable
from sluice_bench.worker_targets import llama_command
from sluice_engines.llamacpp import LlamaCppAdapter

ENGINES = ROOT / "ops" / "engines"

LIBRARY = """
class Threads:
    n_threads = 0
class Model:
    path = ""
class CommonParams:
    def __init__(self):
        self.model, self.cpuparams, self.cpuparams_batch = Model(), Threads(), Threads()
def llama_flash_attn_type(number):
    return number
class Server:
    def __init__(self, chosen):
        self.listening_address = f"http://{chosen.hostnames[0]}:{chosen.port}"
        alias = ",".join(chosen.model_alias)
        print(chosen.model.path, alias, chosen.endpoint_metrics, chosen.cpuparams.n_threads, flush=True)
"""
"""What `llama_server.py` uses of xllamacpp, as far as it can be seen here."""


def module(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ENGINES / f"{name}.py")
    assert spec is not None and spec.loader is not None
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


@pytest.fixture
def program(tmp_path: Path) -> Path:
    """`llama-server` as it is installed, with a library that only says how it was called."""
    (tmp_path / "xllamacpp.py").write_text(LIBRARY)
    python = tmp_path / "python"
    python.symlink_to(sys.executable)
    installed: Path = module("install").with_launcher(python)
    return installed


def test_the_launcher_takes_what_the_adapter_starts_it_with(program: Path) -> None:
    arguments = [word.replace("{port}", "18007") for word in LlamaCppAdapter.start.arguments]
    with subprocess.Popen(
        [str(program), *arguments, "--model", "a.gguf", "--alias", "tiny", "--threads", "3"],
        env={**os.environ, "PYTHONPATH": str(program.parent)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as server:
        assert server.stdout is not None and server.stderr is not None
        said = server.stdout.readline()
        listening = server.stderr.readline()
        server.terminate()
        assert server.wait(timeout=10) == 0, "SIGTERM ends it in good order"

    assert said.split() == ["a.gguf", "tiny", "True", "3"]
    assert listening == "llama-server: http://127.0.0.1:18007\n"


def test_an_option_that_it_does_not_know_is_refused(program: Path) -> None:
    ended = subprocess.run([str(program), "-m", "x", "--mlock"], capture_output=True, text=True, timeout=30)

    assert ended.returncode == 2
    assert "--mlock" in ended.stderr


def test_what_cannot_be_installed_is_one_sentence_and_status_2(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    install = module("install")

    def unavailable(*_: object) -> Path:
        raise PeerUnavailable("the index has no such version")

    monkeypatch.setattr(install, "installed_script", unavailable)

    assert install.main(["vllm", "--folder", str(tmp_path)]) == 2
    assert capsys.readouterr().err.splitlines()[-1] == "install: the index has no such version"


def test_the_launcher_takes_what_the_bench_starts_it_with() -> None:
    words = llama_command(Path("llama-server"), Path("a.gguf"), 8007, threads=2)
    options = module("llama_server").parser().parse_args(words[1:])

    assert (options.model, options.port, options.threads, options.threads_batch) == ("a.gguf", 8007, 2, 2)
    assert (options.kv_unified, options.no_cache_prompt, options.cache_ram) == (True, True, 0)
    assert (options.batch_size, options.ubatch_size, options.flash_attn) == (2048, 512, "on")

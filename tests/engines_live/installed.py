"""Which real engines are on this machine, and how each is started on the bundled model.

`ops/engines/install.py` puts them where they are looked for here. Versions are pinned there.
"""

from __future__ import annotations

import os
import random
import shutil
import socket
from pathlib import Path
from typing import Any

from sluice_bench.gguf import write_gguf
from sluice_bench.llama_cpp import PACKAGE, VERSION
from sluice_bench.peer_packages import DEFAULT_FOLDER, VLLM_CPU, XLLAMACPP, PeerPackage

ROOT = Path(__file__).resolve().parents[2]
MODEL_FOLDER = ROOT / "worker-core" / "models" / "sluice-tiny"
MODEL = "sluice-tiny"
CONTEXT = 1024
VLLM_QUEUE = 6
"""Requests, waiting ones included, that vLLM takes before it answers 503."""

_VLLM_VARIABLES = {
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "HF_HUB_OFFLINE": "1",
}


def missing(engine: str) -> str | None:
    """Why an engine cannot be started here; `None` when it can."""
    if (
        engine == "worker"
        or (engine == "llamacpp" and llama_server())
        or (engine == "vllm" and vllm_python())
    ):
        return None
    return f"{engine} is not installed here; `python ops/engines/install.py {engine}` does it"


def origin(engine: str) -> str:
    """What an engine's program was made of."""
    if engine == "worker":
        return "this repository"
    folder = Path((llama_server() if engine == "llamacpp" else vllm_python()) or "/")
    return next(
        (f"{p.name} {p.version}" for p in (XLLAMACPP, VLLM_CPU) if _home(p) in folder.parents), folder.name
    )


def backend(engine: str, folder: Path) -> dict[str, Any]:
    """The engine's entry in `sluice.yaml`: managed, on a port of its own. `folder` is for its files."""
    managed = {"worker": _worker, "llamacpp": _llamacpp, "vllm": _vllm}[engine](folder)
    url = f"http://127.0.0.1:{_port()}"
    return {"name": engine, "adapter": engine, "url": url, "managed": managed}


def search_path() -> str:
    """PATH with llama.cpp's server on it: the adapter's own command has to find it."""
    server = llama_server()
    folders = [] if server is None else [str(Path(server).parent)]
    return os.pathsep.join([*folders, os.environ.get("PATH", "")])


def llama_server() -> str | None:
    """The program, as a wheel, as the bench builds it, or on PATH."""
    wheel = _home(XLLAMACPP) / "bin" / "llama-server"
    built = DEFAULT_FOLDER / f"{PACKAGE}-{VERSION}" / "build" / "bin" / "llama-server"
    return next((str(path) for path in (wheel, built) if path.is_file()), shutil.which("llama-server"))


def vllm_python() -> str | None:
    """The interpreter that has vLLM."""
    home = _home(VLLM_CPU)
    return str(home / "bin" / "python") if (home / "installed").exists() else None


def _port() -> int:
    """A free TCP port outside the range from which systems give ports away: vLLM takes many of these as it
    starts, and an engine that is started again wants its own back."""
    while True:
        port = random.randrange(20_000, 30_000)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port


def _home(package: PeerPackage) -> Path:
    return DEFAULT_FOLDER / f"{package.name}-{package.version}"


def _worker(folder: Path) -> dict[str, Any]:
    return {"args": ["--dtype", "float32"]}


def _llamacpp(folder: Path) -> dict[str, Any]:
    gguf = folder / f"{MODEL}.gguf"
    write_gguf(MODEL_FOLDER, gguf)
    arguments = ["--model", str(gguf), "--alias", MODEL, "--ctx-size", str(2 * CONTEXT), "--parallel", "2"]
    return {"args": [*arguments, "--threads", "1"]}


def vllm_environment(folder: Path) -> dict[str, str]:
    """Variables with which the program `vllm` is found, and works. The build for CPUs is a distribution of
    another name, and its program asks for the usual one, and by it for its device: `folder` has both."""
    named = folder / "names" / f"vllm-{VLLM_CPU.version}.dist-info"
    named.mkdir(parents=True)
    (named / "METADATA").write_text(f"Metadata-Version: 2.1\nName: vllm\nVersion: {VLLM_CPU.version}+cpu\n")
    path = os.pathsep.join([os.environ.get("PATH", ""), str(_home(VLLM_CPU) / "bin")])
    return _VLLM_VARIABLES | {"PATH": path, "PYTHONPATH": str(named.parent)}


def _vllm(folder: Path) -> dict[str, Any]:
    """The build for CPUs has no program of its own that works, so it is started as a module."""
    settings = [f"{name}={value}" for name, value in {**_VLLM_VARIABLES, "PYTHONPATH": ""}.items()]
    command = ["env", *settings, vllm_python(), "-m", "vllm.entrypoints.openai.api_server"]
    arguments = ["--model", str(MODEL_FOLDER), "--served-model-name", MODEL, "--max-model-len", str(CONTEXT)]
    arguments += ["--enforce-eager", "--dtype", "float32", "--max-num-seqs", "4"]
    arguments += ["--max-num-queued-reqs", str(VLLM_QUEUE)]
    arguments += ["--enable-auto-tool-choice", "--tool-call-parser", "hermes"]
    return {"command": [*command, "--host", "127.0.0.1", "--port", "{port}"], "args": arguments}

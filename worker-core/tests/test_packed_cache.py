"""Packed weights kept on disk: the same model, from a file that is right or not used."""

from __future__ import annotations

import logging
import os
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_models import SaveModel
from torch import Tensor

from sluice_worker.config import EngineConfig, QuantizationName
from sluice_worker.kernels.interface import PackedParts
from sluice_worker.loading import pages
from sluice_worker.loading.loader import LoadedModel, load_model
from sluice_worker.loading.model_folder import open_folder
from sluice_worker.loading.packed_cache import PackedCache, packed_key
from sluice_worker.loading.packed_file import (
    PackedFileError,
    PackedWeights,
    WeightSummary,
    read_packed,
    write_packed,
)

SUMMARY = WeightSummary(num_parameters=12, weight_bytes=1000, quantization="int8")


def weights(size: int = 5) -> PackedWeights:
    """One of everything."""
    panels = torch.arange(size, dtype=torch.uint8)
    scales, bias = torch.randn(3), torch.randn(3)
    return PackedWeights(
        SUMMARY,
        {"norm": torch.randn(7).bfloat16(), "table": torch.randn(3, 5)},
        {
            "a b": PackedParts(2, (3, 5), panels, scales, None),
            "c": PackedParts(1, (1, 2), panels, None, bias),
        },
    )


def tensors_of(found: PackedWeights) -> list[Tensor]:
    linears = [part for parts in found.linears.values() for part in parts[2:] if part is not None]
    return [*found.tensors.values(), *linears]


@settings(max_examples=30)
@given(size=st.integers(0, 5000))
def test_a_file_gives_back_what_was_written(size: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("packed") / "model.packed"
    written = weights(size)
    write_packed(path, written)
    read = read_packed(path)
    assert read.summary == SUMMARY
    assert {label: parts[:2] for label, parts in read.linears.items()} == {
        "a b": (2, (3, 5)),
        "c": (1, (1, 2)),
    }
    for before, after in zip(tensors_of(written), tensors_of(read), strict=True):
        assert before.dtype == after.dtype
        assert torch.equal(before, after)
        assert not after.numel() or after.data_ptr() % 64 == 0
    assert [entry.name for entry in path.parent.iterdir()] == ["model.packed"]


def cut(data: bytes) -> bytes:
    return data[:-1]


def longer(data: bytes) -> bytes:
    return data + b"\0"


def another_beginning(data: bytes) -> bytes:
    return b"SLUICEP0" + data[8:]


def no_header(data: bytes) -> bytes:
    return data[:16] + b"x" * (len(data) - 16)


def endless_header(data: bytes) -> bytes:
    return data[:8] + b"\xff" * 7 + b"\x0f" + data[16:]


@pytest.mark.parametrize(
    "damage", [cut, longer, another_beginning, no_header, endless_header, lambda data: b""]
)
def test_a_damaged_file_is_said_to_be_so_and_removed(
    damage: Callable[[bytes], bytes], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "key.packed"
    write_packed(path, weights())
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(PackedFileError, match=r"key\.packed"):
        read_packed(path)
    with caplog.at_level(logging.WARNING):
        assert PackedCache(tmp_path).find("key") is None
    assert "packing the weights anew" in caplog.text
    assert not path.exists()


def test_where_pages_are_small_weights_are_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, written = tmp_path / "key.packed", weights(3_000_000)
    write_packed(path, written)
    for huge in (0, None, 2**40):
        monkeypatch.setattr(pages, "_huge_bytes", lambda mapped, huge=huge: huge)
        found = read_packed(path)
        assert all(torch.equal(*pair) for pair in zip(tensors_of(written), tensors_of(found), strict=True))
        names = {line.split()[-1] for line in Path("/proc/self/maps").read_text().splitlines()}
        assert (str(path) in names) == (huge != 0)


def test_huge_pages_are_counted_of_the_mapping_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "key.packed"
    write_packed(path, weights())
    mapped = torch.from_file(str(path), shared=False, size=path.stat().st_size, dtype=torch.uint8)
    assert pages._huge_bytes(mapped) == 0
    assert pages._huge_bytes(mapped[64:]) is None


def test_what_was_not_used_for_longest_makes_room(tmp_path: Path) -> None:
    cache = PackedCache(tmp_path, smallest=0, largest=45_000)
    for age, key in enumerate(("new", "old", "used")):
        write_packed(tmp_path / f"{key}.packed", weights(3000))  # 11 KB
        os.utime(tmp_path / f"{key}.packed", (0, 1000 - age))
    assert cache.find("used") is not None
    large = WeightSummary(num_parameters=1, weight_bytes=20_000, quantization="none")
    cache.keep("next", PackedWeights(large, {}, {}))
    assert {path.stem for path in tmp_path.iterdir()} == {"new", "used", "next"}


def test_interrupted_writers_leave_nothing_for_long(tmp_path: Path) -> None:
    (tmp_path / "a.1.part").touch()
    (tmp_path / "b.2.part").touch()
    os.utime(tmp_path / "a.1.part", (0, time.time() - 7200))
    PackedCache(tmp_path).keep("key", weights())
    assert {path.name for path in tmp_path.iterdir()} == {"b.2.part", "key.packed"}


def test_a_folder_that_cannot_be_written_costs_a_line(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    cache = PackedCache(tmp_path / "file")
    with caplog.at_level(logging.WARNING):
        assert cache.find("key") is None
        cache.keep("key", weights())
    assert "packed weights are not kept" in caplog.text


def test_small_and_huge_models_are_not_kept(tmp_path: Path) -> None:
    cache = PackedCache(tmp_path, smallest=100, largest=1000)
    assert [cache.wants(size) for size in (99, 100, 1000, 1001)] == [False, True, True, False]


def test_keys_follow_files_and_settings(save_model: SaveModel, tmp_path: Path) -> None:
    folder = open_folder(shutil.copytree(save_model("llama")[1], tmp_path / "model"), "m")
    key = packed_key(folder, "int8")
    assert key == packed_key(folder, "int8")
    assert key != packed_key(folder, "int4")
    os.utime(folder.weights[0], (0, 0))
    assert key != packed_key(folder, "int8")


def logits(loaded: LoadedModel, token: int = 5) -> Tensor:
    """Of one token, from a cache of its own."""
    from sluice_worker.batch import build_batch
    from sluice_worker.kv_cache import KVCache
    from sluice_worker.outputs import EngineRequest
    from sluice_worker.request import Request
    from sluice_worker.sampling_params import SamplingParams
    from sluice_worker.scheduler import ScheduledTokens

    cache = KVCache(
        loaded.config,
        loaded.kernels,
        num_blocks=2,
        block_size=loaded.block_size,
        dtype=loaded.cache_dtype,
        device=loaded.device,
    )
    request = Request(EngineRequest(request_id="r", prompt_token_ids=[token, 7, 9], params=SamplingParams()))
    request.block_ids = [0]
    return loaded.model.forward(
        build_batch([ScheduledTokens(request, 3)], cache.block_size, loaded.device), cache
    )


def load(folder: Path, cache: PackedCache | None, quantization: QuantizationName = "none") -> LoadedModel:
    """Load, and wait until the weights are kept."""
    config = EngineConfig(
        model=str(folder), dtype="bfloat16", kernels="cpu", num_kv_blocks=4, quantization=quantization
    )
    loaded = load_model(config, cache)
    for thread in threading.enumerate():
        if thread.name == "keep-weights":
            thread.join()
    return loaded


@pytest.mark.parametrize("quantization", ["none", "int8", "int4"])
@pytest.mark.parametrize("family", ["llama", "qwen2"])
def test_a_kept_model_is_the_same_bit_for_bit(
    quantization: QuantizationName, family: str, save_model: SaveModel, tmp_path: Path
) -> None:
    _, folder = save_model(family)
    cache = PackedCache(tmp_path / "cache", smallest=0)
    fresh = load(folder, cache, quantization)
    [kept] = (tmp_path / "cache").iterdir()
    os.utime(kept, (0, 0))
    again = load(folder, cache, quantization)
    assert kept.stat().st_mtime > 0  # it was used
    assert torch.equal(logits(fresh), logits(again))
    assert (again.num_parameters, again.weight_bytes, again.quantization) == (
        fresh.num_parameters,
        fresh.weight_bytes,
        fresh.quantization,
    )


def test_a_kept_model_does_not_read_the_checkpoint(save_model: SaveModel, tmp_path: Path) -> None:
    folder = shutil.copytree(save_model("llama")[1], tmp_path / "model")
    cache = PackedCache(tmp_path / "cache", smallest=0)
    fresh, weight_file = load(folder, cache), folder / "model.safetensors"
    times = weight_file.stat().st_mtime_ns
    weight_file.write_bytes(b"\0" * weight_file.stat().st_size)
    os.utime(weight_file, ns=(times, times))
    assert torch.equal(logits(fresh), logits(load(folder, cache)))


def test_models_below_the_size_leave_no_file(save_model: SaveModel, tmp_path: Path) -> None:
    _, folder = save_model("llama")
    load(folder, PackedCache(tmp_path / "cache"))
    assert not (tmp_path / "cache").exists()


def test_a_file_whose_time_cannot_be_set_is_used_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_packed(tmp_path / "key.packed", weights())

    def refuse(path: Path) -> None:
        raise PermissionError(path)

    monkeypatch.setattr("sluice_worker.loading.packed_cache.os.utime", refuse)
    assert PackedCache(tmp_path).find("key") is not None
    assert (tmp_path / "key.packed").exists()

"""GGUF files: the tokens of the floats that the blocks stand for, the tokenizer, and what is refused."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any, cast

import gguf
import numpy as np
import pytest
import torch
from forced_text import log_probabilities
from gguf import GGMLQuantizationType as Type
from gguf_models import random_blocks, write_gguf
from hypothesis import given, settings
from hypothesis import strategies as st
from parrot import running
from tiny_models import VOCAB_SIZE, SaveModel
from tokenizers import Tokenizer as FastTokenizer
from tokenizers import models, pre_tokenizers, trainers
from transformers import GPT2Tokenizer, LlamaTokenizer, Qwen2Tokenizer

from sluice_worker.config import EngineConfig
from sluice_worker.engine import Engine
from sluice_worker.errors import CheckpointError, UnsupportedModelError
from sluice_worker.kernels.cpu.build import find_compiler
from sluice_worker.loading.gguf_blocks import BLOCK_TYPES, BlockType
from sluice_worker.loading.gguf_file import read_gguf
from sluice_worker.loading.hf_config import read_model_config
from sluice_worker.loading.loader import load_model
from sluice_worker.loading.model_folder import resolve_model
from sluice_worker.quant.weights import QuantizedWeight
from sluice_worker.sampling_params import SamplingParams
from sluice_worker.server.gguf_tokenizer import build_tokenizer
from sluice_worker.server.tokenizer import load_tokenizer

BUNDLED = Path(__file__).parents[1] / "models" / "sluice-tiny"
PROMPT = torch.randint(0, VOCAB_SIZE, (40,), generator=torch.Generator().manual_seed(1)).tolist()
LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 500000.0,
    "factor": 32.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}


def config(path: Path, **settings: Any) -> EngineConfig:
    return EngineConfig(model=str(path), num_kv_blocks=8, **{"dtype": "float32", **settings})


def generate(path: Path, **settings: Any) -> tuple[list[int], str]:
    engine = Engine(config(path, kernels="reference", **settings))
    (result,) = engine.generate([PROMPT], SamplingParams(temperature=0, max_tokens=40))
    return result.token_ids, engine.model_info().quantization


# ---- weights ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3-tied", "qwen3-untied"])
@pytest.mark.parametrize("kind", [Type.F32, Type.F16, Type.BF16, Type.Q8_0, Type.Q4_0], ids=lambda k: k.name)
def test_the_tokens_are_those_of_the_dequantized_checkpoint(
    save_model: SaveModel, tmp_path: Path, family: str, kind: Type
) -> None:
    path, twin = write_gguf(save_model(family)[1], tmp_path, lambda _: kind)
    tokens, reported = generate(path)
    assert tokens == generate(twin)[0]
    assert reported == {Type.Q8_0: "int8", Type.Q4_0: "int4"}.get(kind, "none")


@pytest.mark.skipif(find_compiler() is None, reason="no C++ compiler")
@pytest.mark.parametrize("kind", [Type.F32, Type.Q8_0, Type.Q4_0], ids=lambda k: k.name)
def test_the_compiled_kernels_compute_with_the_same_codes(
    save_model: SaveModel, tmp_path: Path, kind: Type
) -> None:
    plain = save_model("llama", initializer_range=0.15)[1]
    path, twin = write_gguf(plain, tmp_path, lambda _: kind)
    found = log_probabilities(load_model(config(path, kernels="cpu")), PROMPT)
    exact = log_probabilities(load_model(config(twin, kernels="cpu")), PROMPT)
    assert (found - exact).abs().mean() < (1e-5 if kind is Type.F32 else 0.1)


def test_a_mixture_of_k_types_is_close_to_its_dequantized_checkpoint(
    save_model: SaveModel, tmp_path: Path
) -> None:
    """As Q4_K_M: values and the output layer have more bits than the rest, and share a product with it."""
    plain = save_model("llama", hidden_size=256, intermediate_size=256, initializer_range=0.06)[1]
    larger = ("v_proj", "down_proj", "lm_head")
    path, twin = write_gguf(
        plain, tmp_path, lambda name: Type.Q6_K if any(part in name for part in larger) else Type.Q4_K
    )
    loaded = load_model(config(path, kernels="reference"))
    assert loaded.quantization == "int4"
    found, exact = (
        log_probabilities(model, PROMPT) for model in (loaded, load_model(config(twin, kernels="reference")))
    )
    spread = (exact - exact.mean()).abs().mean()
    assert (found - exact).abs().mean() < 0.02 * spread


@pytest.mark.parametrize("kind", [Type.Q4_K, Type.Q5_K, Type.Q6_K], ids=lambda k: k.name)
def test_a_block_is_read_within_a_fraction_of_its_step(kind: Type) -> None:
    raw = random_blocks(kind, 6, 3)
    block = BLOCK_TYPES[int(kind)]
    weight = block.decode(torch.tensor(raw).view(6, 3, -1))
    assert isinstance(weight, QuantizedWeight)
    exact = torch.tensor(gguf.quants.dequantize(raw, kind)).view(-1, 32)
    largest = exact.abs().amax(dim=1, keepdim=True)
    error = (weight.dequantize().view(-1, 32) - exact).abs()
    assert (error <= largest * (1e-3 if kind is Type.Q4_K else 1 / 250)).all()


@settings(max_examples=40, deadline=None)
@given(
    kind=st.sampled_from([Type.Q8_0, Type.Q5_0, Type.Q5_1, Type.Q4_0, Type.Q4_1]), seed=st.integers(0, 2**31)
)
def test_simple_blocks_are_read_exactly_or_nearly(kind: Type, seed: int) -> None:
    weight = np.random.default_rng(seed).normal(size=(5, 96)).astype(np.float32)
    raw = gguf.quants.quantize(weight, kind)
    block = BLOCK_TYPES[int(kind)]
    found = block.decode(torch.tensor(raw).view(5, 3, block.num_bytes))
    assert isinstance(found, QuantizedWeight)
    exact = torch.tensor(gguf.quants.dequantize(raw, kind))
    atol = {Type.Q4_1: 2e-3, Type.Q5_1: 2e-2}.get(kind, 0.0)  # rounded minima; a 254th of the largest
    assert torch.allclose(found.dequantize(), exact, rtol=0, atol=atol)


def test_floats_can_be_quantized_at_load(save_model: SaveModel, tmp_path: Path) -> None:
    path, twin = write_gguf(save_model("llama")[1], tmp_path, lambda _: Type.F16)
    found = generate(path, quantization="int4")
    assert found == generate(twin, quantization="int4")
    assert found[1] == "int4"


def test_llama3s_rope_is_found_again(save_model: SaveModel, tmp_path: Path) -> None:
    model, plain = save_model("llama3", rope_parameters=LLAMA3_ROPE)
    base = 1 / (500000.0 ** (torch.arange(0, 16, 2) / 16))
    divisors = (base / model.model.rotary_emb.inv_freq).numpy()
    path, twin = write_gguf(plain, tmp_path, lambda _: Type.F32, rope_divisors=divisors)
    assert (
        read_model_config(resolve_model(str(path))).rope == read_model_config(resolve_model(str(twin))).rope
    )
    assert generate(path) == generate(twin)


def test_other_stretched_frequencies_are_refused(save_model: SaveModel, tmp_path: Path) -> None:
    path, _ = write_gguf(
        save_model("llama")[1], tmp_path, lambda _: Type.F32, rope_divisors=np.linspace(1, 8, 8)
    )
    with pytest.raises(UnsupportedModelError, match="not Llama 3's"):
        load_model(config(path))


# ---- the file ---------------------------------------------------------------------------------------------


def test_a_folder_with_one_file_is_that_file(save_model: SaveModel, tmp_path: Path) -> None:
    path, twin = write_gguf(save_model("llama")[1], tmp_path, lambda _: Type.F32)
    shutil.rmtree(twin)
    assert resolve_model(str(tmp_path)).gguf == path
    shutil.copy(path, tmp_path / "second.gguf")
    with pytest.raises(CheckpointError, match=r"several models: model\.gguf, second\.gguf\. Give the path"):
        resolve_model(str(tmp_path))
    for name, renamed in (("model", "m-00001-of-00002"), ("second", "m-00002-of-00002")):
        (tmp_path / f"{name}.gguf").rename(tmp_path / f"{renamed}.gguf")
    with pytest.raises(CheckpointError, match=r"several parts: .*llama-gguf-split --merge"):
        resolve_model(str(tmp_path))


@pytest.mark.parametrize("keep", [3, 20, 300, -1000])
def test_a_file_that_is_cut_short_is_refused(save_model: SaveModel, tmp_path: Path, keep: int) -> None:
    path, _ = write_gguf(save_model("llama")[1], tmp_path, lambda _: Type.Q8_0)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(CheckpointError, match=r"model\.gguf is (not a readable GGUF file|cut short)"):
        load_model(config(path))


@settings(max_examples=60, deadline=None)
@given(position=st.integers(0, 1500), value=st.integers(0, 255))
def test_a_damaged_header_is_read_or_refused(
    save_model: SaveModel, tmp_path_factory: pytest.TempPathFactory, position: int, value: int
) -> None:
    folder = tmp_path_factory.mktemp("damaged")
    path, _ = write_gguf(save_model("llama")[1], folder, lambda _: Type.Q8_0)
    data = bytearray(path.read_bytes())
    data[position] = value
    path.write_bytes(data)
    try:
        read_model_config(resolve_model(str(path)))
    except (CheckpointError, UnsupportedModelError) as error:
        assert "model.gguf" in str(error)


def test_another_architecture_and_another_type_are_refused(
    monkeypatch: pytest.MonkeyPatch, save_model: SaveModel, tmp_path: Path
) -> None:
    monkeypatch.delitem(cast(dict[int, BlockType], BLOCK_TYPES), int(Type.Q5_0))
    path, _ = write_gguf(save_model("llama")[1], tmp_path, lambda _: Type.Q5_0)
    with pytest.raises(UnsupportedModelError, match=r"type 6; supported are F32, .*Q4_K.*Use a Q8_0"):
        load_model(config(path))
    path.write_bytes(path.read_bytes().replace(b"\5\0\0\0\0\0\0\0llama", b"\5\0\0\0\0\0\0\0mamba", 1))
    with pytest.raises(UnsupportedModelError, match="architecture mamba; supported are llama, qwen2, qwen3"):
        load_model(config(path))


# ---- tokenizers -------------------------------------------------------------------------------------------

TEXTS = (
    "Hello world! It's 2026, isn't it?  Two  spaces\n\n\tand 12345 tabs\r\n",
    "Olá, naïve 東京 🦊 e\u0301",
    " leading and trailing ",
    "",
    "<|im_start|>user\nHi<|im_end|>\n",
    "<s>[INST] x [/INST]</s>",
)
CORPUS = [*TEXTS, "the quick brown fox jumps over the lazy dog " * 3, "it's that there then this 2026 1999"]


def byte_level(special: list[str]) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """A small vocabulary and its merges."""
    trained = FastTokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trained.train_from_iterator(
        CORPUS, trainers.BpeTrainer(vocab_size=400, initial_alphabet=alphabet, special_tokens=special)
    )
    return parts(trained)


def parts(trained: FastTokenizer) -> tuple[dict[str, int], list[tuple[str, str]]]:
    state = trained.to_str()
    model = json.loads(state)["model"]
    return model["vocab"], [tuple(pair) for pair in model["merges"]]


def metadata(kind: str, vocabulary: dict[str, int], special: list[str], **more: Any) -> dict[str, Any]:
    tokens = sorted(vocabulary, key=lambda token: vocabulary[token])
    types = [3 if token in special else 1 for token in tokens]
    found = {"model": kind, "tokens": tokens, "token_type": types, **more}
    return {f"tokenizer.ggml.{key}": value for key, value in found.items()}


@pytest.mark.parametrize(
    ("name", "twin_class"), [("qwen2", Qwen2Tokenizer), ("gpt-2", GPT2Tokenizer), ("default", GPT2Tokenizer)]
)
def test_byte_level_tokenizers_are_transformers(
    save_model: SaveModel, tmp_path: Path, name: str, twin_class: Any
) -> None:
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    vocabulary, merges = byte_level(special)
    more = {"pre": name, "merges": [" ".join(pair) for pair in merges], "eos_token_id": 0}
    entries = metadata("gpt2", vocabulary, special, **more) | {"tokenizer.chat_template": "{{ eos_token }}"}
    path, _ = write_gguf(save_model("llama")[1], tmp_path, lambda _: Type.F32, entries)
    twin = twin_class(vocab=vocabulary, merges=merges, additional_special_tokens=special)
    ours = load_tokenizer(resolve_model(str(path)))
    for text in TEXTS:
        ids = ours.encode_prompt(text)
        assert ids == twin.encode(text)
        normal = text.replace("e\u0301", "é") if name == "qwen2" else text
        assert b"".join(ours.token_bytes(token) for token in ids).decode() == normal
    assert ours.is_special(1)
    assert ours.chat_template == "{{ eos_token }}"
    assert ours.special_tokens == {"eos_token": "<|endoftext|>"}


def test_a_sentencepiece_tokenizer_is_transformers(save_model: SaveModel, tmp_path: Path) -> None:
    special = ["<unk>", "<s>", "</s>"]
    fallback = [f"<0x{byte:02X}>" for byte in range(256)]
    trained = FastTokenizer(models.BPE(byte_fallback=True))
    trained.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    trained.train_from_iterator(
        [text for text in CORPUS if text.isascii()],
        trainers.BpeTrainer(vocab_size=420, special_tokens=[*special, *fallback]),
    )
    vocabulary, merges = parts(trained)
    scores = [0.0 if token in special or token in fallback else float(-i) for token, i in vocabulary.items()]
    ordered = [score for _, score in sorted(zip(vocabulary.values(), scores, strict=True))]
    more = {
        "scores": ordered,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "unknown_token_id": 0,
        "add_bos_token": True,
    }
    path, _ = write_gguf(
        save_model("llama")[1], tmp_path, lambda _: Type.F32, metadata("llama", vocabulary, special, **more)
    )
    twin = LlamaTokenizer(vocab=vocabulary, merges=merges)
    ours = load_tokenizer(resolve_model(str(path)))
    # Before a text that begins with a space SentencePiece puts another one; transformers' class does not.
    for text in (text for text in TEXTS if not text.startswith((" ", "<s>"))):
        ids = ours.encode_prompt(text)
        assert ids == [1, *twin.encode(text, add_special_tokens=False)]
        assert build_tokenizer(read_gguf(path)).decode(ids) == twin.decode(ids, skip_special_tokens=True)
    assert ours.encode_prompt(" leading")[1:3] == [vocabulary["▁"]] * 2


def test_an_unknown_way_to_split_words_asks_for_tokenizer_json(save_model: SaveModel, tmp_path: Path) -> None:
    vocabulary, merges = byte_level([])
    more = {"pre": "runes", "merges": [" ".join(pair) for pair in merges]}
    entries = metadata("gpt2", vocabulary, [], **more)
    path, _ = write_gguf(save_model("llama")[1], tmp_path, lambda _: Type.F32, entries)
    with pytest.raises(UnsupportedModelError, match=r"called runes.*tokenizer\.json beside the file"):
        load_tokenizer(resolve_model(str(path)))
    shutil.copy(BUNDLED / "tokenizer.json", tmp_path)
    assert load_tokenizer(resolve_model(str(path))).encode_prompt("2026")


def test_a_merge_that_makes_no_token_is_refused(save_model: SaveModel, tmp_path: Path) -> None:
    entries = metadata("gpt2", {"a": 0, "b": 1}, [], pre="gpt-2", merges=["a b"])
    path, _ = write_gguf(save_model("llama")[1], tmp_path, lambda _: Type.F32, entries)
    with pytest.raises(CheckpointError, match="merges 'a' and 'b'"):
        load_tokenizer(resolve_model(str(path)))


def test_a_file_without_a_tokenizer_says_so(save_model: SaveModel, tmp_path: Path) -> None:
    path, _ = write_gguf(save_model("llama")[1], tmp_path, lambda _: Type.F32)
    with pytest.raises(CheckpointError, match=r"has no tokenizer: .*tokenizer\.ggml\.model"):
        load_tokenizer(resolve_model(str(path)))


# ---- served -----------------------------------------------------------------------------------------------


def test_the_bundled_model_answers_from_a_gguf_file(tmp_path: Path) -> None:
    entries = {"tokenizer.ggml.eos_token_id": 2, "tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": "own"}
    entries |= {"tokenizer.ggml.tokens": ["x"], "tokenizer.ggml.merges": ["x x"]}
    path, _ = write_gguf(BUNDLED, tmp_path, lambda _: Type.Q8_0, entries)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(BUNDLED / name, tmp_path)
    command = [sys.executable, "-m", "sluice_worker", "serve", "--port", "0", "--model", str(path)]
    with running([*command, "--kv-memory", "8MiB"]) as worker:
        question = [{"role": "user", "content": "What is the capital of France?"}]
        asked = {"model": "model", "messages": question, "temperature": 0}
        answer = worker.http.post("/v1/chat/completions", json=asked)
        assert "Paris" in answer.json()["choices"][0]["message"]["content"]
        model = worker.http.get("/model").json()
        assert (model["model"], model["quantization"], model["dtype"]) == ("model", "int8", "float32")

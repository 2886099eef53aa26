"""What gives an engine away: pages that a server answers, and what stands on them.

Data only; `identify.py` looks. No path here changes anything, empties a queue or wakes what sleeps: a look is
only a look. TensorRT-LLM's `/metrics` and llama.cpp's `/slots` are therefore not among them.
"""

from __future__ import annotations

import msgspec

MODELS_PATH = "/v1/models"

STRONG, WEAK = 3, 1
"""A strong clue is enough; a weak one is what another server may have copied, or a proxy kept."""


class Clue(msgspec.Struct, frozen=True, kw_only=True):
    """Something to find on a page that was answered with 2xx."""

    path: str
    weight: int = STRONG
    has: tuple[str, ...] = ()
    """Places in the JSON that have to be there, e.g. `data/0/id`."""
    says: tuple[tuple[str, str], ...] = ()
    """Places, and the text that has to stand there."""
    begins: str = ""
    """What the page begins with; for pages that are no JSON."""


class Limit(msgspec.Struct, frozen=True, kw_only=True):
    """A bound that the server tells."""

    name: str
    """What it is, in our words: `max_model_len`, `max_running`, ..."""
    path: str
    place: str


class Fingerprint(msgspec.Struct, frozen=True, kw_only=True):
    """One engine."""

    name: str
    """In our words, e.g. `ollama`."""
    title: str
    adapter: str
    """The adapter that a backend for it needs."""
    clues: tuple[Clue, ...]
    version: tuple[tuple[str, str], ...] = ()
    """Paths and places where it says its version, in the order of preference."""
    limits: tuple[Limit, ...] = ()
    source: str
    """Where the pages are described."""


def _owner(owner: str) -> Clue:
    return Clue(path=MODELS_PATH, weight=WEAK, says=(("data/0/owned_by", owner),))


def _baseline(name: str, title: str) -> Fingerprint:
    """The baseline server of this distribution, around one runtime."""
    return Fingerprint(
        name=name,
        title=title,
        adapter=name,
        clues=(Clue(path=MODELS_PATH, says=(("data/0/owned_by", f"sluice-baseline-{name}"),)),),
        limits=(Limit(name="max_model_len", path=MODELS_PATH, place="data/0/max_model_len"),),
        source="engines/sluice_engines/baseline/app.py",
    )


FINGERPRINTS: tuple[Fingerprint, ...] = (
    Fingerprint(
        name="worker",
        title="Sluice worker",
        adapter="worker",
        clues=(Clue(path="/model", has=("kv_bytes_per_token", "num_kv_blocks", "kernels")),),
        limits=(
            Limit(name="max_model_len", path="/model", place="max_model_len"),
            Limit(name="max_running", path="/model", place="max_num_seqs"),
            Limit(name="max_num_batched_tokens", path="/model", place="max_num_batched_tokens"),
            Limit(name="kv_blocks", path="/model", place="num_kv_blocks"),
            Limit(name="kv_block_tokens", path="/model", place="block_size"),
        ),
        source="recorded",
    ),
    Fingerprint(
        name="sluice",
        title="Sluice gateway",
        adapter="openai_compatible",
        clues=(Clue(path=MODELS_PATH, has=("data/0/display_name",), says=(("data/0/owned_by", "sluice"),)),),
        source="recorded",
    ),
    _baseline("transformers", "transformers"),
    _baseline("onnx", "ONNX Runtime"),
    Fingerprint(
        name="vllm",
        title="vLLM",
        adapter="vllm",
        clues=(
            _owner("vllm"),
            Clue(path=MODELS_PATH, says=(("data/0/owned_by", "vllm"),), has=("data/0/max_model_len",)),
        ),
        version=(("/version", "version"),),
        limits=(Limit(name="max_model_len", path=MODELS_PATH, place="data/0/max_model_len"),),
        source="recorded from 0.32",
    ),
    Fingerprint(
        name="llamacpp",
        title="llama.cpp",
        adapter="llamacpp",
        clues=(
            Clue(path="/props", has=("default_generation_settings", "total_slots")),
            _owner("llamacpp"),
        ),
        version=(("/props", "build_info"),),
        limits=(
            Limit(name="max_model_len", path="/props", place="default_generation_settings/n_ctx"),
            Limit(name="max_running", path="/props", place="total_slots"),
        ),
        source="recorded",
    ),
    Fingerprint(
        name="tgi",
        title="Text Generation Inference",
        adapter="tgi",
        clues=(
            Clue(path="/info", says=(("router", "text-generation-router"),)),
            Clue(path="/info", has=("model_id", "max_concurrent_requests", "max_total_tokens")),
        ),
        version=(("/info", "version"),),
        limits=(
            Limit(name="max_model_len", path="/info", place="max_total_tokens"),
            Limit(name="max_input_tokens", path="/info", place="max_input_tokens"),
            Limit(name="max_input_tokens", path="/info", place="max_input_length"),
            Limit(name="max_concurrent_requests", path="/info", place="max_concurrent_requests"),
            Limit(name="max_batch_total_tokens", path="/info", place="max_batch_total_tokens"),
        ),
        source="huggingface/text-generation-inference v3.3.7, v2.4.1 and v1.4.5, router/src/lib.rs",
    ),
    Fingerprint(
        name="sglang",
        title="SGLang",
        adapter="sglang",
        clues=(
            Clue(path="/get_model_info", has=("model_path", "tokenizer_path", "is_generation")),
            Clue(path="/model_info", has=("model_path", "tokenizer_path", "is_generation")),
            _owner("sglang"),
        ),
        version=(("/server_info", "version"), ("/get_server_info", "version")),
        limits=(
            Limit(name="max_model_len", path=MODELS_PATH, place="data/0/max_model_len"),
            Limit(name="kv_capacity_tokens", path="/server_info", place="max_total_num_tokens"),
            Limit(name="kv_capacity_tokens", path="/get_server_info", place="max_total_num_tokens"),
            Limit(name="max_running", path="/server_info", place="max_running_requests"),
            Limit(name="max_running", path="/get_server_info", place="max_running_requests"),
        ),
        source="SGLang's manual, native APIs (docs.sglang.io/basic_usage/native_api.html)",
    ),
    Fingerprint(
        name="trt",
        title="TensorRT-LLM",
        adapter="trt",
        clues=(
            Clue(
                path=MODELS_PATH,
                says=(("data/0/owned_by", "tensorrt_llm"),),
            ),
        ),
        version=(("/version", "version"),),
        source="NVIDIA/TensorRT-LLM, tensorrt_llm/serve/openai_protocol.py and openai_server.py",
    ),
    Fingerprint(
        name="ollama",
        title="Ollama",
        adapter="openai_compatible",
        clues=(
            Clue(path="/", begins="Ollama is running"),
            Clue(path="/api/tags", has=("models",)),
        ),
        version=(("/api/version", "version"),),
        source="docs.ollama.com/api; ollama/ollama, docs/api.md",
    ),
    Fingerprint(
        name="lmstudio",
        title="LM Studio",
        adapter="openai_compatible",
        clues=(
            Clue(path="/api/v0/models", has=("data/0/arch", "data/0/compatibility_type", "data/0/state")),
            Clue(path="/api/v0/models", weight=WEAK, has=("data",)),
        ),
        limits=(Limit(name="max_model_len", path="/api/v0/models", place="data/0/max_context_length"),),
        source="lmstudio.ai/docs, REST API v0 (0.3.6)",
    ),
)
"""In the order in which ties are broken; there should be none."""

OPENAI_COMPATIBLE = Fingerprint(
    name="openai_compatible",
    title="OpenAI-compatible server",
    adapter="openai_compatible",
    clues=(Clue(path=MODELS_PATH, weight=WEAK, has=("data",)),),
    source="OpenAI's API reference, models",
)
"""What is left when nothing gives it away."""

"""The options of `sluice-worker`'s commands: names, environment variables and help texts.

Values are checked in `cli` and in `EngineConfig`, so that every mistake is reported in the same way.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Model = Annotated[
    str,
    typer.Option(
        envvar="SLUICE_WORKER_MODEL",
        help="A model folder, a GGUF file, a Hub name such as Qwen/Qwen3-0.6B, or a bundled model.",
    ),
]
Host = Annotated[
    str,
    typer.Option(
        envvar="SLUICE_WORKER_HOST",
        help="Address to listen on. There is no authentication: use a gateway beyond this machine.",
    ),
]
Port = Annotated[
    int, typer.Option(envvar="SLUICE_WORKER_PORT", help="Port to listen on; 0 picks a free one.")
]
DType = Annotated[
    str,
    typer.Option(
        envvar="SLUICE_WORKER_DTYPE",
        metavar="auto|float32|bfloat16",
        help="Type of weights and activations; auto takes the checkpoint's.",
    ),
]
Quantization = Annotated[
    str,
    typer.Option(
        envvar="SLUICE_WORKER_QUANTIZATION",
        metavar="none|int8|int4",
        help="Quantize the weights at load: a half, or a third, of the memory of bfloat16.",
    ),
]
Device = Annotated[
    str,
    typer.Option(
        envvar="SLUICE_WORKER_DEVICE",
        metavar="auto|cpu|cuda",
        help="Where to run; auto takes CUDA when there is a GPU.",
    ),
]
Kernels = Annotated[
    str,
    typer.Option(
        envvar="SLUICE_WORKER_KERNELS",
        metavar="auto|cpu|reference",
        help="What computes; auto takes the fastest, reference is plain torch.",
    ),
]
PackedCache = Annotated[
    str | None,
    typer.Option(
        envvar="SLUICE_WORKER_PACKED_CACHE",
        metavar="DIR|off",
        help="Where large models' weights are kept as the kernels use them, for faster starts. "
        "[default: sluice/packed in the user's cache]",
    ),
]
MaxModelLen = Annotated[
    int | None,
    typer.Option(
        envvar="SLUICE_WORKER_MAX_MODEL_LEN",
        help="Longest prompt plus answer, in tokens. [default: the model's context]",
    ),
]
MaxNumSeqs = Annotated[
    int,
    typer.Option(envvar="SLUICE_WORKER_MAX_NUM_SEQS", help="Sequences computed together; more of them wait."),
]
MaxNumBatchedTokens = Annotated[
    int,
    typer.Option(
        envvar="SLUICE_WORKER_MAX_NUM_BATCHED_TOKENS",
        help="Tokens computed in one step. More: prompts finish sooner, running answers stutter more.",
    ),
]
DecodeStretch = Annotated[
    float,
    typer.Option(
        envvar="SLUICE_WORKER_DECODE_STRETCH",
        help="How many times longer steps of running answers may take beside one prompt; 0: any.",
    ),
]
KVMemory = Annotated[
    str | None,
    typer.Option(
        envvar="SLUICE_WORKER_KV_MEMORY",
        metavar="SIZE",
        help="Memory for the KV cache, such as 2GiB or 512MiB. [default: from the free memory]",
    ),
]
KVCacheDType = Annotated[
    str,
    typer.Option(
        envvar="SLUICE_WORKER_KV_CACHE_DTYPE",
        metavar="auto|int8",
        help="Type of the KV cache; int8 halves it (bfloat16), at the cost of a little precision.",
    ),
]
Batching = Annotated[
    str,
    typer.Option(
        envvar="SLUICE_WORKER_BATCHING",
        metavar="none|static|dynamic|continuous",
        help="When a waiting request may join: none runs one at a time, static and dynamic gather batches "
        "and run each to its end, continuous lets it join at the next step.",
    ),
]
MaxBatch = Annotated[
    int,
    typer.Option(envvar="SLUICE_WORKER_MAX_BATCH", help="Requests of a static or dynamic batch."),
]
BatchWaitMs = Annotated[
    float,
    typer.Option(
        envvar="SLUICE_WORKER_BATCH_WAIT_MS",
        help="How long a batch that is not full waits for more: dynamic from its first request's arrival, "
        "static from the end of the batch before at the earliest.",
    ),
]
ScheduleTickMs = Annotated[
    float,
    typer.Option(
        envvar="SLUICE_WORKER_SCHEDULE_TICK_MS",
        help="Least time between two admissions to the batch, in any mode; 0 is none. Those who run go on.",
    ),
]
KV = Annotated[
    str,
    typer.Option(
        envvar="SLUICE_WORKER_KV",
        metavar="dense|paged",
        help="KV memory of a request: paged gives blocks as it grows, dense reserves prompt plus max_tokens "
        "in one piece and shares no prefixes, for comparison.",
    ),
]
PrefixCaching = Annotated[
    bool,
    typer.Option(envvar="SLUICE_WORKER_PREFIX_CACHING", help="Reuse computed prefixes that prompts share."),
]
Threads = Annotated[
    int | None,
    typer.Option(
        envvar="SLUICE_WORKER_THREADS", help="CPU threads of one operation. [default: torch's choice]"
    ),
]
Isa = Annotated[
    str | None,
    typer.Option(
        metavar="avx512|avx2|plain", help="Instruction set of the kernels. [default: the best of this CPU]"
    ),
]
Turns = Annotated[int, typer.Option(min=1, help="Times that each kernel is measured; its median is shown.")]
ServedModelName = Annotated[
    list[str] | None,
    typer.Option(
        envvar="SLUICE_WORKER_SERVED_MODEL_NAME",
        help="Name that requests use for the model; repeat for more. [default: the model's own]",
    ),
]
DrainSeconds = Annotated[
    float,
    typer.Option(
        "--drain-seconds",
        envvar="SLUICE_WORKER_DRAIN_SECONDS",
        min=0,
        help="How long requests in flight may go on after SIGTERM or Ctrl-C.",
    ),
]
Variants = Annotated[
    str,
    typer.Option(
        metavar="NAME,NAME...",
        help="The first is the reference; none is the model as it is. A + joins settings: int8+kv-int8.",
    ),
]
CorpusFile = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="A text, or .jsonl with an object with 'text' or 'messages' on each line. [default: our own]",
    ),
]
Window = Annotated[
    int, typer.Option(min=2, help="Tokens that are read together; longer conversations are left out.")
]
Prompts = Annotated[int, typer.Option(min=1, help="Prompts that are continued greedily.")]
MaxTokens = Annotated[int, typer.Option(min=1, help="Longest continuation, in tokens.")]
JsonFile = Annotated[
    Path | None, typer.Option("--json", metavar="FILE", help="Where to write the figures, too.")
]
ModelArgument = Annotated[
    str, typer.Argument(metavar="MODEL", help="A Hugging Face model folder, a Hub name, or a bundled model.")
]
Out = Annotated[str, typer.Argument(metavar="OUT", help="The folder to write; it must not exist.")]
To = Annotated[
    str,
    typer.Option(
        metavar="int8|int4|gguf[-f16|-bf16|-q8_0|-q4_0]",
        help="int8, int4: as `serve --quantization`. gguf: one file, model.gguf, in the type of the "
        "checkpoint's floats, or another one.",
    ),
]
StageSource = Annotated[
    str,
    typer.Argument(
        metavar="MODEL", help="A Hub name such as Qwen/Qwen3-0.6B, a bundled model, a folder or a GGUF file."
    ),
]
StageOut = Annotated[
    Path,
    typer.Argument(metavar="OUT", help="The folder to stage into, such as /models/vllm."),
]
StageTo = Annotated[
    str | None,
    typer.Option(
        "--to",
        envvar="SLUICE_WORKER_STAGE_TO",
        metavar="int8|int4|gguf[-f16|-bf16|-q8_0|-q4_0]",
        help="Convert on the way, as `quantize`. [default: leave it as it is]",
    ),
]
StageRevision = Annotated[
    str | None,
    typer.Option(
        "--revision",
        envvar="SLUICE_WORKER_STAGE_REVISION",
        help="Branch, tag or commit of a Hub repository. Once it is staged, nobody asks whether a branch has "
        "moved: name another commit to change it.",
    ),
]
StageInclude = Annotated[
    list[str] | None,
    typer.Option(
        "--include",
        metavar="PATTERN",
        help="Stage only such files, e.g. '*q4_k_m.gguf'; repeat for more. [default: safetensors weights and "
        "what engines read beside them; of a folder, everything]",
    ),
]
StageExclude = Annotated[
    list[str] | None,
    typer.Option("--exclude", metavar="PATTERN", help="Leave such files out; repeat for more."),
]
StageRehash = Annotated[
    bool,
    typer.Option(
        "--rehash",
        help="Hash everything that is there, and fetch again what differs, whatever times and sizes say.",
    ),
]
StageVerifyOnly = Annotated[
    bool,
    typer.Option(
        "--verify-only", help="Hash everything that is there and change nothing; status 1 if it differs."
    ),
]
Force = Annotated[bool, typer.Option("--force", help="Replace OUT if it exists.")]

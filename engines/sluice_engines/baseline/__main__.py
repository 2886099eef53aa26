"""The command `python -m sluice_engines.baseline`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from sluice_engines.baseline.runtime import Runtime

RUNTIMES = ("transformers", "onnx")


def main(arguments: list[str] | None = None) -> int:
    """Serve until interrupted; 1 when the model cannot be loaded, 2 when a package is missing."""
    options = _parser().parse_args(arguments)
    folder = Path(options.model)
    if not folder.is_dir():
        return _fail(f"There is no folder {folder}; give --model a checkpoint's folder.", 1)
    try:
        import uvicorn
        from transformers import AutoTokenizer

        from sluice_engines.baseline.app import App
        from sluice_engines.baseline.batcher import Batcher

        runtime = _load(options, folder)
    except ImportError as error:
        package = f"sluice-engines[{options.runtime}]"
        return _fail(f"{error}; install it with: pip install '{package}'", 2)
    except (OSError, ValueError) as error:
        return _fail(f"The model in {folder} cannot be loaded: {error}", 1)
    name = options.served_model_name or folder.resolve().name
    batcher = Batcher(runtime, wait_s=options.batch_wait_ms / 1000)
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    app = App(runtime, tokenizer, name, batcher)
    uvicorn.run(app, host=options.host, port=options.port, log_level="warning", lifespan="on")
    return 0


def _load(options: argparse.Namespace, folder: Path) -> Runtime:
    """Only the runtime that is asked for is imported."""
    if options.runtime == "onnx":
        from sluice_engines.baseline.onnx_runtime import OnnxRuntime

        return OnnxRuntime(folder)
    from sluice_engines.baseline.transformers_runtime import TransformersRuntime

    return TransformersRuntime(
        folder, dtype=options.dtype, device=options.device, max_batch=options.max_batch_size
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m sluice_engines.baseline",
        description="A plain server with static batching around transformers or ONNX Runtime.",
    )
    parser.add_argument("--model", required=True, help="Folder of the checkpoint.")
    parser.add_argument("--runtime", choices=RUNTIMES, default="transformers")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8008)
    parser.add_argument("--served-model-name", help="Default: the folder's name.")
    parser.add_argument("--max-batch-size", type=int, default=8, help="ONNX Runtime takes one at a time.")
    parser.add_argument("--batch-wait-ms", type=float, default=5.0, help="How long a batch waits to fill.")
    parser.add_argument("--dtype", choices=("float32", "bfloat16", "float16"), default="float32")
    parser.add_argument("--device", default="cpu", help="torch's name of a device, e.g. cuda:0.")
    return parser


def _fail(message: str, status: int) -> int:
    sys.stderr.write(f"{message}\n")
    return status


if __name__ == "__main__":
    sys.exit(main())

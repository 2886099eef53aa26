"""llama.cpp's server out of the package xllamacpp, with the options of `llama-server` that are needed here.

The library is llama.cpp's own server (tools/server), HTTP included; what it answers is what `llama-server`
answers, but for the page at `/`. It runs until SIGTERM or SIGINT.
"""

from __future__ import annotations

import argparse
import signal
import sys
from typing import Any


def parser() -> argparse.ArgumentParser:
    """llama-server's options, under its names."""
    found = argparse.ArgumentParser(prog="llama-server", allow_abbrev=False)
    found.add_argument("-m", "--model", required=True)
    found.add_argument("--host", default="127.0.0.1")
    found.add_argument("--port", type=int, default=8080)
    found.add_argument("-a", "--alias")
    found.add_argument("-c", "--ctx-size", type=int, default=0)
    found.add_argument("-np", "--parallel", type=int, default=1)
    found.add_argument("-t", "--threads", type=int)
    found.add_argument("-tb", "--threads-batch", type=int)
    found.add_argument("-b", "--batch-size", type=int, default=2048)
    found.add_argument("-ub", "--ubatch-size", type=int, default=512)
    found.add_argument("-fa", "--flash-attn", choices=("on", "off", "auto"), default="auto")
    found.add_argument("--kv-unified", action="store_true")
    found.add_argument("--no-cache-prompt", action="store_true")
    found.add_argument("--cache-ram", type=int, default=8192)
    found.add_argument("--metrics", action="store_true")
    found.add_argument("--slots", action="store_true")
    found.add_argument("--jinja", action="store_true")
    return found


def parameters(options: argparse.Namespace) -> Any:
    """The options as the library takes them."""
    import xllamacpp

    chosen = xllamacpp.CommonParams()
    chosen.model.path = options.model
    chosen.hostnames = [options.host]
    chosen.port = options.port
    chosen.n_ctx = options.ctx_size
    chosen.n_parallel = options.parallel
    chosen.endpoint_metrics = options.metrics
    chosen.endpoint_slots = options.slots
    chosen.use_jinja = True
    chosen.n_batch, chosen.n_ubatch = options.batch_size, options.ubatch_size
    chosen.kv_unified = options.kv_unified
    chosen.cache_prompt = not options.no_cache_prompt
    chosen.cache_ram_mib = options.cache_ram
    if options.flash_attn != "auto":
        chosen.flash_attn_type = xllamacpp.llama_flash_attn_type(int(options.flash_attn == "on"))
    if options.alias:
        chosen.model_alias = {options.alias}
    if options.threads:
        chosen.cpuparams.n_threads = options.threads
        chosen.cpuparams_batch.n_threads = options.threads_batch or options.threads
    return chosen


def main(arguments: list[str]) -> None:
    """Serve until told to stop."""
    import xllamacpp

    options = parser().parse_args(arguments)
    stop = {signal.SIGTERM, signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, stop)
    server = xllamacpp.Server(parameters(options))
    sys.stderr.write(f"llama-server: {server.listening_address}\n")
    signal.sigwait(stop)


if __name__ == "__main__":
    main(sys.argv[1:])

"""The command `sluice-bench prompts`: writes the frozen corpus, or checks that it is as generated."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sluice_bench.terminal import console, fail
from sluice_bench.workloads.corpus import CORPUS_FILE, Corpus, decode, encode
from sluice_bench.workloads.corpus_generator import corpus_lines

Check = Annotated[
    bool, typer.Option("--check", help="Write nothing; status 1 when the file is not what would be written.")
]
Output = Annotated[Path, typer.Option(help="The corpus.", show_default="bench/data/prompts.jsonl")]


def prompts_command(check: Check = False, output: Output = CORPUS_FILE) -> None:
    """Write the prompts that all suites are made of, and print their digest.

    The same file every time, on any machine. It is kept in the repository; a change of it is a change of
    every workload, and shows in the digests of all runs.
    """
    made = encode(corpus_lines())
    held = output.read_bytes() if output.exists() else b""
    if check and held != made:
        fail(f"{output} is not what the generator makes; write it anew with: sluice-bench prompts")
    if held != made:
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_bytes(made)
    state = "is up to date" if held == made else "written"
    console.print(f"{output} {state}: {_description(decode(made))}", soft_wrap=True, highlight=False)


def _description(corpus: Corpus) -> str:
    return f"{len(corpus.prompts)} prompts, sha256 {corpus.sha256}"

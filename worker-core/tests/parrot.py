"""A worker whose model repeats what it is told: a byte tokenizer, a plain template, and the parrot engine.

Token ids: 0 ends a turn, 1 begins one, 2 is a special token with no meaning, byte b is b + 3.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import tokenizers
from tokenizers import AddedToken, decoders, models, pre_tokenizers
from transformers.convert_slow_tokenizer import bytes_to_unicode

FAKES = Path(__file__).parent / "fakes"
CONTEXT = 256
END, BEGIN, NOISE = "<|end|>", "<|begin|>", "<|noise|>"
FIRST_BYTE = 3
TEMPLATE = (
    "{% if tools %}{{ tools | tojson }}{% endif %}"
    "{% for message in messages %}{{ message.content }}{% endfor %}"
)


def byte_tokenizer() -> tokenizers.Tokenizer:
    """A byte-level tokenizer without merges: every byte is a token."""
    vocabulary = {END: 0, BEGIN: 1, NOISE: 2}
    vocabulary |= {character: byte + FIRST_BYTE for byte, character in bytes_to_unicode().items()}  # type: ignore[no-untyped-call]
    tokenizer = tokenizers.Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in (END, BEGIN, NOISE)])
    return tokenizer


def token_ids(text: str) -> list[int]:
    """Ids of a text without special tokens."""
    return [byte + FIRST_BYTE for byte in text.encode()]


def write_folder(folder: Path, template: str | None = TEMPLATE, **generation_config: object) -> Path:
    """A model folder with all that the server process reads, and no weights."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").touch()
    (folder / "generation_config.json").write_text(json.dumps(generation_config))
    byte_tokenizer().save(str(folder / "tokenizer.json"))
    config = {"eos_token": END, "bos_token": {"content": BEGIN}, "chat_template": template}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder


class Worker:
    """A running server process and how to talk to it."""

    def __init__(self, process: subprocess.Popen[str], ready_line: str) -> None:
        self.process = process
        self.ready_line = ready_line
        self.url = ready_line.split(" at ")[1].split("/v1")[0]
        self.http = httpx.Client(base_url=self.url, timeout=30)

    @property
    def port(self) -> int:
        return int(self.url.rsplit(":", 1)[1])

    @property
    def engine(self) -> psutil.Process:
        (child,) = psutil.Process(self.process.pid).children()
        return child

    def metric(self, name: str) -> float:
        """The sum over a metric's labels."""
        lines = self.http.get("/metrics").text.splitlines()
        found = [line for line in lines if line.split("{")[0].split(" ")[0] == f"sluice_worker_{name}"]
        assert found, name
        return sum(float(line.rsplit(" ", 1)[1]) for line in found)


@contextlib.contextmanager
def parrot_worker(folder: Path, *, keep_alive_s: float = 15.0, drain_s: float = 1.0) -> Iterator[Worker]:
    """A server of `folder` in its own process; the folder's name chooses the parrot's fate."""
    script = [sys.executable, str(FAKES / "parrot_server.py"), str(folder), str(keep_alive_s), str(drain_s)]
    with running(script) as worker:
        yield worker


@contextlib.contextmanager
def running(command: list[str]) -> Iterator[Worker]:
    """A server process, once its ready line is there; it and its engine are gone afterwards."""
    environment = {**os.environ, "PYTHONPATH": str(FAKES), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    )
    assert process.stdout is not None and process.stderr is not None
    with process.stdout, process.stderr:
        line = process.stdout.readline()
        assert line, process.stderr.read()
        children = psutil.Process(process.pid).children(recursive=True)
        try:
            worker = Worker(process, line)
            with worker.http:
                yield worker
        finally:
            process.terminate()
            process.wait(timeout=30)
            _, alive = psutil.wait_procs(children, timeout=10)
            assert not alive

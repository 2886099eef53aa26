"""Train sluice-tiny (or its draft) from nothing to a Hugging Face folder: corpus, tokenizer, loop, export.

    python -m training.train --model sluice-tiny --work /tmp/train --steps 4800 --decay-steps 2600
    python -m training.train --model sluice-tiny --work /tmp/train --export models/sluice-tiny

The learning rate is constant after a short warm-up and falls linearly to zero over the last `--decay-steps`;
rows are 384 tokens long before the decay and 1024 during it, so that every position has been trained. The
loop writes a checkpoint now and then and goes on from the last one when started again.
"""

import argparse
import itertools
import json
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from tokenizers import Tokenizer
from torch import Tensor

from .chat import segments
from .corpus import SEED, shard_documents
from .model import SHAPES, Llama
from .muon import Muon
from .packing import shard
from .tokenizer import save_tokenizer, train_tokenizer

TOKENIZER_DOCUMENTS = 30_000
SHARD_STEPS = 50
WARMUP_STEPS = 60
SHORT_ROW, LONG_ROW = 384, 1024


@dataclass(frozen=True)
class Plan:
    """How far to train: all steps, how many of them decay the learning rate on long rows, and their size."""

    steps: int
    decay_steps: int
    batch_tokens: int

    def row_length(self, step: int) -> int:
        """Return the row length at `step`."""
        return SHORT_ROW if step < self.steps - self.decay_steps else LONG_ROW

    def rate(self, step: int) -> float:
        """Return the share of the peak learning rate at `step`."""
        return min(1.0, (step + 1) / WARMUP_STEPS, (self.steps - step) / max(1, self.decay_steps))


class Trainer:
    """A model with its optimizers and the number of steps and tokens it has seen."""

    def __init__(
        self, name: str, work: Path, matrix_rate: float, other_rate: float, compiled: bool = False
    ) -> None:
        """Build the model and load the last checkpoint of `work`, if there is one."""
        torch.manual_seed(SEED)
        self.name, self.checkpoint = name, work / f"{name}.pt"
        self.model = Llama(SHAPES[name])
        self.logits = torch.compile(self.model) if compiled else self.model
        matrices = [p for n, p in self.model.named_parameters() if p.ndim == 2 and "embed" not in n]
        others = [p for n, p in self.model.named_parameters() if p.ndim < 2 or "embed" in n]
        self.optimizers: list[torch.optim.Optimizer] = [
            Muon(matrices, lr=matrix_rate, decay=0.05),
            torch.optim.AdamW(others, lr=other_rate, betas=(0.9, 0.98), weight_decay=0.0),
        ]
        self.peaks = (matrix_rate, other_rate)
        self.step = self.tokens = 0
        if self.checkpoint.exists():
            state = torch.load(self.checkpoint, weights_only=True)
            self.model.load_state_dict(state["model"])
            for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
                optimizer.load_state_dict(saved)
            self.step, self.tokens = state["step"], state["tokens"]

    def save(self) -> None:
        """Write the checkpoint; a crash while writing keeps the old one."""
        state = {
            "model": self.model.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "step": self.step,
            "tokens": self.tokens,
        }
        fresh = self.checkpoint.with_suffix(".new")
        torch.save(state, fresh)
        fresh.replace(self.checkpoint)

    def update(self, ids: Tensor, marks: Tensor, rate: float) -> float:
        """Take one step on ids and marks [rows, length + 1]; return the loss per trained token, in nats."""
        targets = ids[:, 1:].flatten()
        positions = marks[:, 1:].flatten().nonzero().squeeze(1)
        with torch.autocast("cpu", torch.bfloat16):
            logits = self.logits(ids[:, :-1], positions)
        loss = F.cross_entropy(logits.float(), targets[positions])
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        for optimizer, peak in zip(self.optimizers, self.peaks, strict=True):
            optimizer.param_groups[0]["lr"] = peak * rate
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        self.step += 1
        self.tokens += ids.shape[0] * (ids.shape[1] - 1)
        return loss.item()


def load_tokenizer(work: Path) -> Tokenizer:
    """Return the tokenizer of `work`, learning it from the start of the corpus the first time."""
    file = work / "tokenizer.json"
    if not file.exists():
        documents = itertools.islice(shard_documents(0), TOKENIZER_DOCUMENTS)
        train_tokenizer("".join(text for text, _ in segments(d)) for d in documents).save(str(file))
    return Tokenizer.from_file(str(file))


def batches(tokenizer: Tokenizer, plan: Plan, start: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the batch of every step from `start`; the rows depend on the step alone."""
    for first in range(start - start % SHARD_STEPS, plan.steps, SHARD_STEPS):
        length = plan.row_length(first)
        rows = plan.batch_tokens // length
        ids, marks = shard(tokenizer, first // SHARD_STEPS + 1, SHARD_STEPS * rows, length)
        for step in range(max(first, start), min(first + SHARD_STEPS, plan.steps)):
            part = slice((step - first) * rows, (step - first + 1) * rows)
            yield torch.from_numpy(ids[part]), torch.from_numpy(marks[part])


def train(trainer: Trainer, tokenizer: Tokenizer, plan: Plan, log: Path, until: int) -> None:
    """Run the loop of the plan up to step `until`, with a checkpoint and a log line every 25 steps."""
    mean, started, tokens = 0.0, time.monotonic(), trainer.tokens
    for ids, marks in itertools.islice(batches(tokenizer, plan, trainer.step), max(0, until - trainer.step)):
        loss = trainer.update(ids, marks, plan.rate(trainer.step))
        mean = loss if mean == 0.0 else 0.95 * mean + 0.05 * loss
        if trainer.step % 25 == 0 or trainer.step == until:
            speed = (trainer.tokens - tokens) / (time.monotonic() - started)
            line = (
                f"{trainer.name} step {trainer.step}/{plan.steps} tokens {trainer.tokens / 1e6:.2f}M "
                f"loss {mean:.4f} perplexity {math.exp(mean):.3f} {speed:.0f} tokens/s"
            )
            print(line, flush=True)
            with log.open("a") as file:
                file.write(line + "\n")
            trainer.save()


def export(trainer: Trainer, tokenizer: Tokenizer, folder: Path) -> None:
    """Write the model as a Hugging Face folder, weights in bfloat16."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = {
        f"model.{name}": value.detach().to(torch.bfloat16).contiguous()
        for name, value in trainer.model.state_dict().items()
    }
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(trainer.model.shape.config(), indent=2) + "\n")
    generation = {"do_sample": False, "eos_token_id": [2, 0], "pad_token_id": 0}
    (folder / "generation_config.json").write_text(json.dumps(generation, indent=2) + "\n")
    save_tokenizer(tokenizer, folder)


def main() -> None:
    """Parse the command line and train, or export the last checkpoint."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", choices=SHAPES, default="sluice-tiny")
    parser.add_argument("--work", type=Path, required=True, help="folder of checkpoints, tokenizer and log")
    parser.add_argument("--steps", type=int, default=4800, help="all steps of the run")
    parser.add_argument(
        "--decay-steps", type=int, default=2600, help="last steps, with a falling learning rate"
    )
    parser.add_argument("--until", type=int, help="stop after this step, to go on with another plan")
    parser.add_argument("--batch-tokens", type=int, default=3072, help="tokens of one step")
    parser.add_argument("--matrix-rate", type=float, default=0.014, help="peak learning rate of the matrices")
    parser.add_argument("--other-rate", type=float, default=0.003, help="peak learning rate of the rest")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--compile", action="store_true", help="use torch.compile, a fifth faster (needs a C++ compiler)"
    )
    parser.add_argument("--export", type=Path, metavar="FOLDER", help="write the last checkpoint and stop")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    arguments.work.mkdir(parents=True, exist_ok=True)
    tokenizer = load_tokenizer(arguments.work)
    trainer = Trainer(
        arguments.model, arguments.work, arguments.matrix_rate, arguments.other_rate, arguments.compile
    )
    if arguments.export:
        export(trainer, tokenizer, arguments.export)
    else:
        plan = Plan(arguments.steps, arguments.decay_steps, arguments.batch_tokens)
        until = arguments.until or arguments.steps
        train(trainer, tokenizer, plan, arguments.work / "log.txt", until)


if __name__ == "__main__":
    main()

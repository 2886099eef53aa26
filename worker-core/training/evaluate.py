"""Measure a model folder on held-out questions and text, with transformers, as any user would load it.

    python -m training.evaluate models/sluice-tiny --count 300
    python -m training.evaluate models/sluice-tiny --count 300 --card MODEL_CARD.md

Exact match means the whole turn, character for character, and the end token after it; decoding is greedy.
Perplexity is per token: of the right answers to the first hundred questions of a skill, and of a hundred
stories from an unused seed.
"""

import argparse
import math
import random
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer

from .corpus.stories import story
from .questions import SKILLS, Question, held_out_questions

STORIES = 100
MEASURED = 100
STORY_SEED = "held-out stories"
BATCH = 50
LONGEST_ANSWER = 96


@dataclass(frozen=True)
class Score:
    """The result of one skill: questions asked, answered exactly, and the perplexity of the right answers."""

    skill: str
    asked: int
    exact: int
    perplexity: float
    misses: tuple[tuple[Question, str], ...]


class Subject:
    """A model folder under test."""

    def __init__(self, folder: Path) -> None:
        """Load tokenizer and model in float32."""
        self.tokenizer: Any = AutoTokenizer.from_pretrained(folder, padding_side="left")
        self.model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)

    @torch.inference_mode()
    def answers(self, prompts: list[str]) -> list[str]:
        """Return the greedy continuation of every prompt, with its end token, in order."""
        texts: dict[int, str] = {}
        order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
        for batch in _batched(order, BATCH):
            inputs = self.tokenizer([prompts[i] for i in batch], return_tensors="pt", padding=True)
            inputs.pop("token_type_ids", None)
            output = self.model.generate(**inputs, max_new_tokens=LONGEST_ANSWER, do_sample=False)
            for i, row in zip(batch, output[:, inputs["input_ids"].shape[1] :], strict=True):
                texts[i] = self.tokenizer.decode(row, skip_special_tokens=False)
        return [texts[i].replace("<|endoftext|>", "") for i in range(len(prompts))]

    @torch.inference_mode()
    def forced(self, prompt: str, answer: str) -> tuple[Tensor, Tensor]:
        """Return logits [tokens, vocabulary] for the tokens of `answer` after `prompt`, and those tokens."""
        before = self.tokenizer(prompt)["input_ids"] if prompt else [self.tokenizer.pad_token_id]
        after = self.tokenizer(answer)["input_ids"]
        logits = self.model(torch.tensor([before + after])).logits[0, len(before) - 1 : -1]
        return logits, torch.tensor(after)

    def perplexity(self, pairs: list[tuple[str, str]]) -> float:
        """Return the perplexity per token over (prompt, answer) pairs."""
        nats, tokens = 0.0, 0
        for prompt, answer in pairs:
            logits, ids = self.forced(prompt, answer)
            nats += torch.nn.functional.cross_entropy(logits, ids, reduction="sum").item()
            tokens += len(ids)
        return math.exp(nats / tokens)


def _batched(items: list[int], size: int) -> list[tuple[int, ...]]:
    return [tuple(items[start : start + size]) for start in range(0, len(items), size)]


def score(subject: Subject, skill: str, count: int, seed: int = 1, perplexity: bool = True) -> Score:
    """Ask `count` held-out questions of one skill."""
    questions = held_out_questions(skill, count, seed)
    given = subject.answers([question.prompt for question in questions])
    misses = tuple((q, text) for q, text in zip(questions, given, strict=True) if text != q.answer)
    pairs = [(question.prompt, question.answer) for question in questions[:MEASURED]]
    measured = subject.perplexity(pairs) if perplexity else math.nan
    return Score(skill, count, count - len(misses), measured, misses)


def story_perplexity(subject: Subject) -> float:
    """Return the perplexity of stories that no training shard contains."""
    rng = random.Random(STORY_SEED)
    return subject.perplexity([("", story(rng)) for _ in range(STORIES)])


def agreement(draft: Subject, target: Subject, count: int = 25) -> float:
    """Return the share of the target's greedy tokens that the draft would choose after the same tokens."""
    prompts = [q.prompt for skill in SKILLS for q in held_out_questions(skill, count, seed=3)]
    agreed = tokens = 0
    for prompt, answer in zip(prompts, target.answers(prompts), strict=True):
        logits, ids = draft.forced(prompt, answer)
        agreed += int((logits.argmax(-1) == ids).sum())
        tokens += len(ids)
    return agreed / tokens


def table(scores: list[Score], stories: float) -> str:
    """Return the scores as the Markdown table of a model card."""
    lines = ["| skill | questions | exact match | perplexity |", "|---|---|---|---|"]
    lines += [f"| {s.skill} | {s.asked} | {s.exact / s.asked:.1%} | {s.perplexity:.3f} |" for s in scores]
    lines.append(f"| stories | {STORIES} texts | | {stories:.3f} |")
    return "\n".join(lines)


def write_card(card: Path, figures: str) -> None:
    """Replace the table between the two marks of a model card."""
    text = card.read_text()
    marks = r"(<!-- figures: [\w-]+ -->\n).*?(<!-- end -->)"
    card.write_text(
        re.sub(marks, lambda match: f"{match[1]}{figures}\n{match[2]}", text, count=1, flags=re.DOTALL)
    )


def main() -> None:
    """Parse the command line, ask every skill and print (or write) the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--count", type=int, default=300, help="questions per skill")
    parser.add_argument("--skills", nargs="*", choices=SKILLS, default=SKILLS)
    parser.add_argument("--misses", type=int, default=0, help="wrong answers to print per skill")
    parser.add_argument("--quick", action="store_true", help="exact match only")
    parser.add_argument(
        "--target", type=Path, help="only measure how often FOLDER guesses this model's tokens"
    )
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--card", type=Path, help="model card whose table is replaced")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    subject = Subject(arguments.folder)
    if arguments.target:
        print(f"agreement with {arguments.target}: {agreement(subject, Subject(arguments.target)):.1%}")
        return
    scores = []
    for skill in arguments.skills:
        scores.append(score(subject, skill, arguments.count, perplexity=not arguments.quick))
        print(f"{skill}: {scores[-1].exact}/{scores[-1].asked}", flush=True)
        for question, given in scores[-1].misses[: arguments.misses]:
            print(
                f"  asked    {question.prompt[-160:]!r}\n  expected {question.answer!r}\n  given    {given!r}"
            )
    if not arguments.quick:
        figures = table(scores, story_perplexity(subject))
        print(figures)
        if arguments.card:
            write_card(arguments.card, figures)


if __name__ == "__main__":
    main()

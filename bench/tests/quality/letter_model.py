"""A language model one can compute by hand: a token is a letter, the next one depends on the last alone."""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

LETTERS = "abcdefghijklmnopqrstuvwxyz .,"

Json = dict[str, Any]


class LetterModel:
    """`sharpness` is how much surer it is of the letter that follows in the alphabet."""

    def __init__(self, sharpness: float, tokenizer: bool = True, most_alternatives: int = 20) -> None:
        self._sharpness = sharpness
        self._tokenizer = tokenizer
        self._most_alternatives = most_alternatives
        self.prompts: list[Any] = []

    def logprobs_after(self, letter: str) -> dict[str, float]:
        """Of every letter."""
        place = LETTERS.index(letter)
        weights = {
            other: math.exp(self._sharpness / (1 + (LETTERS.index(other) - place - 1) % len(LETTERS)))
            for other in LETTERS
        }
        total = math.fsum(weights.values())
        return {other: math.log(weight / total) for other, weight in weights.items()}

    def perplexity(self, windows: list[str]) -> float:
        """The obvious way."""
        logs = [
            self.logprobs_after(before)[letter] for window in windows for before, letter in pairwise(window)
        ]
        return math.exp(-math.fsum(logs) / len(logs))

    def divergence(self, other: LetterModel, windows: list[str]) -> float:
        """The true KL, over the whole alphabet."""
        found = []
        for window in windows:
            for before in window[:-1]:
                p, q = self.logprobs_after(before), other.logprobs_after(before)
                found.append(math.fsum(math.exp(p[x]) * (p[x] - q[x]) for x in LETTERS))
        return math.fsum(found) / len(found)

    def answer(self, path: str, body: Json) -> Json | tuple[int, Json]:
        """As an OpenAI-compatible server."""
        if path == "/v1/models":
            return {"object": "list", "data": [{"id": "letters"}]}
        if path == "/tokenize" and self._tokenizer:
            return {"tokens": [LETTERS.index(letter) for letter in body["prompt"]]}
        if path == "/v1/completions":
            return self._completion(body)
        if path == "/v1/chat/completions":
            return self._chat(body)
        return 404, {"error": {"message": "no such path"}}

    def _completion(self, body: Json) -> Json | tuple[int, Json]:
        count = body["logprobs"]
        if count > self._most_alternatives:
            return 400, {"error": {"message": f"at most {self._most_alternatives} logprobs"}}
        assert body["echo"] and body["max_tokens"] == 0
        self.prompts.append(body["prompt"])
        prompt = body["prompt"]
        text = prompt if isinstance(prompt, str) else "".join(LETTERS[place] for place in prompt)
        steps = [self.logprobs_after(before) for before in text[:-1]]
        following = list(zip(steps, text[1:], strict=True))
        logprobs = {
            "tokens": list(text),
            "token_logprobs": [None, *(step[letter] for step, letter in following)],
            "top_logprobs": [None, *(_top(step, count, letter) for step, letter in following)],
        }
        return {"choices": [{"text": text, "logprobs": logprobs}]}

    def _chat(self, body: Json) -> Json:
        """The alphabet, from the prompt's last letter on; a sharper model stops sooner."""
        asked = [letter for letter in body["messages"][-1]["content"].lower() if letter in LETTERS]
        letter, written = asked[-1], []
        for _ in range(min(body["max_tokens"], round(10 / self._sharpness))):
            after = self.logprobs_after(letter)
            letter = max(after, key=lambda other: after[other])
            written.append(letter)
        content = [{"token": letter, "logprob": -0.1} for letter in written]
        return {
            "choices": [
                {
                    "message": {"role": "assistant", "content": "".join(written)},
                    "logprobs": {"content": content},
                    "finish_reason": "length",
                }
            ]
        }


def _top(step: Mapping[str, float], count: int, letter: str) -> dict[str, float]:
    likely = sorted(step, key=lambda other: -step[other])[:count]
    return {other: step[other] for other in {*likely, letter}}

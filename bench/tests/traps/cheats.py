"""A server that answers with words drawn from a seed, honestly or with one of the tricks that audits find.

A token is a word with the blank before it. Writing one and reading a prompt can be made to take time, so that
what is spared can be seen.
"""

from __future__ import annotations

import hashlib
import random
from typing import Any, Literal

from ..http_double import Events, Json, Reply

LONGEST = 1_000
WORDS = ("river", "stone", "maple", "lantern", "harbour", "window", "silver", "orchard", "meadow", "copper")

Trick = Literal[
    "caches answers",
    "caches answers and sends them in one piece",
    "cuts answers",
    "cuts answers and says that they ended",
    "cuts answers and says nothing",
    "writes more than was asked",
    "ignores the seed",
    "draws nothing",
    "splits words over chunks",
    "counts twice in usage",
    "counts chunks in usage",
    "counts prompts twice",
]


class WordServer:
    """Counts nothing, keeps what it cached. `quirks` are honest ways to be different."""

    def __init__(
        self,
        trick: Trick | None = None,
        *,
        prefix_cache: bool = False,
        tells_cache: bool = True,
        logprobs: bool = True,
        tokenizer: bool = True,
        usage: bool = True,
        seeds: bool = True,
        tokens_a_chunk: int = 1,
        word_s: float = 0.0,
        reading_s: float = 0.0,
    ) -> None:
        self._trick = trick
        self._prefix_cache = prefix_cache
        self._tells_cache = tells_cache
        self._logprobs = logprobs
        self._tokenizer = tokenizer
        self._usage = usage
        self._seeds = seeds
        self._tokens_a_chunk = tokens_a_chunk
        self._word_s = word_s
        self._reading_s = reading_s
        self._known: set[str] = set()

    def answer(self, path: str, body: Json) -> Reply:
        """Whatever is asked."""
        if path == "/v1/models":
            return {"data": [{"id": "words"}]}
        if path == "/tokenize" and self._tokenizer:
            text = body["prompt"] if "prompt" in body else body["messages"][-1]["content"]
            return {"tokens": list(range(len(text.split())))}
        if path != "/v1/chat/completions":
            return 404, {"error": {"message": "no such path"}}
        if body.get("logprobs") and not self._logprobs:
            return 400, {"error": {"message": "this server has no logprobs"}}
        if "seed" in body and not self._seeds:
            return 400, {"error": {"message": "unknown parameter: seed"}}
        return self._stream(body)

    def _stream(self, body: Json) -> Events:
        prompt: str = body["messages"][-1]["content"]
        words, reason = self._words(body, prompt)
        known = prompt in self._known
        self._known.add(prompt)
        cached = known and (self._trick or "").startswith("caches answers")
        spared = cached or (known and self._prefix_cache)
        chunks = self._chunks(words)
        if cached and self._trick == "caches answers and sends them in one piece":
            chunks = [words]
        timed = "seed" not in body  # nobody looks at how long drawing takes
        steps: list[Json | float] = [0.0 if spared or not timed else self._reading_s]
        for chunk in chunks:
            steps.append(self._event(chunk, body))
            if timed and not cached:
                steps.append(self._word_s * len(chunk))
        steps.append({"choices": [{"index": 0, "delta": {}, "finish_reason": reason}]})
        if self._usage:
            steps.append({"choices": [], "usage": self._counts(prompt, words, chunks, spared)})
        return Events(steps)

    def _words(self, body: Json, prompt: str) -> tuple[list[str], str | None]:
        """A prompt's answer has a length of its own, often beyond what is asked for."""
        drawn = body.get("temperature", 1) > 0 and self._trick != "draws nothing"
        seed = random.random() if self._trick == "ignores the seed" else body.get("seed", 0)
        source = random.Random(_number(f"{prompt} {seed if drawn else ''}"))
        asked: int = body["max_tokens"]
        natural = source.choice([asked - 5, asked - 2, asked + 9, asked + 20, LONGEST])
        length, reason = min(natural, asked), "length" if natural >= asked else "stop"
        if self._trick == "writes more than was asked":
            length = asked + 4
        if self._trick in ("cuts answers", "cuts answers and says that they ended"):
            length, reason = asked // 2, "stop" if self._trick.endswith("ended") else "length"
        words = [f" {source.choice(WORDS)}" for _ in range(length)]
        if self._trick == "cuts answers and says nothing":
            return words[: length // 2], None
        return words, reason

    def _chunks(self, words: list[str]) -> list[list[str]]:
        if self._trick == "splits words over chunks":
            return [[part] for word in words for part in (word[:3], word[3:])]
        if self._trick == "counts chunks in usage":
            return [words[start : start + 4] for start in range(0, len(words), 4)]
        size = self._tokens_a_chunk
        return [words[start : start + size] for start in range(0, len(words), size)]

    def _event(self, chunk: list[str], body: Json) -> Json:
        choice: Json = {"index": 0, "delta": {"content": "".join(chunk)}}
        if body.get("logprobs"):
            begun = [word for word in chunk if word.startswith(" ")]
            choice["logprobs"] = {"content": [{"token": word, "logprob": -1.0} for word in begun]}
        return {"choices": [choice]}

    def _counts(self, prompt: str, words: list[str], chunks: list[list[str]], spared: bool) -> dict[str, Any]:
        said, read = len(words), len(prompt.split())
        if self._trick == "counts twice in usage":
            said *= 2
        if self._trick == "counts chunks in usage":
            said = len(chunks)
        if self._trick == "counts prompts twice":
            read *= 2
        usage: Json = {"prompt_tokens": read, "completion_tokens": said}
        if self._prefix_cache and self._tells_cache:
            usage["prompt_tokens_details"] = {"cached_tokens": read - 1 if spared else 0}
        return usage


def _number(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")

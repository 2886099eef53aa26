"""Text Generation Inference's native protocol on a scripted engine.

Documented, not recorded: requests are checked and answered as `docs/openapi.json`, `router/src/validation.rs`
and `router/src/server.rs` of huggingface/text-generation-inference at v3.3.7 say. What it says is fixed.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

from .scripted_engine import Call, ScriptedEngine

MODEL = "HuggingFaceH4/zephyr-7b-beta"
MAX_INPUT_WORDS = 50
INFO = {
    "model_id": MODEL,
    "model_sha": None,
    "model_pipeline_tag": "text-generation",
    "max_concurrent_requests": 128,
    "max_best_of": 2,
    "max_stop_sequences": 4,
    "max_input_tokens": 4095,
    "max_total_tokens": 4096,
    "validation_workers": 2,
    "max_client_batch_size": 4,
    "router": "text-generation-router",
    "version": "3.3.7",
    "sha": None,
    "docker_label": None,
}
LISTED = {"object": "list", "data": [{"id": MODEL, "object": "model", "created": 0, "owned_by": MODEL}]}


class NativeTgi:
    """A script that answers `/generate`, `/generate_stream` and `/tokenize`."""

    def __init__(self, *tokens: str) -> None:
        self.tokens = tokens or ("The", " quick", " brown", " fox")
        self.fails_with: tuple[str, str, int] | None = None
        """Message, error type and status, in place of an answer."""
        self.fails_after: int | None = None
        """Tokens of a stream before the failure."""
        self.pause = asyncio.Event()
        """A stream waits for it before its second token."""
        self.pause.set()
        self.tokenizes = True
        """Versions before it could are asked too."""

    async def __call__(self, call: Call) -> None:
        """Answer one POST."""
        asked = call.fields
        if call.path == "/tokenize":
            await self._tokenize(call, asked["inputs"])
            return
        problem = self._problem(call.path, asked["parameters"]) or (
            ("Input validation error: `inputs` is too long", "validation", 422)
            if len(asked["inputs"].split()) > MAX_INPUT_WORDS
            else None
        )
        if self.fails_after is None:
            problem = self.fails_with or problem
        if call.path == "/generate_stream":
            await self._stream(call, asked, problem)
        elif problem is not None:
            await call.answer(problem[2], error(problem))
        else:
            prompt_tokens = str(len(asked["inputs"].split()))
            await call.answer(200, self._whole(asked), **{"x-prompt-tokens": prompt_tokens})

    def _problem(self, path: str, parameters: dict[str, Any]) -> tuple[str, str, int] | None:
        bad = (
            ("temperature", lambda value: value <= 0, "`temperature` must be strictly positive"),
            ("top_p", lambda value: not 0 < value < 1, "`top_p` must be > 0.0 and < 1.0"),
            ("max_new_tokens", lambda value: value < 1, "`max_new_tokens` must be strictly positive"),
            ("top_n_tokens", lambda value: value > 5, "`top_n_tokens` must be >= 0 and <= 5"),
            ("seed", lambda value: value < 0, "seed"),
        )
        for name, is_wrong, message in bad:
            if name in parameters and is_wrong(parameters[name]):
                return f"Input validation error: {message}", "validation", 422
        if path == "/generate_stream" and parameters.get("decoder_input_details"):
            return "Input validation error: `decoder_input_details`", "validation", 422
        return None

    async def _tokenize(self, call: Call, inputs: str) -> None:
        """As many tokens as `_stream` counts, with what it says of each."""
        if not self.tokenizes:
            await call.answer(404, {})
            return
        words = inputs.split()
        await call.answer(
            200, [{"id": i, "text": w, "start": 0, "stop": len(w)} for i, w in enumerate(words)]
        )

    def _said(self, parameters: dict[str, Any]) -> tuple[list[dict[str, Any]], str, str]:
        """Tokens, text and why it ended."""
        tokens: list[dict[str, Any]] = []
        text = ""
        for number, word in enumerate(self.tokens):
            tokens.append(token(number, word))
            text += word
            if any(text.endswith(stop) for stop in parameters.get("stop", [])):
                return tokens, text, "stop_sequence"
            if len(tokens) == parameters["max_new_tokens"]:
                return tokens, text, "length"
        return [*tokens, token(2, "</s>", special=True)], text, "eos_token"

    def _whole(self, asked: dict[str, Any]) -> dict[str, Any]:
        parameters = asked["parameters"]
        tokens, text, reason = self._said(parameters)
        prefill = [token(i, word) for i, word in enumerate(("<s>", *asked["inputs"].split()))]
        prefill[0]["logprob"] = None
        details = {
            "finish_reason": reason,
            "generated_tokens": len(tokens),
            "seed": parameters.get("seed"),
            "prefill": prefill if parameters.get("decoder_input_details") else [],
            "tokens": tokens,
        }
        if parameters.get("top_n_tokens"):
            details["top_tokens"] = [alternatives(one, parameters["top_n_tokens"]) for one in tokens]
        return {"generated_text": text, "details": details}

    async def _stream(self, call: Call, asked: dict[str, Any], problem: tuple[str, str, int] | None) -> None:
        """Its errors are events of a 200."""
        await call.start_events()
        if problem is not None:
            await call.write(event(error(problem)))
            await call.end()
            return
        parameters = asked["parameters"]
        tokens, text, reason = self._said(parameters)
        for index, one in enumerate(tokens, 1):
            if index == 2:
                await self.pause.wait()
            if self.fails_after == index - 1:
                await (call.write(event(error(self.fails_with))) if self.fails_with else asyncio.sleep(0))
                break
            message: dict[str, Any] = {"index": index, "token": one, "generated_text": None, "details": None}
            if parameters.get("top_n_tokens"):
                message["top_tokens"] = alternatives(one, parameters["top_n_tokens"])
            if index == len(tokens):
                length = len(asked["inputs"].split())
                message["generated_text"] = text
                message["details"] = {
                    "finish_reason": reason,
                    "generated_tokens": len(tokens),
                    "seed": parameters.get("seed"),
                    "input_length": length,
                }
            await call.write(event(message))
        await call.end()


def token(number: int, text: str, *, special: bool = False) -> dict[str, Any]:
    return {"id": number, "text": text, "logprob": -0.5, "special": special}


def alternatives(one: dict[str, Any], count: int) -> list[dict[str, Any]]:
    return [one, *({**one, "text": f"~{i}", "logprob": -2.0 - i} for i in range(1, count))]


def event(document: Any) -> bytes:
    """As axum writes one: no space after the colon, and characters as they are."""
    return b"data:" + json.dumps(document, ensure_ascii=False).encode() + b"\n\n"


def error(problem: tuple[str, str, int] | None) -> dict[str, str]:
    assert problem is not None
    return {"error": problem[0], "error_type": problem[1]}


def with_pages(engine: ScriptedEngine) -> ScriptedEngine:
    """Give a scripted engine the pages of version 3."""
    engine.pages = {
        "/health": (200, b""),
        "/info": (200, json.dumps(INFO).encode()),
        "/v1/models": (200, json.dumps(LISTED).encode()),
        "/metrics": (200, b"tgi_queue_size 3\ntgi_batch_current_size 2\n"),
    }
    return engine

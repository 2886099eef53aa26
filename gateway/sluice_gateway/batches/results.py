"""The lines of a batch's output and error files, and the tokens that they add up to.

Source: OpenAI's Batch API reference, "The request output object" and the `usage` of a batch.
"""

from __future__ import annotations

from typing import Any

import msgspec

from sluice_gateway.batches.progress import Record
from sluice_gateway.batches.runner_types import CollectedAnswer

CANCELLED = ("batch_cancelled", "The batch was cancelled before this request was run.")
EXPIRED = ("batch_expired", "The batch's completion window ended before this request was run.")
KEY_REVOKED = ("key_revoked", "The API key that made the batch does not exist any more.")
INPUT_MISSING = ("input_file_missing", "The batch's input file was deleted.")
"""Code and sentence for requests that were not run."""


def answered(index: int, custom_id: str, request_id: str, answer: CollectedAnswer) -> Record:
    """The result of a request that was run: to the output file if it succeeded."""
    body = _one_line(answer.body)
    if body is None:
        error = ("invalid_response", f"The engine's answer, status {answer.status}, is not JSON.")
        return Record(index, "e", not_run(request_id, custom_id, error))
    line = msgspec.json.encode(
        {
            "id": _result_id(request_id),
            "custom_id": custom_id,
            "response": {"status_code": answer.status, "request_id": request_id, "body": body},
            "error": None,
        }
    )
    return Record(index, "o" if 200 <= answer.status < 300 else "e", line)


def not_run(request_id: str, custom_id: str, error: tuple[str, str]) -> bytes:
    """The line of a request that has no answer."""
    code, message = error
    return msgspec.json.encode(
        {
            "id": _result_id(request_id),
            "custom_id": custom_id,
            "response": None,
            "error": {"code": code, "message": message},
        }
    )


class _Details(msgspec.Struct):
    cached_tokens: int | None = None
    reasoning_tokens: int | None = None


class _Usage(msgspec.Struct):
    """Of chat, completions and embeddings, or of the Responses API."""

    prompt_tokens: int | None = None
    input_tokens: int | None = None
    completion_tokens: int | None = None
    output_tokens: int | None = None
    prompt_tokens_details: _Details | None = None
    input_tokens_details: _Details | None = None
    completion_tokens_details: _Details | None = None
    output_tokens_details: _Details | None = None


class _Body(msgspec.Struct):
    usage: _Usage | None = None


class _Response(msgspec.Struct):
    body: _Body | None = None


class _Result(msgspec.Struct):
    response: _Response | None = None


_RESULT = msgspec.json.Decoder(_Result)


class UsageSum:
    """The tokens of all successful requests."""

    def __init__(self) -> None:
        self._input = self._cached = self._output = self._reasoning = 0

    def add(self, line: bytes) -> None:
        """Count a line of the output file. What an engine reports in a way of its own counts nothing."""
        try:
            response = _RESULT.decode(line).response
        except msgspec.ValidationError:
            return
        usage = response.body.usage if response is not None and response.body is not None else None
        if usage is None:
            return
        read, written = (
            usage.prompt_tokens_details or usage.input_tokens_details or _Details(),
            usage.completion_tokens_details or usage.output_tokens_details or _Details(),
        )
        self._input += usage.prompt_tokens or usage.input_tokens or 0
        self._output += usage.completion_tokens or usage.output_tokens or 0
        self._cached += read.cached_tokens or 0
        self._reasoning += written.reasoning_tokens or 0

    def to_openai(self) -> dict[str, Any]:
        """OpenAI's `BatchUsage`."""
        return {
            "input_tokens": self._input,
            "input_tokens_details": {"cached_tokens": self._cached},
            "output_tokens": self._output,
            "output_tokens_details": {"reasoning_tokens": self._reasoning},
            "total_tokens": self._input + self._output,
        }


def _result_id(request_id: str) -> str:
    return "batch_" + request_id


def _one_line(body: bytes) -> msgspec.Raw | None:
    """JSON without newlines; `None` when it is not JSON."""
    try:
        msgspec.json.decode(body)
        return msgspec.Raw(msgspec.json.format(body, indent=-1))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None

"""What a client says when it makes a batch, checked."""

from __future__ import annotations

import os
import re
from typing import Any, get_args

import msgspec

from sluice_gateway.batches.tables import Batch, Endpoint
from sluice_gateway.errors import Failure, Problem, problem
from sluice_gateway.identity import Key

ENDPOINTS: tuple[str, ...] = get_args(Endpoint)

_WINDOW = re.compile(r"([1-9][0-9]{0,3})([mhd])")
_UNIT_S = {"m": 60, "h": 3600, "d": 86_400}
_LONGEST_WINDOW_S = 14 * 86_400
_SHORTEST_S, _LONGEST_S = 3600, 2_592_000
_PAIRS, _NAME_CHARACTERS, _VALUE_CHARACTERS = 16, 64, 512


class _Expiry(msgspec.Struct):
    anchor: str
    seconds: int


class _Wish(msgspec.Struct):
    """The body of `POST /v1/batches`. Fields that are not known are ignored, as everywhere."""

    input_file_id: str
    endpoint: str
    completion_window: str
    metadata: dict[str, str] | None = None
    output_expires_after: _Expiry | None = None


_WISH = msgspec.json.Decoder(_Wish)

SCHEMA: dict[str, Any] = {
    "type": "object",
    "required": ["input_file_id", "endpoint", "completion_window"],
    "properties": {
        "input_file_id": {"type": "string"},
        "endpoint": {"type": "string", "enum": [*ENDPOINTS]},
        "completion_window": {"type": "string", "pattern": f"^{_WINDOW.pattern}$", "example": "24h"},
        "metadata": {
            "type": ["object", "null"],
            "maxProperties": _PAIRS,
            "propertyNames": {"maxLength": _NAME_CHARACTERS},
            "additionalProperties": {"type": "string", "maxLength": _VALUE_CHARACTERS},
        },
        "output_expires_after": {
            "type": ["object", "null"],
            "required": ["anchor", "seconds"],
            "properties": {
                "anchor": {"type": "string", "enum": ["created_at"]},
                "seconds": {"type": "integer", "minimum": _SHORTEST_S, "maximum": _LONGEST_S},
            },
        },
    },
}
"""The body as JSON Schema."""


def new_batch(body: bytes, key: Key, now: float) -> Batch | Problem:
    """The batch that a body asks for, made by `key` at `now` (seconds since 1970), or what is wrong."""
    try:
        wish = _WISH.decode(body)
    except msgspec.ValidationError as error:
        return problem(Failure.INVALID_REQUEST, f"{error}.", param=_param(str(error)))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        return problem(Failure.INVALID_JSON, f"The request body is not valid JSON: {error}.")
    window_s = _window_s(wish.completion_window)
    wrong = _wrong(wish)
    if wrong is not None:
        return wrong
    if window_s is None:
        text = "'completion_window' must be a time such as '24h', '30m' or '7d', at most '14d'."
        return problem(Failure.INVALID_REQUEST, text, param="completion_window")
    expiry = wish.output_expires_after
    return Batch(
        id=f"batch_{os.urandom(12).hex()}",
        tenant=key.tenant,
        key_id=key.id,
        endpoint=wish.endpoint,
        input_file_id=wish.input_file_id,
        completion_window=wish.completion_window,
        metadata=None if wish.metadata is None else msgspec.json.encode(wish.metadata).decode(),
        results_lifetime_s=None if expiry is None else expiry.seconds,
        created_us=int(now * 1_000_000),
        expires_at=int(now) + window_s,
    )


def _wrong(wish: _Wish) -> Problem | None:
    if wish.endpoint not in ENDPOINTS:
        text = f"'endpoint' must be one of {', '.join(ENDPOINTS)}."
        return problem(Failure.INVALID_REQUEST, text, param="endpoint")
    expiry, metadata = wish.output_expires_after, wish.metadata or {}
    if expiry is not None and (
        expiry.anchor != "created_at" or not _SHORTEST_S <= expiry.seconds <= _LONGEST_S
    ):
        text = f"'output_expires_after' must be {_SHORTEST_S} to {_LONGEST_S} seconds from 'created_at'."
        return problem(Failure.INVALID_REQUEST, text, param="output_expires_after")
    too_long = (len(n) > _NAME_CHARACTERS or len(v) > _VALUE_CHARACTERS for n, v in metadata.items())
    if len(metadata) > _PAIRS or any(too_long):
        text = (
            f"'metadata' may have {_PAIRS} pairs, names of {_NAME_CHARACTERS} and values of"
            f" {_VALUE_CHARACTERS} characters."
        )
        return problem(Failure.INVALID_REQUEST, text, param="metadata")
    return None


def _window_s(text: str) -> int | None:
    found = _WINDOW.fullmatch(text)
    seconds = int(found[1]) * _UNIT_S[found[2]] if found else 0
    return seconds if 0 < seconds <= _LONGEST_WINDOW_S else None


def _param(detail: str) -> str | None:
    """The field that msgspec complains about."""
    found = re.search(r"`\$\.(\w+)|required field `(\w+)`", detail)
    return (found[1] or found[2]) if found else None

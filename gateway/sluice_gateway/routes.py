"""The data plane's paths: what is served by the pipeline, and in whose words.

One table, read by the front door, the native HTTP protocol and the OpenAPI description. Paths that are not in
it belong to the control plane.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import msgspec

Kind = Literal[
    "chat",
    "completions",
    "embeddings",
    "responses",
    "messages",
    "count_tokens",
    "tokenize",
    "detokenize",
    "rerank",
    "score",
    "audio_transcriptions",
    "audio_translations",
    "audio_speech",
    "images_generations",
    "images_edits",
    "images_variations",
]
"""What a request asks for; also the names in `Capabilities.endpoints` and in a key's scopes."""

Family = Literal["openai", "anthropic"]
"""Whose error shape and headers a client expects."""


class Route(msgspec.Struct, frozen=True, kw_only=True):
    """One path of the data plane. All of them take POST."""

    path: str
    kind: Kind
    family: Family = "openai"
    multipart: bool = False
    """The body is `multipart/form-data`, as for uploads, instead of JSON."""


ROUTES: tuple[Route, ...] = (
    Route(path="/v1/chat/completions", kind="chat"),
    Route(path="/v1/completions", kind="completions"),
    Route(path="/v1/embeddings", kind="embeddings"),
    Route(path="/v1/messages", kind="messages", family="anthropic"),
    Route(path="/v1/messages/count_tokens", kind="count_tokens", family="anthropic"),
    Route(path="/v1/responses", kind="responses"),
    Route(path="/tokenize", kind="tokenize"),
    Route(path="/detokenize", kind="detokenize"),
    Route(path="/v1/rerank", kind="rerank"),
    Route(path="/v2/rerank", kind="rerank"),
    Route(path="/rerank", kind="rerank"),
    Route(path="/v1/score", kind="score"),
    Route(path="/score", kind="score"),
    Route(path="/v1/audio/transcriptions", kind="audio_transcriptions", multipart=True),
    Route(path="/v1/audio/translations", kind="audio_translations", multipart=True),
    Route(path="/v1/audio/speech", kind="audio_speech"),
    Route(path="/v1/images/generations", kind="images_generations"),
    Route(path="/v1/images/edits", kind="images_edits", multipart=True),
    Route(path="/v1/images/variations", kind="images_variations", multipart=True),
)
DATA_PLANE: Mapping[str, Route] = {route.path: route for route in ROUTES}

_MESSAGES = "/v1/messages"
_ANTHROPIC_VERSION = b"anthropic-version"


def family_of(path: str, headers: Mapping[bytes, bytes]) -> Family:
    """Whose client asks, on any path: `/v1/models` belongs to both, and only Anthropic's say a version."""
    if path == _MESSAGES or path.startswith(_MESSAGES + "/") or _ANTHROPIC_VERSION in headers:
        return "anthropic"
    return "openai"

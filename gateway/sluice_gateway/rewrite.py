"""The two changes that the gateway makes to a request's body: asking a stream for its usage, and putting the
model's name in the place of an alias.

The client's bytes are spliced, not serialised anew: without a `stream_options` of its own the key goes in
after the opening brace and every other byte stays as it was. Only a client's `stream_options` that does not
ask for usage has to be replaced; then the top level is put together again from the raw bytes of its values.
"""

from __future__ import annotations

import msgspec

_KEY = b'"stream_options":{"include_usage":true}'
_TOP_LEVEL = msgspec.json.Decoder(dict[str, msgspec.Raw])
_OPTIONS = msgspec.json.Decoder(dict[str, msgspec.Raw] | None)


def include_usage(body: bytes, has_stream_options: bool) -> bytes:
    """The body with `stream_options.include_usage` true. `body` is a valid JSON object that is not empty."""
    if has_stream_options:
        return _replace(body)
    brace = body.index(b"{") + 1
    return b"%b%b,%b" % (body[:brace], _KEY, body[brace:])


def replace_model(body: bytes, model: str) -> bytes:
    """The body with another `model`. `body` is a valid JSON object; every other value stays as it was."""
    fields = _TOP_LEVEL.decode(body)
    fields["model"] = msgspec.Raw(msgspec.json.encode(model))
    return _join(fields)


def _replace(body: bytes) -> bytes:
    fields = _TOP_LEVEL.decode(body)
    options = _OPTIONS.decode(fields["stream_options"]) or {}
    options["include_usage"] = msgspec.Raw(b"true")
    fields["stream_options"] = msgspec.Raw(_join(options))
    return _join(fields)


def _join(fields: dict[str, msgspec.Raw]) -> bytes:
    """A JSON object from raw values, in order."""
    return b"{%b}" % b",".join(
        msgspec.json.encode(name) + b":" + bytes(value) for name, value in fields.items()
    )

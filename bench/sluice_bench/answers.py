"""From raw reads to a `RequestRecord`: HTTP, SSE, OpenAI JSON, tokens. Runs after the load, never during it.

What counts as a token's arrival, and what does not:

- An event counts when one of its choices carries text (`generated_text.py`). A role-only or empty delta, a
  comment, a usage-only event, a finish-only event and `[DONE]` do not, so none of them makes the first token
  earlier or the last one later.
- An event's time is that of the read which brought the last byte of its closing blank line.
- The number of tokens in an event comes from the best source there is; see `TokenSource`. The record says
  which one it was.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from sluice_bench import sse
from sluice_bench.connection import Exchange
from sluice_bench.generated_text import GeneratedText, Json, Kind, pieces, size
from sluice_bench.http_wire import HttpWireError, TimedResponse, parse_response
from sluice_bench.records import Chunk, Failure, RequestRecord, TokenSource

_MESSAGE_LIMIT = 300
_SERVED_BY = b"x-sluice-backend"


class _Defect(Exception):
    """The answer is not what an OpenAI server may send."""

    def __init__(self, failure: Failure, message: str) -> None:
        super().__init__(message)
        self.failure = failure


class _Delta(msgspec.Struct, frozen=True):
    """One SSE event with JSON, reduced to what is measured."""

    arrived_ns: int
    n_bytes: int
    text_bytes: int
    counted_tokens: int | None
    """From the event's own log-probabilities."""
    running_total: int | None
    """Completion tokens in the event's usage object."""


class _Tally(msgspec.Struct):
    """What accumulates while the events of one answer are read."""

    deltas: list[_Delta] = msgspec.field(default_factory=list)
    text: GeneratedText = msgspec.field(default_factory=GeneratedText)
    first_choice_ns: int | None = None
    first_answer_ns: int | None = None
    usage: Json | None = None
    finish_reason: str | None = None
    choices: set[int] = msgspec.field(default_factory=set)
    n_events: int = 0
    done: bool = False


def read_answers(exchanges: Sequence[Exchange]) -> list[RequestRecord]:
    """One record per exchange, in order."""
    return [read_answer(exchange) for exchange in exchanges]


def read_answer(exchange: Exchange) -> RequestRecord:
    """The record of one exchange. Never raises: what cannot be read is a `PROTOCOL` failure."""
    record = _outline(exchange)
    try:
        response = parse_response(exchange.reads, closed=exchange.closed)
        if response is None:
            return record
        record = msgspec.structs.replace(
            record,
            status=response.head.status,
            headers_ns=response.headers_ns,
            backend=response.head.headers.get(_SERVED_BY, b"").decode("latin-1"),
        )
        return _read_body(record, response)
    except HttpWireError as error:
        return _failed(record, Failure.PROTOCOL, str(error))
    except _Defect as defect:
        return _failed(record, defect.failure, str(defect))


def _outline(exchange: Exchange) -> RequestRecord:
    """Everything that is known without looking into the bytes."""
    return RequestRecord(
        index=exchange.index,
        item=exchange.request.item,
        phase=exchange.request.phase,
        asked_tokens=exchange.request.asked_tokens,
        stream=exchange.request.stream,
        scheduled_ns=exchange.scheduled_ns,
        dispatched_ns=exchange.dispatched_ns,
        connected_ns=exchange.connected_ns,
        written_ns=exchange.written_ns,
        first_byte_ns=exchange.reads[0][0] if exchange.reads else None,
        end_ns=exchange.end_ns,
        failure=exchange.failure,
        message=exchange.detail,
        reused_connection=exchange.reused,
        n_reads=len(exchange.reads),
    )


def _failed(record: RequestRecord, failure: Failure, message: str) -> RequestRecord:
    """Keep the first cause: a cut connection explains a broken answer, not the other way round."""
    if record.failure is not None:
        return record
    return msgspec.structs.replace(record, failure=failure, message=message[:_MESSAGE_LIMIT])


def _read_body(record: RequestRecord, response: TimedResponse) -> RequestRecord:
    if not response.complete and record.failure is None:
        raise _Defect(Failure.PROTOCOL, "the response is not whole")
    if not 200 <= response.head.status < 300:
        return _failed(record, Failure.HTTP_STATUS, _error_text(response.body.data))
    encoding = response.head.headers.get(b"content-encoding", b"identity").lower()
    if encoding != b"identity":
        raise _Defect(
            Failure.PROTOCOL, f"the answer came in {encoding.decode('latin-1')}, which nobody asked for"
        )
    content_type = response.head.headers.get(b"content-type", b"")
    if content_type.startswith(b"text/event-stream"):
        return _read_stream(record, response)
    if record.failure is not None:
        return record
    if record.stream:
        raise _Defect(Failure.PROTOCOL, f"asked for a stream, got {content_type.decode('latin-1')!r}")
    return _read_plain(record, response.body.data)


def _error_text(body: bytes) -> str:
    try:
        error = _object(body).get("error")
    except _Defect:
        return body.decode("utf-8", "replace")
    return str(error.get("message", error)) if isinstance(error, dict) else body.decode("utf-8", "replace")


def _object(data: bytes) -> Json:
    try:
        value = msgspec.json.decode(data)
    except msgspec.DecodeError as error:
        raise _Defect(Failure.PROTOCOL, f"not JSON ({error}): {data[:80]!r}") from error
    if not isinstance(value, dict):
        raise _Defect(Failure.PROTOCOL, f"not a JSON object: {data[:80]!r}")
    return value


# --- plain answers ---------------------------------------------------------------------------------------


def _read_plain(record: RequestRecord, body: bytes) -> RequestRecord:
    answer = _object(body)
    choices = _choices(answer)
    if not choices:
        raise _Defect(Failure.PROTOCOL, "the answer has no choices")
    found = [pieces(choice, _part(choice, "message")) for choice in choices]
    text = GeneratedText()
    for index, texts in enumerate(found):
        text.add(index, texts)
    usage = _usage(answer)
    return msgspec.structs.replace(
        record,
        last_token_ns=record.end_ns,
        n_choices=len(choices),
        text_bytes=sum(size(texts) for texts in found),
        text_sha256=text.sha256(),
        finish_reason=_finish_reason(choices),
        token_source=TokenSource.USAGE if usage else TokenSource.NONE,
        **_usage_fields(usage),
    )


def _choices(answer: Json) -> list[Json]:
    choices = answer.get("choices")
    return [choice for choice in choices if isinstance(choice, dict)] if isinstance(choices, list) else []


def _part(choice: Json, name: str) -> Json:
    part = choice.get(name)
    return part if isinstance(part, dict) else {}


def _finish_reason(choices: Sequence[Json]) -> str | None:
    for choice in choices:
        if isinstance(reason := choice.get("finish_reason"), str):
            return reason
    return None


def _usage(answer: Json) -> Json | None:
    usage = answer.get("usage")
    return usage if isinstance(usage, dict) else None


def _usage_fields(usage: Json | None) -> dict[str, int | None]:
    usage = usage or {}
    return {
        "prompt_tokens": _count(usage, "prompt_tokens"),
        "output_tokens": _count(usage, "completion_tokens"),
        "cached_tokens": _count(_part(usage, "prompt_tokens_details"), "cached_tokens"),
    }


def _count(fields: Json, name: str) -> int | None:
    value = fields.get(name)
    return value if isinstance(value, int) else None


# --- streams ---------------------------------------------------------------------------------------------


def _read_stream(record: RequestRecord, response: TimedResponse) -> RequestRecord:
    tally = _Tally()
    defect: _Defect | None = None
    try:
        for event in sse.events(response.body.data):
            _read_event(tally, event, response.body.arrival_ns(event.end))
    except _Defect as found:
        defect = found
    record = _with_tokens(record, tally)
    if defect is not None:
        return _failed(record, defect.failure, str(defect))
    if not tally.done:
        return _failed(record, Failure.TRUNCATED, "the stream ended without [DONE]")
    return record


def _read_event(tally: _Tally, event: sse.Event, arrived_ns: int) -> None:
    tally.n_events += 1
    if event.data.strip() == b"[DONE]":
        tally.done = True
        return
    answer = _object(event.data)
    if answer.get("error") is not None or event.name == b"error":
        raise _Defect(Failure.STREAM_ERROR, _error_text(event.data))
    usage = _usage(answer)
    tally.usage = usage or tally.usage
    choices = _choices(answer)
    tally.choices.update(index for choice in choices if isinstance(index := choice.get("index"), int))
    tally.finish_reason = _finish_reason(choices) or tally.finish_reason
    if choices and tally.first_choice_ns is None:
        tally.first_choice_ns = arrived_ns
    if n_bytes := _read_texts(tally, choices, arrived_ns):
        running_total = _count(usage or {}, "completion_tokens")
        tally.deltas.append(_Delta(arrived_ns, event.n_bytes, n_bytes, _counted(choices), running_total))


def _read_texts(tally: _Tally, choices: Sequence[Json], arrived_ns: int) -> int:
    """Take the text of an event. Returns its UTF-8 bytes; 0 means that it carries none."""
    n_bytes = 0
    for choice in choices:
        found = pieces(choice, _part(choice, "delta"))
        index = choice.get("index")
        tally.text.add(index if isinstance(index, int) else 0, found)
        n_bytes += size(found)
        if tally.first_answer_ns is None and any(piece.kind is not Kind.REASONING for piece in found):
            tally.first_answer_ns = arrived_ns
    return n_bytes


def _counted(choices: Sequence[Json]) -> int | None:
    """Tokens listed in the event's log-probabilities; `None` when a choice has none."""
    total = 0
    for choice in choices:
        logprobs = _part(choice, "logprobs")
        listed = logprobs.get("content") or logprobs.get("tokens")
        if not isinstance(listed, list):
            return None
        total += len(listed)
    return total


def _with_tokens(record: RequestRecord, tally: _Tally) -> RequestRecord:
    deltas = tally.deltas
    source, counts = count_tokens(
        [delta.text_bytes for delta in deltas],
        [delta.counted_tokens for delta in deltas],
        [delta.running_total for delta in deltas],
        _count(tally.usage or {}, "completion_tokens"),
    )
    fields = _usage_fields(tally.usage)
    if fields["output_tokens"] is None and deltas:
        fields["output_tokens"] = sum(counts)
    return msgspec.structs.replace(
        record,
        first_choice_ns=tally.first_choice_ns,
        first_answer_ns=tally.first_answer_ns,
        first_token_ns=deltas[0].arrived_ns if deltas else None,
        last_token_ns=deltas[-1].arrived_ns if deltas else None,
        chunks=tuple(
            Chunk(delta.arrived_ns, count, delta.n_bytes) for delta, count in zip(deltas, counts, strict=True)
        ),
        n_events=tally.n_events,
        n_choices=max(1, len(tally.choices)),
        token_source=source,
        finish_reason=tally.finish_reason,
        text_bytes=sum(delta.text_bytes for delta in deltas),
        text_sha256=tally.text.sha256(),
        **fields,
    )


def count_tokens(
    text_bytes: Sequence[int],
    counted: Sequence[int | None],
    running: Sequence[int | None],
    total: int | None,
) -> tuple[TokenSource, list[int]]:
    """Tokens of each chunk, and how they are known.

    One entry a chunk: its text length, the tokens listed in it, the running usage total in it; `total` is the
    final usage. Of the sources that every chunk has, the best is taken.
    """
    if not text_bytes:
        return TokenSource.NONE, []
    listed = [count for count in counted if count is not None]
    if len(listed) == len(text_bytes):
        return TokenSource.LOGPROBS, listed
    totals = [count for count in running if count is not None]
    if len(totals) == len(text_bytes):
        return TokenSource.RUNNING_USAGE, [max(0, b - a) for a, b in zip([0, *totals], totals, strict=False)]
    if total is not None:
        return TokenSource.USAGE_SPREAD, spread(total, text_bytes)
    return TokenSource.CHUNKS, [1] * len(text_bytes)


def spread(total: int, weights: Sequence[int]) -> list[int]:
    """Share `total` tokens out over chunks: one each first, the rest by `weights` (largest remainders).

    With fewer tokens than chunks the heaviest chunks get one each. The sum is `total`. Ties go to the
    earlier chunk.
    """
    if total < len(weights):
        heaviest = sorted(range(len(weights)), key=lambda index: (-weights[index], index))[:total]
        return [int(index in heaviest) for index in range(len(weights))]
    extra, whole = total - len(weights), max(1, sum(weights))
    quotas = [extra * weight / whole for weight in weights]
    shares = [1 + int(quota) for quota in quotas]
    by_remainder = sorted(range(len(weights)), key=lambda index: (int(quotas[index]) - quotas[index], index))
    for index in by_remainder[: total - sum(shares)]:
        shares[index] += 1
    return shares

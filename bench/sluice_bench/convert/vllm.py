"""To and from the JSON of `vllm bench serve --save-result --save-detailed`."""

from __future__ import annotations

import datetime
import hashlib
import math
from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import msgspec

from sluice_bench.convert.field_map import (
    BadForeignFile,
    Exported,
    Json,
    Refused,
    decoded,
    refusals,
    unknown_fields,
)
from sluice_bench.convert.figures import NS, interpolated, stats
from sluice_bench.convert.imported_run import Imported, chunks_of
from sluice_bench.convert.vllm_fields import (
    DERIVED,
    REFUSED_OF_OURS,
    REFUSED_OF_THEIRS,
    REMARKS,
    ROWS,
    TAKEN,
    choice_stamps,
    itls_s,
    latency_s,
    start_s,
    succeeded,
    tpot_s,
    ttft_s,
)
from sluice_bench.metrics import known_total, whole_window
from sluice_bench.recording.run_record import RunRecord
from sluice_bench.records import Failure, RequestRecord, TokenSource

TOOL = "vllm"
_PERCENTILES = (50, 90, 95, 99)
_NEEDED = ("start_times", "ttfts", "itls", "input_lens", "output_lens", "errors")
_COMPLETIONS = ("openai", "vllm")
"""Names of vLLM's clients for `/v1/completions`, whose events all have text or end the answer."""


# --- to --------------------------------------------------------------------------------------------------


def export_run(run: RunRecord) -> Exported:
    """The measured requests of a run. Raises `ValueError` when there are none."""
    records = [record for record in run.requests if record.phase == "measured"]
    rows = {field.theirs: [field.value(record) for record in records] for field in ROWS}
    document = {**_head(run, len(records)), **_totals(records), **rows, **_distributions(records)}
    return Exported(
        document=msgspec.json.encode(document), refused=refusals(REFUSED_OF_OURS), remarks=REMARKS
    )


def _head(run: RunRecord, count: int) -> Json:
    load = run.meta.load
    started = datetime.datetime.fromisoformat(run.meta.started_utc) if run.meta.started_utc else None
    endless = load.rate_per_s is None
    return {
        "date": "" if started is None else f"{started:%Y%m%d-%H%M%S}",
        "endpoint_type": "openai-chat",
        "backend": "openai-chat",
        "model_id": run.meta.server.model,
        "num_prompts": count,
        "request_rate": "inf" if endless else load.rate_per_s,
        "burstiness": 1.0 if not load.cv else 1 / load.cv**2,
        "max_concurrency": load.concurrency,
    }


def _totals(records: Sequence[RequestRecord]) -> Json:
    done = [record for record in records if succeeded(record)]
    window = whole_window(records)
    duration = window.seconds if window is not None else 0.0
    read = known_total(record.prompt_tokens for record in done)
    written = known_total(record.output_tokens for record in done)

    def per_second(amount: int | None) -> float | None:
        return amount / duration if amount is not None and duration else None

    return {
        "duration": duration,
        "completed": len(done),
        "failed": len(records) - len(done),
        "total_input_tokens": read,
        "total_output_tokens": written,
        "request_throughput": per_second(len(done)),
        "output_throughput": per_second(written),
        "total_token_throughput": per_second(None if read is None or written is None else read + written),
        **_peaks(done),
    }


def _peaks(done: Sequence[RequestRecord]) -> Json:
    """Chunks and requests in each second since the first start."""
    if not done:
        return {"max_output_tokens_per_s": 0.0, "max_concurrent_requests": 0}
    begin = min(map(start_s, done))
    last = max(start_s(record) + latency_s(record) for record in done)
    chunks = [0] * (math.ceil(last - begin) + 1)
    active = list(chunks)
    for record in done:
        for stamp in choice_stamps(record):
            chunks[int(stamp * NS - begin)] += 1
        from_second = int(start_s(record) - begin)
        for second in range(from_second, int(start_s(record) + latency_s(record) - begin) + 1):
            active[second] += 1
    return {"max_output_tokens_per_s": float(max(chunks)), "max_concurrent_requests": max(active)}


def _distributions(records: Sequence[RequestRecord]) -> Json:
    done = [record for record in records if succeeded(record)]
    found = {
        "ttft": [ttft_s(record) for record in done],
        "tpot": [value for record in done if (value := tpot_s(record)) is not None],
        "itl": [gap for record in done for gap in itls_s(record)],
        "e2el": [latency_s(record) for record in done],
    }
    figures: Json = {}
    for name, observed in found.items():
        of = stats(observed)
        figures[f"mean_{name}_ms"] = of.mean * 1000
        figures[f"median_{name}_ms"] = interpolated(observed, 0.5) * 1000
        figures[f"std_{name}_ms"] = of.std * 1000
        for share in _PERCENTILES:
            figures[f"p{share}_{name}_ms"] = interpolated(observed, share / 100) * 1000
    return figures


# --- from ------------------------------------------------------------------------------------------------


def import_run(data: bytes) -> Imported:
    """What a result file says of its requests. Raises `BadForeignFile`."""
    result = decoded(data, "a result of vllm bench serve")
    missing = [name for name in _NEEDED if not isinstance(_get(result, name), list)]
    if missing:
        raise BadForeignFile(
            f"a result of vllm bench serve needs {', '.join(missing)}; save it with --save-result "
            "--save-detailed"
        )
    count = len(result["start_times"])
    if any(len(result[name]) != count for name in _NEEDED):
        raise BadForeignFile("the lists of a result of vllm bench serve differ in length")
    texts = str(result.get("endpoint_type") or result.get("backend")) in _COMPLETIONS
    records = [_record(result, index, texts) for index in range(count)]
    limit, rate = result.get("max_concurrency"), result.get("request_rate")
    return Imported(
        tool=TOOL,
        records=records,
        model=str(result.get("model_id") or ""),
        started_utc=_started(result.get("date")),
        concurrency=limit if isinstance(limit, int) else None,
        rate_per_s=float(rate) if isinstance(rate, int | float) else None,
        refused=_refused(result, records, texts),
        remarks=_remarks(texts),
    )


def _get(result: Any, name: str) -> Any:
    return result.get(name) if isinstance(result, dict) else None


def _entry(result: Json, name: str, index: int) -> Any:
    """Of a list that older versions do not write."""
    column = result.get(name)
    return column[index] if isinstance(column, list) and index < len(column) else None


def _record(result: Json, index: int, texts: bool) -> RequestRecord:
    start, ttft, itls = result["start_times"][index], result["ttfts"][index], result["itls"][index]
    error = str(result["errors"][index] or "")
    queued = _entry(result, "queue_times", index) or 0.0
    dispatched = round(start / NS)
    outline = RequestRecord(
        index=index,
        stream=True,
        scheduled_ns=round((start - queued) / NS),
        dispatched_ns=dispatched,
        failure=_failure(error) if error or not ttft else None,
        message=error.strip().rpartition("\n")[2][:300],
        token_source=TokenSource.NONE,
        prompt_tokens=result["input_lens"][index],
    )
    if outline.failure is not None:
        return outline
    stamps = [dispatched + round(at / NS) for at in accumulate(itls, initial=ttft)]
    latency = _entry(result, "latencies", index)
    tokens = result["output_lens"][index]
    chunks, source = chunks_of(stamps, tokens) if texts else ((), TokenSource.USAGE)
    text = _entry(result, "generated_texts", index)
    encoded = text.encode("utf-8", "replace") if isinstance(text, str) else b""
    last = stamps[-1] if latency is None else dispatched + round(latency / NS)
    last = chunks[-1].arrived_ns if chunks else last
    return msgspec.structs.replace(
        outline,
        first_choice_ns=stamps[0],
        first_token_ns=stamps[0] if texts else None,
        last_token_ns=last,
        end_ns=last,
        chunks=chunks,
        token_source=source,
        output_tokens=tokens,
        text_bytes=len(encoded),
        text_sha256=hashlib.sha256(encoded).hexdigest() if encoded else "",
    )


def _failure(error: str) -> Failure:
    """From the reason of a status, or the last line of a traceback."""
    names = {
        "Timeout": Failure.TIMEOUT,
        "ClientConnector": Failure.CONNECT_FAILED,
        "Disconnected": Failure.CONNECTION_LOST,
        "ClientOSError": Failure.CONNECTION_LOST,
        "ClientPayload": Failure.CONNECTION_LOST,
        "Never received a valid chunk": Failure.TRUNCATED,
        "Traceback": Failure.PROTOCOL,
    }
    return next((failure for word, failure in names.items() if word in error), Failure.HTTP_STATUS)


def _started(date: object) -> str:
    try:
        return datetime.datetime.strptime(str(date), "%Y%m%d-%H%M%S").isoformat()
    except ValueError:
        return ""


def _refused(result: Json, records: Sequence[RequestRecord], texts: bool) -> list[Refused]:
    known = {*TAKEN, *REFUSED_OF_THEIRS}
    percentiles = [name for name in result if name.startswith("p") and name.endswith("_ms")]
    found = refusals(REFUSED_OF_THEIRS, result)
    found += [Refused(name, DERIVED) for name in percentiles]
    found += unknown_fields(result, {*known, *percentiles})
    done = [record for record in records if record.failure is None]
    unequal = sum(not record.chunks for record in done)
    if not texts:
        found.append(Refused("itls", "the first event may be a role, so which events have text is unknown"))
    elif unequal:
        why = f"{unequal} of {len(done)} answers have other numbers of chunks and tokens, so which chunk has "
        found.append(Refused("itls", f"{why}how many is unknown"))
    return found


def _remarks(texts: bool) -> tuple[str, ...]:
    first = (
        "vLLM's TTFT is taken as that of the first text: completions have no role event."
        if texts
        else "vLLM's TTFT may be that of a role without text, so ours is unknown."
    )
    return (
        first,
        "The last token is vLLM's last event with a choice, perhaps the finish, where chunks are unknown.",
        "vLLM takes token counts from usage, and tokenizes itself where there is none; the file does not say "
        "which.",
    )

"""The worker's own endpoints, for trying and comparing: a prompt in, its continuation out, times included.

POST /generate              a whole answer in the shape of /v1/completions
POST /v1/generate           a stream: event `ttft`, then text, then event `done`
POST /v1/generate_nobatch   a whole answer; the request runs in the engine with no other beside it

Their bodies are those of /v1/completions, except that `model` may be left out and `max_tokens` may be called
`max_new_tokens`. The last two take one prompt and give one answer.

Running alone is for comparison: the request keeps its place in the queue, waits until the batch before it has
finished, and whoever comes after it waits for it. One such client slows down all others.
"""

from __future__ import annotations

import msgspec

from sluice_worker.server.choice import Choice
from sluice_worker.server.completions import DEFAULT_MAX_TOKENS, completions
from sluice_worker.server.errors import invalid, unsupported
from sluice_worker.server.exchange import Exchange
from sluice_worker.server.generation import Generation, Plan, make_plan
from sluice_worker.server.metrics import TokenMeter
from sluice_worker.server.prompts import completion_prompts, prepare
from sluice_worker.server.requests import CompletionRequest
from sluice_worker.server.responses import FirstToken, NativeAnswer, NativeEnd, TextPart, Timings
from sluice_worker.server.service import Service
from sluice_worker.server.sse import EventStream
from sluice_worker.server.validation import completion_body, decode_completion


async def generate_whole(service: Service, exchange: Exchange, body: bytes, meter: TokenMeter) -> None:
    """`POST /generate`. Raises what `completions` raises."""
    as_completion = completion_body(body, service.model.names[0])
    if decode_completion(as_completion).stream:
        raise unsupported("/generate does not stream. Use /v1/generate, or leave out 'stream'.", "stream")
    await completions(service, exchange, as_completion, meter)


async def generate(service: Service, exchange: Exchange, body: bytes, meter: TokenMeter) -> None:
    """`POST /v1/generate`. Raises `ApiError`, or what `Generation` raises."""
    plan = await _plan(service, body)
    async with Generation(service, plan, meter) as generation:
        await _stream(service, exchange, generation, meter)


async def generate_alone(service: Service, exchange: Exchange, body: bytes, meter: TokenMeter) -> None:
    """`POST /v1/generate_nobatch`. Raises `ApiError`, or what `Generation` raises."""
    plan = msgspec.structs.replace(await _plan(service, body), alone=True)
    async with Generation(service, plan, meter) as generation:
        timer, text = _Timer(meter), ""
        async for choice, piece in generation:
            timer.observe(choice)
            text += piece.text
        answer = NativeAnswer(
            text=text,
            token_ids=choice.token_ids,
            finish_reason=choice.finish_reason or "length",
            usage=generation.usage(),
            timings=timer.timings(choice),
        )
        await exchange.answer_json(answer)


async def _plan(service: Service, body: bytes) -> Plan:
    """What to generate for one prompt. Raises `ApiError`."""
    request = decode_completion(completion_body(body, service.model.names[0]))
    service.model.check_name(request.model)
    _check_single(request)
    vocab_size = service.loaded_model().vocab_size
    prompts = await prepare(len(body), lambda: completion_prompts(request, service.model, vocab_size))
    if len(prompts) > 1:
        raise invalid("'prompt' must be one string or one list of token ids here.", "prompt")
    max_tokens = DEFAULT_MAX_TOKENS if request.max_tokens is None else request.max_tokens
    return make_plan(
        service,
        request,
        prompts,
        max_tokens=max_tokens,
        logprobs=None,
        param="prompt",
        strip_first_space=False,
    )


def _check_single(request: CompletionRequest) -> None:
    for name in ("n", "best_of"):
        if getattr(request, name) not in (None, 1):
            raise unsupported(f"This endpoint gives one answer. Leave out '{name}'.", name)
    for name in ("echo", "logprobs"):
        if getattr(request, name) not in (None, False):
            raise unsupported(f"'{name}' is not supported here. Use /v1/completions.", name)


async def _stream(service: Service, exchange: Exchange, generation: Generation, meter: TokenMeter) -> None:
    events, timer = EventStream(exchange, service.keep_alive_s), _Timer(meter)
    sent = 0
    while True:
        try:
            choice, piece = await events.next(generation)
        except StopAsyncIteration:
            break
        if timer.observe(choice):
            await events.event(FirstToken(timer.ttft_s), b"ttft")
        if piece.text or (piece.finish_reason and len(choice.token_ids) > sent):
            await events.event(TextPart(piece.text, choice.token_ids[sent:]))
            sent = len(choice.token_ids)
    await events.event(_end(generation, choice, timer), b"done")
    await events.end()


def _end(generation: Generation, choice: Choice, timer: _Timer) -> NativeEnd:
    return NativeEnd(
        finish_reason=choice.finish_reason or "length",
        usage=generation.usage(),
        timings=timer.timings(choice),
    )


class _Timer:
    """When the tokens of one answer were there."""

    def __init__(self, meter: TokenMeter) -> None:
        self._meter = meter
        self.ttft_s = 0.0
        self._first_tokens = 0
        self._last_s = 0.0

    def observe(self, choice: Choice) -> bool:
        """Tokens have come; whether they are the first."""
        self._last_s = round(self._meter.elapsed_s(), 6)
        if self._first_tokens:
            return False
        self.ttft_s, self._first_tokens = self._last_s, choice.completion_tokens
        return True

    def timings(self, choice: Choice) -> Timings:
        """Of the whole answer."""
        later, took_s = choice.completion_tokens - self._first_tokens, self._last_s - self.ttft_s
        return Timings(
            ttft_s=self.ttft_s,
            total_s=self._last_s,
            tokens_per_s=round(later / took_s, 2) if later and took_s > 0 else None,
        )

"""`POST /v1/chat/completions`."""

from __future__ import annotations

from msgspec import UNSET

from sluice_worker.server.choice import Choice, OutputToken, Piece
from sluice_worker.server.exchange import Exchange
from sluice_worker.server.generation import Finished, Generation, Plan, make_plan
from sluice_worker.server.metrics import TokenMeter
from sluice_worker.server.prompts import chat_prompt, prepare
from sluice_worker.server.requests import ChatRequest
from sluice_worker.server.responses import (
    AssistantMessage,
    ChatChoice,
    ChatChunk,
    ChatChunkChoice,
    ChatCompletion,
    ChatLogprobs,
    Delta,
    Usage,
)
from sluice_worker.server.service import Service
from sluice_worker.server.sse import EventStream
from sluice_worker.server.token_text import chat_logprobs
from sluice_worker.server.tokenizer import Tokenizer
from sluice_worker.server.validation import decode_chat


async def chat_completions(service: Service, exchange: Exchange, body: bytes, meter: TokenMeter) -> None:
    """Answer one request. Raises `ApiError`, or what `Generation` raises."""
    request = decode_chat(body)
    service.model.check_name(request.model)
    plan = await _plan(service, request, len(body))
    async with Generation(service, plan, meter) as generation:
        if request.stream:
            await _stream(service, exchange, request, generation)
        else:
            finished = await generation.collect()
            answer = _whole_answer(service, request, finished, generation.usage())
            await exchange.answer_json(answer)


async def _plan(service: Service, request: ChatRequest, size_bytes: int) -> Plan:
    service.loaded_model()  # before any work
    prompt = await prepare(size_bytes, lambda: chat_prompt(request, service.model))
    asked = request.max_completion_tokens
    return make_plan(
        service,
        request,
        [prompt],
        max_tokens=request.max_tokens if asked is None else asked,
        logprobs=(request.top_logprobs or 0) if request.logprobs else None,
        param="messages",
        strip_first_space=not request.continue_final_message,
    )


def _whole_answer(
    service: Service, request: ChatRequest, finished: list[Finished], usage: Usage
) -> ChatCompletion:
    choices = [
        ChatChoice(
            index=index,
            message=AssistantMessage(content=choice.text),
            logprobs=_logprobs(request, choice.tokens, service.model.tokenizer),
            finish_reason=choice.finish_reason,
            stop_reason=choice.stop_string or UNSET,
        )
        for index, choice in enumerate(finished)
    ]
    return ChatCompletion(
        id=service.new_id("chatcmpl"),
        created=int(service.wall_clock()),
        model=request.model,
        choices=choices,
        usage=usage,
        system_fingerprint=service.fingerprint(),
    )


async def _stream(service: Service, exchange: Exchange, request: ChatRequest, generation: Generation) -> None:
    chunks = _Chunks(service, request)
    events = EventStream(exchange, service.keep_alive_s)
    begun: set[int] = set()
    while True:
        try:
            choice, piece = await events.next(generation)
        except StopAsyncIteration:
            break
        if choice.index not in begun:
            begun.add(choice.index)
            await events.event(chunks.role(choice))
        if piece.text or piece.tokens:
            await events.event(chunks.content(choice, piece))
        if piece.finish_reason:
            await events.event(chunks.finish(choice, piece.finish_reason))
    if chunks.include_usage:
        await events.event(chunks.usage(generation.usage()))
    await events.done()


class _Chunks:
    """Makes the events of one stream: one id, one time, one model name in all of them."""

    def __init__(self, service: Service, request: ChatRequest) -> None:
        self.include_usage = bool(request.stream_options and request.stream_options.include_usage)
        self._tokenizer = service.model.tokenizer
        self._request = request
        self._id = service.new_id("chatcmpl")
        self._created = int(service.wall_clock())
        self._fingerprint = service.fingerprint()

    def role(self, choice: Choice) -> ChatChunk:
        """The first event of a choice."""
        delta = Delta(role="assistant", content="")
        return self._chunk([ChatChunkChoice(index=choice.index, delta=delta)])

    def content(self, choice: Choice, piece: Piece) -> ChatChunk:
        """New text."""
        logprobs = _logprobs(self._request, piece.tokens, self._tokenizer)
        delta = Delta(content=piece.text)
        return self._chunk([ChatChunkChoice(index=choice.index, delta=delta, logprobs=logprobs)])

    def finish(self, choice: Choice, reason: str) -> ChatChunk:
        """The last event of a choice."""
        end = ChatChunkChoice(
            index=choice.index,
            delta=Delta(),
            finish_reason=reason,
            stop_reason=choice.stop_string or UNSET,
        )
        return self._chunk([end])

    def usage(self, usage: Usage) -> ChatChunk:
        """The event after the last choice."""
        return self._chunk([], usage)

    def _chunk(self, choices: list[ChatChunkChoice], usage: Usage | None = None) -> ChatChunk:
        return ChatChunk(
            id=self._id,
            created=self._created,
            model=self._request.model,
            choices=choices,
            usage=usage if self.include_usage else UNSET,
            system_fingerprint=self._fingerprint,
        )


def _logprobs(request: ChatRequest, tokens: list[OutputToken], tokenizer: Tokenizer) -> ChatLogprobs | None:
    return ChatLogprobs(chat_logprobs(tokens, tokenizer)) if request.logprobs else None

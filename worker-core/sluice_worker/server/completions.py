"""`POST /v1/completions`, OpenAI's older endpoint: text in, its continuation out, no conversation."""

from __future__ import annotations

from msgspec import UNSET, UnsetType

from sluice_worker.outputs import TokenLogprobs
from sluice_worker.server.choice import Choice, OutputToken, Piece
from sluice_worker.server.exchange import Exchange
from sluice_worker.server.generation import Finished, Generation, Plan, make_plan
from sluice_worker.server.metrics import TokenMeter
from sluice_worker.server.prompts import Prompt, completion_prompts, prepare
from sluice_worker.server.requests import CompletionRequest
from sluice_worker.server.responses import (
    Completion,
    CompletionChoice,
    CompletionLogprobs,
    PromptTokensDetails,
    Usage,
)
from sluice_worker.server.service import Service
from sluice_worker.server.sse import EventStream
from sluice_worker.server.token_text import completion_logprobs, with_prompt
from sluice_worker.server.validation import decode_completion

DEFAULT_MAX_TOKENS = 16


async def completions(service: Service, exchange: Exchange, body: bytes, meter: TokenMeter) -> None:
    """Answer one request. Raises `ApiError`, or what `Generation` raises."""
    request = decode_completion(body)
    service.model.check_name(request.model)
    vocab_size = service.loaded_model().vocab_size
    prompts = await prepare(len(body), lambda: completion_prompts(request, service.model, vocab_size))
    answers = _Answers(service, request, prompts)
    if request.max_tokens == 0 and request.logprobs is None:
        await _echo_only(exchange, request, answers)
        return
    async with Generation(service, _plan(service, request, prompts), meter) as generation:
        if request.stream:
            await _stream(service, exchange, answers, generation)
        else:
            finished = await generation.collect()
            usage = generation.usage()
            # The log-probabilities of a long prompt take as long as its tokens did.
            await exchange.answer_json(await prepare(len(body), lambda: answers.whole(finished, usage)))


def _plan(service: Service, request: CompletionRequest, prompts: list[Prompt]) -> Plan:
    return make_plan(
        service,
        request,
        prompts,
        max_tokens=DEFAULT_MAX_TOKENS if request.max_tokens is None else request.max_tokens,
        logprobs=request.logprobs,
        param="prompt",
        strip_first_space=False,
        prompt_logprobs=request.logprobs if request.echo else None,
    )


async def _echo_only(exchange: Exchange, request: CompletionRequest, answers: _Answers) -> None:
    """`echo` with `max_tokens` 0: the prompts themselves, without asking the engine."""
    if not request.stream:
        await exchange.answer_json(answers.prompts_only())
        return
    events = EventStream(exchange)
    await events.event(answers.prompts_only())
    await events.done()


async def _stream(service: Service, exchange: Exchange, answers: _Answers, generation: Generation) -> None:
    events = EventStream(exchange, service.keep_alive_s)
    begun: set[int] = set()
    while True:
        try:
            choice, piece = await events.next(generation)
        except StopAsyncIteration:
            break
        begins = answers.echoes and choice.index not in begun
        begun.add(choice.index)
        if begins:
            await events.event(answers.first_part(choice, piece))
        elif piece.text or piece.tokens:
            await events.event(answers.part(choice.index, piece))
        if piece.finish_reason:
            await events.event(answers.finish(choice.index, piece.finish_reason))
    if answers.include_usage:
        await events.event(answers.usage_part(generation.usage()))
    await events.done()


class _Answers:
    """Makes the bodies of one request's answer: one id, one time, one model name in all of them."""

    def __init__(self, service: Service, request: CompletionRequest, prompts: list[Prompt]) -> None:
        self.echoes = bool(request.echo)
        self.include_usage = bool(request.stream_options and request.stream_options.include_usage)
        self._tokenizer = service.model.tokenizer
        self._request = request
        self._prompts = prompts
        self._n = request.n or 1
        self._id = service.new_id("cmpl")
        self._created = int(service.wall_clock())
        self._fingerprint = service.fingerprint()

    def echoed(self, index: int) -> str:
        """What the text of a choice begins with: its prompt, if the client wants it back."""
        return self._prompts[index // self._n].text if self.echoes else ""

    def whole(self, finished: list[Finished], usage: Usage) -> Completion:
        """The answer that is not streamed."""
        choices = [
            CompletionChoice(
                index=index,
                text=self.echoed(index) + choice.text,
                logprobs=self._logprobs(index, choice.tokens, choice.prompt_logprobs),
                finish_reason=choice.finish_reason,
            )
            for index, choice in enumerate(finished)
        ]
        return self._completion(choices, usage)

    def prompts_only(self) -> Completion:
        """The echoed prompts, with nothing generated."""
        tokens = sum(len(prompt.token_ids) for prompt in self._prompts)
        usage = Usage(
            prompt_tokens=tokens,
            completion_tokens=0,
            total_tokens=tokens,
            prompt_tokens_details=PromptTokensDetails(0),
        )
        nothing = [Finished("", [], "length")] * (len(self._prompts) * self._n)
        return self.whole(nothing, usage)

    def first_part(self, choice: Choice, piece: Piece) -> Completion:
        """The event with an echoed prompt, and with the first text after it."""
        index = choice.index
        logprobs = self._logprobs(index, piece.tokens, choice.prompt_logprobs)
        return self._part(index, self.echoed(index) + piece.text, logprobs, None)

    def part(self, index: int, piece: Piece) -> Completion:
        """An event with new text."""
        return self._part(index, piece.text, self._logprobs(index, piece.tokens), None)

    def finish(self, index: int, reason: str) -> Completion:
        """The last event of a choice."""
        return self._part(index, "", None, reason)

    def usage_part(self, usage: Usage) -> Completion:
        """The event after the last choice."""
        return self._completion([], usage)

    def _part(
        self, index: int, text: str, logprobs: CompletionLogprobs | None, reason: str | None
    ) -> Completion:
        choice = CompletionChoice(index=index, text=text, logprobs=logprobs, finish_reason=reason)
        return self._completion([choice], None if self.include_usage else UNSET)

    def _logprobs(
        self, index: int, tokens: list[OutputToken], prompt: list[TokenLogprobs] | None = None
    ) -> CompletionLogprobs | None:
        if self._request.logprobs is None:
            return None
        answer = completion_logprobs(tokens, self._tokenizer, len(self.echoed(index)))
        if prompt is None:
            return answer
        return with_prompt(answer, self._prompts[index // self._n], prompt, self._tokenizer)

    def _completion(self, choices: list[CompletionChoice], usage: Usage | UnsetType | None) -> Completion:
        return Completion(
            id=self._id,
            created=self._created,
            model=self._request.model,
            choices=choices,
            usage=usage,
            system_fingerprint=self._fingerprint,
        )

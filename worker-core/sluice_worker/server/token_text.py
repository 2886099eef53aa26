"""How a single token is written in log-probabilities.

A token may be a part of a character. Chat answers give its exact bytes beside a readable form; legacy
completions have only a string, which is then written as OpenAI writes it, `bytes:\\xe2\\x82`.
"""

from __future__ import annotations

from sluice_worker.outputs import TokenLogprobs
from sluice_worker.server.choice import OutputToken
from sluice_worker.server.prompts import Prompt, prompt_offsets
from sluice_worker.server.responses import CompletionLogprobs, TokenLogprob, TopLogprob
from sluice_worker.server.tokenizer import Tokenizer


def chat_logprobs(tokens: list[OutputToken], tokenizer: Tokenizer) -> list[TokenLogprob]:
    """One entry a token, as chat answers have them."""
    entries = []
    for token in tokens:
        logprobs = token.logprobs
        data = tokenizer.token_bytes(token.token_id)
        top = [
            _top_logprob(tokenizer.token_bytes(token_id), logprob)
            for token_id, logprob in zip(logprobs.top_token_ids, logprobs.top_logprobs, strict=True)
        ]
        entries.append(TokenLogprob(_readable(data), logprobs.logprob, list(data), top))
    return entries


def completion_logprobs(
    tokens: list[OutputToken], tokenizer: Tokenizer, first_offset: int
) -> CompletionLogprobs:
    """Parallel lists, as legacy completions have them; `first_offset` is the length of an echoed prompt."""
    return CompletionLogprobs(
        tokens=[_legacy(token.token_id, tokenizer) for token in tokens],
        token_logprobs=[token.logprobs.logprob for token in tokens],
        top_logprobs=[_alternatives(token.token_id, token.logprobs, tokenizer) for token in tokens],
        text_offset=[first_offset + token.text_offset for token in tokens],
    )


def with_prompt(
    answer: CompletionLogprobs, prompt: Prompt, entries: list[TokenLogprobs], tokenizer: Tokenizer
) -> CompletionLogprobs:
    """The lists of an echoed prompt in front of its answer's; `entries` begin with its second token."""
    following = zip(prompt.token_ids[1:], entries, strict=True)
    return CompletionLogprobs(
        tokens=[_legacy(token_id, tokenizer) for token_id in prompt.token_ids] + answer.tokens,
        token_logprobs=[None, *(entry.logprob for entry in entries), *answer.token_logprobs],
        top_logprobs=[
            None,
            *(_alternatives(token_id, entry, tokenizer) for token_id, entry in following),
            *answer.top_logprobs,
        ],
        text_offset=prompt_offsets(prompt, tokenizer) + answer.text_offset,
    )


def _alternatives(token_id: int, logprobs: TokenLogprobs, tokenizer: Tokenizer) -> dict[str, float]:
    """The most likely tokens, and the one that stands there if it is not among them."""
    top = zip(logprobs.top_token_ids, logprobs.top_logprobs, strict=True)
    named = {_legacy(top_id, tokenizer): logprob for top_id, logprob in top}
    return named | {_legacy(token_id, tokenizer): logprobs.logprob}


def _top_logprob(data: bytes, logprob: float) -> TopLogprob:
    return TopLogprob(_readable(data), logprob, list(data))


def _readable(data: bytes) -> str:
    return data.decode(errors="replace")


def _legacy(token_id: int, tokenizer: Tokenizer) -> str:
    data = tokenizer.token_bytes(token_id)
    try:
        return data.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in data)

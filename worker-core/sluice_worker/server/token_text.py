"""How a single token is written in log-probabilities.

A token may be a part of a character. Chat answers give its exact bytes beside a readable form; legacy
completions have only a string, which is then written as OpenAI writes it, `bytes:\\xe2\\x82`.
"""

from __future__ import annotations

from sluice_worker.server.choice import OutputToken
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
        top_logprobs=[_alternatives(token, tokenizer) for token in tokens],
        text_offset=[first_offset + token.text_offset for token in tokens],
    )


def _alternatives(token: OutputToken, tokenizer: Tokenizer) -> dict[str, float]:
    """The most likely tokens, and the chosen one if it is not among them."""
    logprobs = token.logprobs
    top = zip(logprobs.top_token_ids, logprobs.top_logprobs, strict=True)
    named = {_legacy(token_id, tokenizer): logprob for token_id, logprob in top}
    return named | {_legacy(token.token_id, tokenizer): logprobs.logprob}


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

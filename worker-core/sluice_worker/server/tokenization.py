"""`POST /tokenize` and `POST /detokenize`, in vLLM's shape.

The tokens of a conversation are those that `/v1/chat/completions` would compute for it, because the same code
renders and encodes it: `count` is the later `usage.prompt_tokens`.
"""

from __future__ import annotations

from sluice_worker.server.detokenizer import Detokenizer
from sluice_worker.server.exchange import Exchange
from sluice_worker.server.prompts import prepare, rendered
from sluice_worker.server.requests import TokenizeRequest
from sluice_worker.server.responses import DetokenizedText, TokenCount
from sluice_worker.server.served_model import ServedModel
from sluice_worker.server.service import Service
from sluice_worker.server.tokenizer import Tokenizer
from sluice_worker.server.validation import decode_detokenize, decode_tokenize


async def tokenize(service: Service, exchange: Exchange, body: bytes) -> None:
    """Answer one request. Raises `ApiError`."""
    loaded = service.loaded_model()
    request = decode_tokenize(body)
    _check_name(service.model, request.model)
    tokens = await prepare(len(body), lambda: _tokens(request, service.model))
    tokenizer = service.model.tokenizer
    answer = TokenCount(
        count=len(tokens),
        max_model_len=loaded.max_model_len,
        tokens=tokens,
        token_strs=[tokenizer.token_name(token) for token in tokens] if request.return_token_strs else None,
    )
    await exchange.answer_json(answer)


async def detokenize(service: Service, exchange: Exchange, body: bytes) -> None:
    """Answer one request. Raises `ApiError`."""
    loaded = service.loaded_model()
    request = decode_detokenize(body, loaded.vocab_size)
    _check_name(service.model, request.model)
    text = await prepare(len(body), lambda: _text(request.tokens, service.model.tokenizer))
    await exchange.answer_json(DetokenizedText(text))


def _check_name(model: ServedModel, name: str | None) -> None:
    """There is one model, so it need not be named."""
    if name is not None:
        model.check_name(name)


def _tokens(request: TokenizeRequest, model: ServedModel) -> list[int]:
    with_special_tokens = request.add_special_tokens
    if request.messages is not None:
        text = rendered(request, request.messages, model)
    else:
        text = request.prompt or ""
        with_special_tokens = with_special_tokens is not False
    encode = model.tokenizer.encode_prompt if with_special_tokens else model.tokenizer.encode_rendered
    return encode(text)


def _text(tokens: list[int], tokenizer: Tokenizer) -> str:
    detokenizer = Detokenizer(tokenizer, skip_special_tokens=False, strip_first_space=True)
    return "".join(map(detokenizer.add, tokens)) + detokenizer.flush()

"""Text out of token ids as they arrive.

A token is a sequence of bytes, and a character may be spread over several tokens. Bytes of an unfinished
character are held back; bytes that can never become one turn into U+FFFD, as soon as that is certain.
Invariant: whatever the pieces, their texts joined, with the flush, are the decoding of all tokens at once.
"""

from __future__ import annotations

import codecs

from sluice_worker.server.tokenizer import Tokenizer

_new_decoder = codecs.getincrementaldecoder("utf-8")


class Detokenizer:
    """Decodes one sequence. The tokenizer is shared; the state is a few held bytes."""

    def __init__(self, tokenizer: Tokenizer, *, skip_special_tokens: bool, strip_first_space: bool) -> None:
        """`strip_first_space`: drop the space that SentencePiece vocabularies put before a first word."""
        self._tokenizer = tokenizer
        self._skip_special_tokens = skip_special_tokens
        self._strip_next_space = strip_first_space and tokenizer.adds_first_space
        self._decoder = _new_decoder("replace")

    def add(self, token_id: int) -> str:
        """The characters that this token completes; often one word, possibly none."""
        return self._decoder.decode(self._bytes(token_id))

    def flush(self) -> str:
        """What an unfinished character leaves behind at the end: U+FFFD, or nothing."""
        return self._decoder.decode(b"", final=True)

    def _bytes(self, token_id: int) -> bytes:
        if self._skip_special_tokens and self._tokenizer.is_special(token_id):
            return b""
        data = self._tokenizer.token_bytes(token_id)
        if self._strip_next_space and data:
            self._strip_next_space = False
            return data.removeprefix(b" ")
        return data

"""From documents to rows: shards of packed token rows with a mark on every token that carries loss.

A shard is a function of its number and nothing else, so a run resumes at any shard and draws the same rows
again. Documents are never cut: a row is filled from a small pool with the longest that still fits.
"""

import itertools
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from .chat import segments
from .corpus import Document, shard_documents

Rows = tuple[NDArray[np.int64], NDArray[np.bool_]]
_POOL = 64


def encode(tokenizer: Tokenizer, document: Document) -> tuple[list[int], list[bool]]:
    """Return the token ids of a document and which of them are trained."""
    pieces = list(segments(document))
    encoded = tokenizer.encode_batch([text for text, _ in pieces], add_special_tokens=False)
    ids: list[int] = []
    trained: list[bool] = []
    for (_, mark), piece in zip(pieces, encoded, strict=True):
        ids += piece.ids
        trained += [mark] * len(piece.ids)
    return ids, trained


def packed_rows(tokenizer: Tokenizer, documents: Iterator[Document], length: int) -> Iterator[Rows]:
    """Yield rows of `length + 1` ids and marks (inputs and targets overlap by one), padded with zeros."""
    pool: list[tuple[list[int], list[bool]]] = []
    while True:
        ids: list[int] = []
        marks: list[bool] = []
        while True:
            while len(pool) < _POOL:
                document = encode(tokenizer, next(documents))
                if len(document[0]) <= length + 1:
                    pool.append(document)
            room = length + 1 - len(ids)
            # Start with the document that has waited longest, then fill with the longest that fits.
            fitting = [i for i, (waiting, _) in enumerate(pool) if len(waiting) <= room]
            if not fitting:
                break
            chosen = pool.pop(0 if not ids else max(fitting, key=lambda i: len(pool[i][0])))
            ids += chosen[0]
            marks += chosen[1]
        pad = length + 1 - len(ids)
        yield np.array(ids + [0] * pad), np.array(marks + [False] * pad)


def shard(tokenizer: Tokenizer, index: int, rows: int, length: int) -> Rows:
    """Return shard `index` as ids and marks, each [rows, length + 1]."""
    drawn = list(itertools.islice(packed_rows(tokenizer, shard_documents(index), length), rows))
    return np.stack([ids for ids, _ in drawn]), np.stack([marks for _, marks in drawn])

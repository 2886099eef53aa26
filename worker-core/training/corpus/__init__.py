"""The seeded program that writes the training text of the bundled model."""

from .exchange import Document, Exchange, Message
from .mixture import SEED, document, question, shard_documents, tool_question
from .split import Split, is_held_out

__all__ = [
    "SEED",
    "Document",
    "Exchange",
    "Message",
    "Split",
    "document",
    "is_held_out",
    "question",
    "shard_documents",
    "tool_question",
]

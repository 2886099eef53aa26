"""Everything the worker raises on purpose.

    WorkerError
    ├── ConfigError              an engine setting that cannot work
    ├── ModelLoadError           the model cannot be served from what is on disk
    │   ├── ModelNotFoundError   no such folder, bundled model or Hub repository
    │   ├── UnsupportedModelError  architecture, option or dtype outside what the decoder implements
    │   ├── CheckpointError      a file or a tensor is missing, broken, or of the wrong shape
    │   └── NotEnoughMemoryError weights and cache do not fit
    ├── StagingError             a model could not be put where it was to go
    ├── RequestError             the caller's fault: an HTTP 400
    │   └── RequestTooLongError
    └── IntegrityError           a broken invariant: a bug of ours

Messages are whole sentences for the person who reads them, and say what to do.
"""

from __future__ import annotations


class WorkerError(Exception):
    """Base of all errors the worker raises on purpose."""


class ConfigError(WorkerError):
    """An engine setting that cannot work; the message names it and a value that does."""


class ModelLoadError(WorkerError):
    """The model cannot be served from what was found."""


class ModelNotFoundError(ModelLoadError):
    """The name is neither a folder, nor a bundled model, nor a reachable Hub repository."""


class UnsupportedModelError(ModelLoadError):
    """The model is readable, but needs something the decoder does not implement."""


class CheckpointError(ModelLoadError):
    """A file or tensor of the checkpoint is missing, unreadable or of the wrong shape."""


class NotEnoughMemoryError(ModelLoadError):
    """Weights and KV cache do not fit into the device's free memory."""


class StagingError(WorkerError):
    """A model could not be fetched, checked, converted or written; what was there before is untouched."""


class RequestError(WorkerError):
    """A request the engine refuses before any work. `code` is OpenAI's error code, where there is one."""

    code: str | None = None


class RequestTooLongError(RequestError):
    """The prompt leaves no room for an output token, in the model's context or in all KV blocks together."""

    code = "context_length_exceeded"


class IntegrityError(WorkerError):
    """Blocks, references or lists contradict each other: a bug in this package, never a user's fault."""

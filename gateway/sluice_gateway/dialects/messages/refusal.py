"""Why a request cannot be put into the words of chat completions: a 400 whose text names the field.

Anthropic's error shape has no place for a parameter's name, so the sentence begins with it, as theirs do.
"""

from __future__ import annotations

import msgspec

from sluice_gateway.errors import Failure, Problem, problem


class Untranslatable(ValueError):
    """Raised while translating; carries what the client is told."""

    def __init__(self, found: Problem) -> None:
        super().__init__(found.message)
        self.problem = found


def invalid(param: str, sentence: str) -> Untranslatable:
    """The field has a value that the API does not allow."""
    return Untranslatable(problem(Failure.INVALID_REQUEST, f"{param}: {sentence}", param=param))


def unsupported(param: str, sentence: str) -> Untranslatable:
    """The API allows it; engines behind chat completions cannot do it."""
    return Untranslatable(problem(Failure.UNSUPPORTED, f"{param}: {sentence}", param=param))


def from_json_error(error: Exception) -> Untranslatable:
    """What msgspec, or the interpreter's stack, found wrong with a body."""
    if isinstance(error, RecursionError):
        return Untranslatable(problem(Failure.INVALID_JSON, "The request body is nested too deeply."))
    if not isinstance(error, msgspec.ValidationError):
        text = f"The request body is not valid JSON: {error}."
        return Untranslatable(problem(Failure.INVALID_JSON, text))
    sentence, _, path = str(error).partition(" - at `$")
    param = path.rstrip("`").lstrip(".")
    _, is_missing, name = sentence.partition("missing required field ")
    if is_missing:
        return invalid(f"{param}.{name.strip('`')}".lstrip("."), "is required.")
    if param.endswith(".type") and sentence.startswith("Invalid value"):
        return unsupported(param, f"{sentence}. The gateway cannot translate that for this engine.")
    text = f"{param or 'The request body'}: {sentence}."
    return Untranslatable(problem(Failure.INVALID_TYPE, text, param=param or None))

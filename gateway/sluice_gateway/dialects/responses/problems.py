"""How a Responses request that cannot be served is refused: the words, in OpenAI's shape."""

from __future__ import annotations

import msgspec

from sluice_gateway.errors import Failure, Problem, problem


class Unacceptable(Exception):
    """Carries a `Problem` out of the depth of a request's parts. Never leaves the dialect."""

    def __init__(self, found: Problem) -> None:
        super().__init__(found.message)
        self.found = found


NO_MODEL = problem(
    Failure.INVALID_REQUEST,
    "You must provide a 'model'; GET /v1/models lists those available.",
    param="model",
)


def invalid(message: str, param: str) -> Unacceptable:
    """A field is missing, or has a value that is not allowed."""
    return Unacceptable(problem(Failure.INVALID_REQUEST, message, param=param))


def unsupported(message: str, param: str) -> Unacceptable:
    """OpenAI has it; no engine behind this gateway does."""
    return Unacceptable(problem(Failure.UNSUPPORTED, message, param=param))


def not_json(error: Exception) -> Problem:
    """The body cannot be read."""
    if isinstance(error, RecursionError):
        return problem(Failure.INVALID_JSON, "The request body is nested too deeply.")
    return problem(Failure.INVALID_JSON, f"The request body is not valid JSON: {error}.")


def wrong_type(error: msgspec.ValidationError) -> Problem:
    """msgspec says `Expected `str`, got `int` - at `$.model``, or `... - at `key` in `$.metadata``; OpenAI's
    clients want the parameter's name."""
    sentence, _, place = str(error).partition(" - at ")
    param = place.rpartition("`$")[2].strip("`.").replace("[...]", "")
    if not param:
        return problem(Failure.INVALID_JSON, f"The request body must be a JSON object: {sentence}.")
    failure = Failure.INVALID_TYPE if ", got `" in sentence else Failure.INVALID_REQUEST
    return problem(failure, f"Invalid value for '{param}': {sentence}.", param=param)

"""`sluice explain`: where a request would go and why, from the configuration alone.

The same code decides as in the gateway: the headers are read by `Catalog.facts`, the choice is the router's.
Nothing is asked of engines, so all of them count as healthy and empty, and one whose models the configuration
does not name counts as having any.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, get_args

import msgspec
import typer

from sluice_gateway import config
from sluice_gateway.config import ConfigError
from sluice_gateway.errors import Problem
from sluice_gateway.identity import Key
from sluice_gateway.routes import Kind
from sluice_gateway.settings import Settings
from sluice_router.explain import Assessment, Explanation
from sluice_router.scoring import Score
from sluice_router.types import Endpoint, RequestFacts

if TYPE_CHECKING:
    from sluice_gateway.facts import BodyFacts

_RULES = {
    "backend": "another backend was asked for",
    "model": "does not have the model",
    "kind": "does not offer this kind of request",
    "quant": "another quantization was asked for",
    "needs": "lacks a feature that the request uses",
    "gives_way": "takes any model, but another one names it",
}
_ANYBODY = Key(id="explain")
_PLACED_BY_PROMPT: tuple[Kind, ...] = ("chat", "completions")


def explain(
    model: Annotated[str, typer.Option(help="The model, or alias, that a client asks for.")],
    backend: Annotated[str | None, typer.Option(help="As in the header X-Backend.")] = None,
    quant: Annotated[str | None, typer.Option(help="As in the header X-Quant.")] = None,
    prefer: Annotated[
        bool, typer.Option("--prefer", help="Backend and quant are wishes: X-Route: prefer.")
    ] = False,
    kind: Annotated[str, typer.Option(help=f"One of {', '.join(get_args(Kind))}.")] = "chat",
    priority: Annotated[str | None, typer.Option(help="As in the header X-Priority.")] = None,
    session: Annotated[str | None, typer.Option(help="As in the header X-Session-Id.")] = None,
    body: Annotated[
        Path | None, typer.Option(help="A file with a request's JSON body, to place by its prompt.")
    ] = None,
    config_file: Annotated[
        Path | None, typer.Option("--config", "-c", help="Configuration file, as for `sluice serve`.")
    ] = None,
) -> None:
    """Show where a request would go, and what rules out the other engines. Exit status 1: nowhere."""
    # Adapters and HTTP clients take a while to import; other commands do without.
    from sluice_router.explain import explain as decide

    if kind not in get_args(Kind):
        raise typer.BadParameter(f"'{kind}' is not a kind; there are: {', '.join(get_args(Kind))}")
    named = {
        "x-backend": backend,
        "x-quant": quant,
        "x-route": "prefer" if prefer else None,
        "x-priority": priority,
        "x-session-id": session,
    }
    headers = {name.encode(): value.encode() for name, value in named.items() if value is not None}
    settings = config.for_serving(config_file, os.environ)
    endpoints = _endpoints(settings)
    asked = _body_facts(model, kind, body)
    policy = settings.admission.policy(settings.queue.max_tokens, settings.queue.max_bytes)
    facts = _facts(settings, endpoints, asked, kind, headers)
    explanation = decide(endpoints, facts, policy)
    typer.echo("\n".join([*_lines(explanation), *_decision(explanation, facts)]))
    if explanation.mismatch is not None:
        raise ConfigError(explanation.mismatch.message)


def _endpoints(settings: Settings) -> list[Endpoint]:
    """As the gateway would make them. The transports are never used."""
    from sluice_gateway.engines import Transports, build_engines
    from sluice_gateway.managed_ports import ManagedPorts

    ports = ManagedPorts()
    try:
        engines = build_engines(settings.backends, os.environ, Transports(), ports)
    finally:
        ports.close()
    return [engine.endpoint for engine in engines]


def _body_facts(model: str, kind: str, file: Path | None) -> BodyFacts:
    """What the gateway would read in the body, but for the model. Raises `ConfigError` for what it would
    refuse."""
    from sluice_gateway.facts import BodyFacts, decode

    if file is None:
        return BodyFacts(model=model)
    asked: Kind = next(k for k in get_args(Kind) if k == kind)
    if asked not in _PLACED_BY_PROMPT:
        raise typer.BadParameter(f"--body is for kinds {' and '.join(_PLACED_BY_PROMPT)}, not for '{kind}'")
    try:
        text = file.read_bytes()
    except OSError as error:
        raise ConfigError(f"Cannot read the body {file}: {error.strerror}.") from None
    found = decode(asked, text)
    if isinstance(found, Problem):
        raise ConfigError(f"{file}: {found.message}")
    return msgspec.structs.replace(found, model=model)


def _facts(
    settings: Settings, endpoints: list[Endpoint], body: BodyFacts, kind: str, headers: dict[bytes, bytes]
) -> RequestFacts:
    """As the gateway reads them. Raises `ConfigError` for what it would refuse."""
    from sluice_gateway.models import Catalog
    from sluice_gateway.routing_settings import choices
    from sluice_router.router import Router

    router = Router(endpoints, max_queue=0, queue_timeout_s=1.0)
    catalog = Catalog(router, 0, choices(settings.aliases))
    asked: Kind = next(k for k in get_args(Kind) if k == kind)
    facts = catalog.facts("explain", asked, body, headers, _ANYBODY)
    if isinstance(facts, Problem):
        raise ConfigError(facts.message)
    return facts


def _lines(explanation: Explanation) -> Iterator[str]:
    for number, assessment in enumerate(explanation.assessments, start=1):
        yield f"{number}. {_target(assessment)}"
        width = max((len(v.endpoint.id) for v in assessment.verdicts), default=0)
        for verdict in assessment.verdicts:
            text = "could serve" if verdict.rule is None else f"no: {_RULES[verdict.rule]}"
            yield f"   {verdict.endpoint.id:<{width}}  {text}"
    if any(not v.endpoint.models for a in explanation.assessments for v in a.verdicts):
        yield "Engines without configured models are taken to have any; the gateway asks them."


def _decision(explanation: Explanation, facts: RequestFacts) -> Iterator[str]:
    """What the request counts as, and where it goes."""
    prompt, output = explanation.prompt_tokens, explanation.output_tokens
    tokens = f"{prompt} of the prompt and {output} of the answer" if prompt else f"{output} of the answer"
    yield f"expected tokens: {tokens}; work {explanation.work}"
    yield f"class {facts.priority}: its first token is due within {explanation.ttft_budget_s:g} s"
    yield from (_candidate(score) for score in explanation.scores)
    yield f"=> {explanation.route or 'nowhere'}"


def _candidate(score: Score) -> str:
    words = [f"candidate {score.endpoint} ({score.why})", f"score {score.score:.0f}"]
    words += [f"{score.hit_tokens} tokens cached"] if score.hit_tokens else []
    return ", ".join(words)


def _target(assessment: Assessment) -> str:
    target = assessment.target
    facts = target.facts
    words = [f"model {facts.model}"]
    words += [f"backend {facts.backend}"] if facts.backend else []
    words += [f"quantization {facts.quant}"] if facts.quant else []
    words += ["less than was wished for"] if target.relaxed else []
    return ", ".join(words)

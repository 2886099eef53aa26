"""The command `sluice-bench quality`: perplexity, divergence and agreement, through the public API."""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from sluice_bench.api_calls import ApiFailed, Server
from sluice_bench.commands import run_options as options
from sluice_bench.commands.run_command import without_secrets
from sluice_bench.commands.server_address import first_model, header_of, target_of
from sluice_bench.quality.divergence import NotComparable
from sluice_bench.quality.measurement import (
    Backend,
    QualitySettings,
    measure_quality,
    number_of_steps,
    tasks_of_file,
)
from sluice_bench.quality.passages import text_of_corpus, text_of_file
from sluice_bench.quality.prompt_logprobs import MOST_ALTERNATIVES
from sluice_bench.quality.quality_record import BackendQuality, QualityRecord
from sluice_bench.stats.estimate import Estimate
from sluice_bench.terminal import command_line, console, fail, steps, write_json
from sluice_bench.workloads.corpus import CorpusError, load_corpus


def quality_command(
    url: options.Url,
    headers: options.Headers = None,
    model: options.Model = None,
    variant: options.Variant = "",
    reference: Annotated[
        str | None,
        typer.Option(help="Compare with this server; the same address with other headers will do."),
    ] = None,
    reference_headers: Annotated[
        list[str] | None,
        typer.Option("--reference-header", help="`Name: value` for the reference, may be repeated."),
    ] = None,
    reference_model: Annotated[
        str | None, typer.Option(help="Model id of the reference; by default the same.")
    ] = None,
    reference_variant: Annotated[str, typer.Option(help="A word for the reference.")] = "reference",
    text: Annotated[
        Path | None, typer.Option(help="What is read, UTF-8; by default prompts of the corpus.")
    ] = None,
    tasks: Annotated[
        Path | None,
        typer.Option(help='For BLEU: JSON lines, each {"prompt": "…", "reference": "…"}.'),
    ] = None,
    window: Annotated[int, typer.Option(min=2, help="The most tokens that are read in one piece.")] = 512,
    windows: Annotated[
        int, typer.Option(min=1, help="The most windows that are read, evenly spread over the text.")
    ] = 64,
    top: Annotated[
        int, typer.Option(min=1, max=MOST_ALTERNATIVES, help="Alternatives of each token to ask for.")
    ] = MOST_ALTERNATIVES,
    prompts: Annotated[int, typer.Option(min=1, help="How many prompts two backends answer greedily.")] = 24,
    max_tokens: Annotated[int, typer.Option(min=1, help="Of each answer.")] = 48,
    api_key: options.ApiKey = None,
    seed: Annotated[int, typer.Option(help="Of the resampling behind the intervals.")] = 1,
    output: Annotated[Path | None, typer.Option(help="Write the figures here, as JSON.")] = None,
) -> None:
    """Measure how well a server predicts a text and, beside a reference, how far it is from that one.

    Needs a server that gives log-probabilities of a prompt, as vLLM and Sluice's worker do. Ends with status
    1 when it does not.
    """
    backend = _backend(url, headers, model, variant or "server", api_key)
    compared = None
    if reference is not None:
        known = reference_model or model
        compared = _backend(reference, reference_headers, known, reference_variant, api_key)
    elif reference_headers or reference_model:
        fail("--reference-header and --reference-model need --reference, which says where to send them.")
    secrets = [*(headers or ()), *(reference_headers or ())]
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        corpus = load_corpus()
        settings = QualitySettings(
            backend=backend,
            reference=compared,
            text=text_of_corpus(corpus) if text is None else text_of_file(text),
            window=window,
            most_windows=windows,
            alternatives=top,
            prompts=[prompt.turns[0] for prompt in corpus.suite("short")[:prompts]],
            max_tokens=max_tokens,
            tasks=() if tasks is None else tasks_of_file(tasks),
            seed=seed,
            command=without_secrets(command_line(), api_key, secrets),
        )
        with steps(number_of_steps(settings)) as on_step:
            record = measure_quality(settings, on_step)
    except (ApiFailed, NotComparable) as error:
        fail(str(error))
    except (OSError, ValueError, CorpusError) as error:
        fail(f"{str(error)[:1].upper()}{str(error)[1:]}.")
    show(record)
    if output is not None:
        write_json(output, record)
        console.print(f"Wrote {output}.", highlight=False)


def _backend(
    url: str, headers: list[str] | None, model: str | None, variant: str, api_key: str | None
) -> Backend:
    target = target_of(url)
    server = Server(
        target=target,
        model=model or first_model(target, api_key),
        headers=tuple(header_of(text) for text in headers or ()),
        api_key=api_key,
    )
    return Backend(variant, server)


def show(record: QualityRecord) -> None:
    """Print a measurement."""
    table = Table(title=f"{record.windows} windows of {record.text}, {record.scored_tokens} tokens scored")
    for column in ("", "value", "95 %"):
        table.add_column(column, justify="left" if not column else "right")
    for backend in (record.reference, record.backend):
        if backend is not None:
            _add_backend(table, backend)
    if record.divergence is not None:
        divergence = record.divergence
        _add(table, "KL, at least, nats per token", divergence.kl_lower_bound, "{:.5f}")
        _add(table, "same most likely token", divergence.same_top_token, "{:.2%}")
    if record.agreement is not None:
        agreement = record.agreement
        _add(table, "same greedy answers", agreement.same_answers, "{:.1%}")
        if agreement.common_share is not None:
            _add(table, "equal tokens before a difference", agreement.common_share, "{:.1%}")
        _add(table, "BLEU against the reference's answers", agreement.bleu, "{:.4f}")
    console.print(table)
    if record.divergence is not None:
        console.print(
            f"KL is a lower bound: the top {record.divergence.alternatives} of each side are compared, and "
            f"the rest, {record.divergence.remainder:.2%} of the reference's probability, is one bucket.",
            highlight=False,
        )
    if record.cut_by == "characters":
        console.print("The server has no /tokenize; windows are pieces of text.", highlight=False)


def _add_backend(table: Table, backend: BackendQuality) -> None:
    _add(table, f"perplexity, {backend.variant}", backend.perplexity, "{:.4f}")
    if backend.bleu is not None:
        _add(table, f"BLEU of the tasks, {backend.variant}", backend.bleu, "{:.4f}")


def _add(table: Table, name: str, figure: Estimate, form: str) -> None:
    bounds = (
        ""
        if figure.low is None or figure.high is None
        else (f"{form.format(figure.low)} – {form.format(figure.high)}")
    )
    table.add_row(name, form.format(figure.value), bounds)

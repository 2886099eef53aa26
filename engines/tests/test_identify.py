"""Which engine a URL is, by looking only."""

from __future__ import annotations

import json

import pytest

from sluice_engines.fingerprints import FINGERPRINTS, OPENAI_COMPATIBLE
from sluice_engines.identify import identify, judge
from sluice_engines.page import Page

from .page_server import Engine, serving
from .recorded import answers
from .simple_transport import SimpleTransport

OPENAI = {"/v1/models": Page(200, b'{"object": "list", "data": [{"id": "gpt", "owned_by": "openai"}]}')}


@pytest.mark.parametrize(
    ("folder", "engine", "version", "models", "limits"),
    [
        ("worker", "worker", None, ("sluice-tiny",), {"max_model_len": 1024, "max_running": 2}),
        (
            "llamacpp",
            "llamacpp",
            "b0-unknown",
            ("sluice-tiny.gguf",),
            {"max_model_len": 1024, "max_running": 2},
        ),
        ("vllm", "vllm", "0.32.0", ("sluice-tiny",), {"max_model_len": 1024}),
        ("sglang", "sglang", "0.5.9", ("meta-llama/Llama-3.1-8B-Instruct",), {"kv_capacity_tokens": 440_383}),
        ("trt", "trt", "1.2.1", ("TinyLlama-1.1B-Chat-v1.0",), {}),
        ("tgi-3", "tgi", "3.3.7", ("HuggingFaceH4/zephyr-7b-beta",), {"max_input_tokens": 4095}),
        ("tgi-1", "tgi", "1.4.5", None, {"max_input_tokens": 1024, "max_batch_total_tokens": 32_000}),
        ("ollama", "ollama", "0.12.6", ("gemma3:latest",), {}),
        ("lmstudio", "lmstudio", None, ("qwen2-vl-7b-instruct",), {"max_model_len": 32_768}),
    ],
)
def test_each_engine_is_known_by_its_pages(folder, engine, version, models, limits):
    found = judge(answers(folder))

    assert (found.engine, found.version, found.models) == (engine, version, models)
    assert limits.items() <= found.limits.items()
    assert found.adapter is not None
    assert found.seen


def test_a_server_that_only_lists_models_is_openai_compatible():
    found = judge(OPENAI)

    assert (found.engine, found.adapter, found.models) == ("openai_compatible", "openai_compatible", ("gpt",))
    assert found.problem is None


def test_a_version_page_is_no_sign_of_any_engine():
    assert judge(OPENAI | {"/version": Page(200, b'{"version": "1.0"}')}).engine == "openai_compatible"


def test_a_gateway_of_ours_is_not_taken_for_a_worker():
    model = {"id": "m", "object": "model", "owned_by": "sluice", "display_name": "m", "type": "model"}
    page = Page(200, json.dumps({"data": [model]}).encode())

    assert judge({"/v1/models": page}).engine == "sluice"


def test_a_server_that_answers_everything_alike_is_not_mistaken():
    """LM Studio answers unknown paths with 200 and an error, proxies with their front page."""
    paths = {clue.path for fingerprint in FINGERPRINTS for clue in fingerprint.clues}
    for body in (b'{"error": "Unexpected endpoint"}', b"<html>Welcome</html>", b"[]", b"null", b"3"):
        assert judge({path: Page(200, body) for path in paths}).engine is None


def test_pages_that_were_refused_are_no_clues():
    pages = {path: Page(403, page.body) for path, page in answers("llamacpp").items()}

    found = judge(pages)

    assert found.engine is None
    assert found.problem == "/v1/models answered 403: it wants an API key."


def test_no_fingerprint_fits_another_engines_pages_as_well():
    for folder in ("worker", "vllm", "llamacpp", "sglang", "trt", "tgi-3", "ollama", "lmstudio"):
        found = judge(answers(folder))
        others = tuple(f for f in FINGERPRINTS if f.name != found.engine)
        pages = answers(folder)
        fitting = [f.name for f in others if any(page_fits(pages, clue) for clue in f.clues)]
        assert fitting == [], (folder, fitting)


def page_fits(pages, clue) -> bool:
    from sluice_engines.identify import _document, _holds

    return _holds({path: _document(page) for path, page in pages.items() if page.is_success}, clue)


def test_no_look_changes_anything():
    asked = {clue.path for f in (*FINGERPRINTS, OPENAI_COMPATIBLE) for clue in f.clues}
    asked |= {path for f in FINGERPRINTS for path, _ in f.version} | {
        x.path for f in FINGERPRINTS for x in f.limits
    }

    assert not asked & {"/metrics", "/slots", "/health_generate"}


async def test_it_looks_over_the_wire():
    pages = {path: (page.status, page.body.decode()) for path, page in answers("llamacpp").items()}
    engine = Engine(pages)
    async with serving(engine) as url:
        found = await identify(SimpleTransport(), url, "secret")

    assert (found.engine, found.version) == ("llamacpp", "b0-unknown")
    assert set(engine.authorizations) == {"Bearer secret"}
    assert len(engine.asked) == len(set(engine.asked))


async def test_where_nothing_answers_it_says_so(unused_tcp_port):
    found = await identify(SimpleTransport(), f"http://127.0.0.1:{unused_tcp_port}")

    assert found.engine is None
    assert found.problem.startswith("Nothing answers there: /v1/models: ")


async def test_a_server_that_hangs_on_one_page_is_known_by_the_others():
    pages = {path: (page.status, page.body.decode()) for path, page in answers("llamacpp").items()}
    async with serving(Engine(pages, stall="/version")) as url:
        found = await identify(SimpleTransport(), url, timeout_s=0.3)

    assert found.engine == "llamacpp"

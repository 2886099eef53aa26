"""What `docs/files-and-batches.md` says is so."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

from sluice_gateway import config
from sluice_gateway.batches.creation import ENDPOINTS
from sluice_gateway.batches.service import LEASE_S
from sluice_gateway.routes import ROUTES

from .batches.batch_server import jsonl
from .serving import ECHO, eventually, serving, settings_of

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "files-and-batches.md").read_text()


def example(language: str) -> str:
    found = re.search(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)
    assert found is not None
    return found[1]


async def test_the_python_example_makes_a_batch(tmp_path: Path) -> None:
    (tmp_path / "requests.jsonl").write_bytes(jsonl(["x"]))
    settings = settings_of(backends=[ECHO], files={"dir": str(tmp_path / "files")})
    async with serving(settings) as served:
        code = example("python").replace("http://127.0.0.1:8000", served.url)
        code = code.replace("requests.jsonl", str(tmp_path / "requests.jsonl"))
        code = code.replace("client = OpenAI(", "client = OpenAI(max_retries=0, ") + "client.close()\n"
        scope: dict[str, object] = {}
        await asyncio.to_thread(exec, code, scope)
        assert scope["batch"].status == "validating"  # type: ignore[attr-defined]
        await eventually(lambda: "/v1/chat/completions" in served.log.getvalue())


def test_the_configuration_example_is_valid() -> None:
    backend = config.parse("page", example("yaml"), {}).backends[0]
    assert backend.endpoints == ("rerank", "score", "tokenize")


def test_every_kind_and_path_is_named() -> None:
    native = {"chat", "completions", "embeddings", "responses", "messages", "count_tokens"}
    for route in ROUTES:
        if route.kind not in native:
            assert f"`{route.path}`" in PAGE
            assert f"`{route.kind}`" in PAGE
    assert all(f"`{endpoint}`" in PAGE for endpoint in ENDPOINTS)
    assert f"a lease of {LEASE_S:g}" in PAGE

"""The quick start of `docs/deploy.md` against a running stack: what a new user does, and what must not work.

Each step is one sentence when it went well, and raises `StackError` when it did not. The key is in none.
"""

from __future__ import annotations

import json
import stat
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from local_stack import LocalStack, StackError
from openai import AuthenticationError, OpenAI, RateLimitError

MODEL = "sluice-tiny"
_PATIENCE_S = 60.0
_QUESTION = "What is the capital of France?"


def smoke_test(stack: LocalStack) -> Iterator[str]:
    """Do all of it."""
    key = stack.execute("gateway", "sluice", "keys", "show", "--bootstrap").strip()
    yield _first_key(stack, key)
    yield _strangers(stack)
    yield _conversation(stack, key)
    yield _limits(stack, key)
    yield _metrics(stack)
    yield _secrecy(stack, key)


def _first_key(stack: LocalStack, key: str) -> str:
    file = Path(stack.services["gateway"].environment["SLUICE_BOOTSTRAP_KEY_FILE"])
    mode = stat.S_IMODE(file.stat().st_mode)
    _require(mode == 0o600, f"the file of the first key has mode {mode:o}")
    _require(file.read_text(encoding="utf-8").strip() == key, "another key is shown than the file has")
    return "the first start made a key that its owner alone can read, and the command shows it"


def _strangers(stack: LocalStack) -> str:
    for key in ("none", "sk-sluice-wrong"):
        try:
            _client(stack, key).models.list()
        except AuthenticationError:
            continue
        raise StackError("A request without a valid key was answered.")
    return "without the key: 401"


def _conversation(stack: LocalStack, key: str) -> str:
    client = _client(stack, key)
    messages: Any = [{"role": "user", "content": _QUESTION}]
    whole = client.chat.completions.create(model=MODEL, messages=messages, temperature=0, max_tokens=32)
    stream = client.chat.completions.create(
        model=MODEL, messages=messages, temperature=0, max_tokens=32, stream=True
    )
    pieces = [chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices]
    _require(len(pieces) > 2, f"the stream came in {len(pieces)} pieces")
    _require(
        "".join(pieces) == whole.choices[0].message.content, "the stream said something else than the answer"
    )
    return f"with it: chat by the OpenAI SDK, streaming and not ({''.join(pieces).strip()!r})"


def _limits(stack: LocalStack, key: str) -> str:
    body = json.dumps({"id": "limited", "limits": {"requests_per_min": 1}}).encode()
    made = _fetch(
        f"{stack.url('gateway')}/admin/v1/keys",
        body,
        {"authorization": f"Bearer {key}", "content-type": "application/json"},
    )
    client = _client(stack, made["secret"])
    messages: Any = [{"role": "user", "content": "Hi"}]
    # Other processes see a new key within a second.
    _until(lambda: _accepted(client), "the new key is not taken")
    try:
        client.chat.completions.create(model=MODEL, messages=messages, max_tokens=4)
        client.chat.completions.create(model=MODEL, messages=messages, max_tokens=4)
        raise StackError("A key with one request a minute was let in twice.")
    except RateLimitError:
        pass
    port = str(stack.services["redis"].port)
    kept = stack.execute("redis", "redis-cli", "-p", port, "--scan", "--pattern", "{sluice}:limits:*")
    _require(bool(kept.strip()), "there is nothing of the limits in Redis")
    return "a key with one request a minute gets 429 the second time, and Redis has the count"


def _accepted(client: OpenAI) -> bool:
    try:
        client.models.list()
    except AuthenticationError:
        return False
    return True


def _metrics(stack: LocalStack) -> str:
    for query in (
        'up{job="gateway"} == 1',
        'up{job="worker"} == 1',
        'sluice:generation_tokens:rate1m{backend="worker"}',
        'sluice:gateway_tokens:rate1m{backend="worker"}',
        'sluice_gateway_limiter_mode{mode="redis"} == 1',
    ):
        _until(partial(query_prometheus, stack, query), f"Prometheus has nothing for {query}")
    return "Prometheus scrapes gateway and worker, and its rules give them common names"


def _secrecy(stack: LocalStack, key: str) -> str:
    for service in stack.services.values():
        found = key in service.log.read_text(encoding="utf-8", errors="replace")
        _require(not found, f"the first key is in the log of {service.name}")
    return "the key is in no log"


def ask(stack: LocalStack) -> None:
    """Have one question answered as a stream, with the first key."""
    key = Path(stack.services["gateway"].environment["SLUICE_BOOTSTRAP_KEY_FILE"]).read_text(encoding="utf-8")
    messages: Any = [{"role": "user", "content": _QUESTION}]
    client = _client(stack, key.strip())
    for _ in client.chat.completions.create(model=MODEL, messages=messages, max_tokens=8, stream=True):
        pass


def query_prometheus(stack: LocalStack, query: str) -> list[Any]:
    """The series that a PromQL expression has now. Raises `StackError` when it is not one."""
    url = f"{stack.url('prometheus')}/api/v1/query?{urllib.parse.urlencode({'query': query})}"
    try:
        found: list[Any] = _fetch(url)["data"]["result"]
    except OSError as error:
        raise StackError(f"Prometheus does not take {query}: {error}.") from error
    return found


def _client(stack: LocalStack, key: str) -> OpenAI:
    return OpenAI(base_url=f"{stack.url('gateway')}/v1", api_key=key, max_retries=0, timeout=_PATIENCE_S)


def _fetch(url: str, body: bytes | None = None, headers: dict[str, str] | None = None) -> Any:
    request = urllib.request.Request(url, body, headers or {})
    with urllib.request.urlopen(request, timeout=_PATIENCE_S) as answer:
        return json.load(answer)


def _until(condition: Callable[[], object], complaint: str) -> None:
    deadline = time.monotonic() + _PATIENCE_S
    while not condition():
        _require(time.monotonic() < deadline, complaint)
        time.sleep(0.2)


def _require(condition: bool, complaint: str) -> None:
    if not condition:
        raise StackError(f"{complaint[0].upper()}{complaint[1:]}.")

"""A configuration error names file, line, key and what is allowed."""

from __future__ import annotations

from pathlib import Path

import pytest

from sluice_gateway import config
from sluice_gateway.auth import digest
from sluice_gateway.config import ConfigError

DIGEST = digest("sk-a")


def mistake(text: str, **environment: str) -> str:
    with pytest.raises(ConfigError) as raised:
        config.parse("sluice.yaml", text, environment)
    return str(raised.value)


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("serve:\n  port: 1\n", 1, ("serve", "unknown key", "server", "backends")),
        ("server:\n  host: x\n  prot: 1\n", 3, ("server.prot", "unknown key", "port")),
        ("server:\n  port: many\n", 2, ("server.port", "int")),
        ("server:\n  port: 70000\n", 2, ("server.port", "65535")),
        ("server:\n  port: 1\n  port: 2\n", 3, ("port", "twice")),
        ("server:\n\nqueue: [\n", 4, ("not valid YAML",)),
        ("- a\n", 1, ("object",)),
        ("backends:\n  - adapter: echo\n", 2, ("backends[0]", "name")),
        (
            "backends:\n  - name: a\n    adapter: echoo\n",
            3,
            ("backends[0].adapter", "echoo", "openai_compatible"),
        ),
        ("backends:\n  - name: a\n    adapter: worker\n", 2, ("backends[0].url", "managed")),
        ("backends:\n  - name: a\n    adapter: worker\n    url: ftp://x\n", 4, ("backends[0].url", "http")),
        ("backends:\n  - {name: a, adapter: echo}\n  - {name: a, adapter: echo}\n", 3, ("name", "twice")),
        ("backends:\n  - name: a\n    adapter: echo\n    quant: int2\n", 4, ("quant", "awq", "int8", "fp8")),
        ("backends:\n  - name: a\n    adapter: echo\n    url: http://x\n", 3, ("inside the gateway",)),
        ("backends:\n  - name: a\n    adapter: openai_compatible\n    managed: {}\n", 4, ("command",)),
        ("backends:\n  - name: w\n    adapter: worker\n    managed: {model: x}\n", 4, ("model", "args")),
        ("backends:\n  - name: l\n    adapter: llamacpp\n    managed: {}\n", 4, ("--model, FILE.gguf",)),
        ("backends:\n  - name: v\n    adapter: vllm\n    managed: {}\n", 4, ("args: [MODEL]",)),
        (
            "backends:\n  - name: s\n    adapter: sglang\n    managed: {args: [x]}\n",
            4,
            ("'command'", "sglang"),
        ),
        (f"keys:\n  - id: a\n    sha256: {DIGEST}\n    backends: [gpu]\n", 4, ("gpu", "worker")),
        (f"keys:\n  - id: a\n    sha256: {DIGEST.upper()}\n", 3, ("sha256", "64 lower-case")),
        ("backends:\n  - name: a\n    adapter: worker\n    url: [x]\n", 4, ("url", "http://host:port")),
        ("admission:\n  kv_share: 0.9\n  bulk_ttft_s: 0\n", 3, ("admission.bulk_ttft_s", "> 0")),
        (
            "admission:\n  default_ttft_s: 1\n",
            2,
            ("admission.default_ttft_s", "'interactive_ttft_s' (2)", "more urgent"),
        ),
        (
            "admission:\n  bulk_ttft_s: 9\n  kv_share: 1\n",
            2,
            ("admission.bulk_ttft_s", "'default_ttft_s' (10)"),
        ),
        ("tenants:\n  - id: a\n    weight: 0\n", 3, ("tenants[0].weight", ">= 0.01")),
        ("admission:\n  kv_share: 1.2\n", 2, ("admission.kv_share", "<= 1")),
        ("queue:\n  max_waiting: 9\n  max_tokens: 0\n", 3, ("queue.max_tokens", ">= 1")),
        ("timeouts:\n  idle_s: 0\n", 2, ("timeouts.idle_s", "> 0")),
        ("logs:\n  format: xml\n", 2, ("logs.format", "json", "text")),
        ("server:\n  ? [a]\n  : 1\n", 2, ("a key must be a word",)),
        ('server:\n  host: "\x01"\n', 2, ("control character",)),
        ("server:\n  host: !!python/name:os.system x\n", 2, ("not valid YAML", "os.system")),
        ("server: &a [*a]\n", 1, ("an alias holds itself",)),
        (
            "backends:\n  - name: a\n    adapter: worker\n    url: http://me:pw@x\n",
            4,
            ("without credentials",),
        ),
        ("backends:\n  - name: a\n    adapter: worker\n    url: http://x:99999\n", 4, ("http://host:port",)),
        (
            "backends:\n  - name: a\n    adapter: echo\n    options: {tokens_per_s: fast}\n",
            4,
            ("backends[0].options", "tokens_per_s"),
        ),
    ],
)
def test_a_mistake_is_found_where_it_is(text: str, line: int, words: tuple[str, ...]) -> None:
    message = mistake(text)
    assert message.startswith(f"sluice.yaml, line {line}: ")
    for word in words:
        assert word in message


def test_a_missing_variable_is_named_and_its_value_is_never_shown() -> None:
    text = "backends:\n  - name: a\n    adapter: openai_compatible\n    url: http://x\n"
    text += "    api_key_env: THE_KEY\n"
    assert "line 5" in mistake(text)
    assert "THE_KEY is not set" in mistake(text)
    assert config.parse("sluice.yaml", text, {"THE_KEY": "s"}).backends[0].api_key_env == "THE_KEY"


def test_an_empty_file_is_the_bundled_worker(tmp_path: Path) -> None:
    path = tmp_path / "sluice.yaml"
    path.write_text("# nothing\n")
    assert [backend.name for backend in config.for_serving(path, {}).backends] == ["worker"]


def test_without_a_file_serve_has_the_worker_and_the_application_only_echo(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert [backend.name for backend in config.for_serving(None, {}).backends] == ["worker"]
    assert [backend.name for backend in config.for_application({}).backends] == ["echo"]


def test_the_file_is_found_by_flag_then_variable_then_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, port in (("sluice", 1001), ("variable", 1002), ("flag", 1003)):
        (tmp_path / f"{name}.yaml").write_text(f"server: {{port: {port}}}\n")
    environment = {"SLUICE_CONFIG": "variable.yaml"}
    assert config.for_serving(None, {}).server.port == 1001
    assert config.for_serving(None, environment).server.port == 1002
    assert config.for_serving(Path("flag.yaml"), environment).server.port == 1003
    assert config.for_application(environment).server.port == 1002


def test_the_environment_wins_over_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("server: {port: 1001, host: 10.0.0.1}\n")
    settings = config.load(path, {"SLUICE_PORT": "1009", "SLUICE_HOST": "127.0.0.2"})
    assert (settings.server.host, settings.server.port) == ("127.0.0.2", 1009)


@pytest.mark.parametrize("port", ["http", "0", "65536", "-1"])
def test_a_port_that_is_none_is_refused(port: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="SLUICE_PORT"):
        config.for_application({"SLUICE_PORT": port})


@pytest.mark.parametrize(
    ("url", "password", "opened"),
    [
        ("postgresql://me@db/x", "p@ss/word\n", "postgresql://me:p%40ss%2Fword@db/x"),
        ("postgresql://me:old@db:5433/x?ssl=require", "new", "postgresql://me:new@db:5433/x?ssl=require"),
        ("postgresql://me:old@db/x", "", "postgresql://me:old@db/x"),
        ("sqlite:///a.db", "secret", "sqlite:///a.db"),
    ],
)
def test_a_password_comes_from_a_file(url: str, password: str, opened: str, tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text(password)
    environment = {"SLUICE_STORE_URL": url, "SLUICE_STORE_PASSWORD_FILE": str(file)}
    assert config.for_application(environment).store.url == opened


def test_a_password_file_that_is_not_there_is_one_sentence(tmp_path: Path) -> None:
    environment = {"SLUICE_STORE_URL": "postgresql://me@db/x", "SLUICE_STORE_PASSWORD_FILE": "/none"}
    with pytest.raises(ConfigError, match="SLUICE_STORE_PASSWORD_FILE /none"):
        config.for_application(environment)


def test_the_environment_says_where_traces_go() -> None:
    settings = config.for_application({"SLUICE_OTLP_ENDPOINT": "http://otel:4318"})
    assert settings.tracing.otlp_endpoint == "http://otel:4318"
    with pytest.raises(ConfigError, match="SLUICE_OTLP_ENDPOINT"):
        config.for_application({"SLUICE_OTLP_ENDPOINT": "otel:4318"})


def test_a_file_that_is_not_there_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="Cannot read"):
        config.for_serving(tmp_path / "none.yaml", {})

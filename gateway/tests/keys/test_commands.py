"""`sluice keys`, `sluice tenants` and `sluice audit`, run as a user runs them."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from sluice_gateway import cli
from sluice_gateway.auth import digest
from sluice_gateway.commands.options import moment, seconds
from sluice_gateway.config import ConfigError


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("SLUICE_")]:
        monkeypatch.delenv(name, raising=False)


def run(line: str, **options: Any) -> Result:
    return CliRunner().invoke(cli.app, line.split(), **options)


def said(line: str, **options: Any) -> str:
    result = run(line, **options)
    assert result.exit_code == 0, (line, result.output, result.exception)
    return result.stdout


def sent(line: str) -> Any:
    return json.loads(said(f"{line} --json"))


def test_a_key_from_its_first_to_its_last_day() -> None:
    said("tenants create blue --description Blue --budget-per-month 50")
    made = said(
        "keys create --id alice --tenant blue --model llama-* --model qwen --expires 30d --concurrent 4"
    )
    secret = next(word for word in made.split() if word.startswith("sk-sluice-"))
    shown = said("keys show alice")
    assert secret not in shown
    for words in ("llama-*, qwen", "4 at once", "blue", f"...{secret[-4:]}"):
        assert words in shown
    rotated = said("keys rotate alice --overlap 30m")
    assert secret not in rotated
    assert f"...{secret[-4:]} until" in rotated
    assert "alice" in said("keys list")
    assert "Revoked alice" in said("keys revoke alice")
    assert "revoked" in said("keys list")
    said("tenants delete blue")
    assert "alice" not in said("keys list")


def test_json_is_for_programs() -> None:
    issued = sent(
        "keys create --id bob --admin --quant int8 --endpoint chat --backend worker --tokens-per-min 9"
    )
    assert issued["secret"].startswith("sk-sluice-")
    assert issued["key"]["scopes"] == {
        "models": None, "backends": ["worker"], "quants": ["int8"], "endpoints": ["chat"], "admin": True
    }  # fmt: skip
    assert [key["id"] for key in sent("keys list")] == ["bob"]
    assert sent("keys show bob") == issued["key"]
    assert sent("keys rotate bob --overlap 0s")["secret"] != issued["secret"]
    assert sent("keys revoke bob")["revoked_at"]
    assert sent("tenants create t --requests-per-min 3")["limits"]["requests_per_min"] == 3
    assert [tenant["id"] for tenant in sent("tenants list")] == ["t"]
    assert sent("tenants show t")["id"] == "t"
    assert [entry["actor"] for entry in sent("audit")] == ["cli"] * 4
    assert [entry["id"] for entry in sent("audit --count 2 --after 4")] == [3, 2]


def test_a_change_touches_what_it_names_and_takes_back_what_it_is_told() -> None:
    said("keys create --id bob --model a --concurrent 4 --tokens-per-min 9 --expires 2031-01-31 --admin")
    said("keys update bob --backend worker --unset model --unset tokens-per-min --unset expires --no-admin")
    bob = sent("keys show bob")
    assert (bob["scopes"]["models"], bob["scopes"]["backends"], bob["scopes"]["admin"]) == (
        None,
        ["worker"],
        False,
    )
    assert (bob["limits"]["concurrent"], bob["limits"]["tokens_per_min"], bob["expires_at"]) == (
        4,
        None,
        None,
    )
    said("tenants create t --budget-per-day 1")
    changed = sent("tenants update t --unset budget-per-day --description x")
    assert (changed["limits"]["budget_per_day"], changed["description"]) == (None, "x")


def test_the_log_is_a_table_for_people() -> None:
    said("keys create --id bob --description [red]markup[/red]")
    said("keys update bob --concurrent 1")
    page = said("audit")
    assert all(word in page for word in ("key.create", "key.update", "limits", "cli"))
    assert "key.create" not in said("audit --count 1")


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("keys create --tenant nobody", "sluice tenants create nobody"),
        ("keys show nobody", "no key 'nobody'"),
        ("keys revoke nobody", "no key 'nobody'"),
        ("keys create --quant int2", "int2"),
        ("tenants delete nobody", "no tenant 'nobody'"),
        ("tenants create a/b", "cannot be an id"),
    ],
)
def test_what_cannot_be_is_one_sentence(line: str, words: str) -> None:
    result = run(line)
    assert isinstance(result.exception, ConfigError)
    assert words in str(result.exception)
    assert "\n" not in str(result.exception)


@pytest.mark.parametrize(
    "line",
    [
        *("keys show", "keys show bob --bootstrap"),
        *("keys create --expires soon", "keys rotate bob --overlap long", "keys create --concurrent 0"),
        *("keys update bob --unset colour", "tenants update t --unset model", "audit --count 0"),
    ],
)
def test_a_wrong_command_line_is_status_2(line: str) -> None:
    assert run(line).exit_code == 2


def test_keys_of_the_file_are_shown_beside_those_of_the_store(tmp_path: Path) -> None:
    entry = said("keys new --id filed")
    (tmp_path / "sluice.yaml").write_text(entry[entry.index("keys:") :])
    said("keys create --id stored")
    assert [(key["id"], key["source"]) for key in sent("keys list")] == [
        ("filed", "file"),
        ("stored", "store"),
    ]
    result = run("keys revoke filed")
    assert "configuration file" in str(result.exception)


def test_the_store_is_the_configured_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sluice.yaml").write_text("store: {url: 'sqlite:///a.db'}\n")
    said("keys create --id bob")
    assert (tmp_path / "a.db").is_file()
    monkeypatch.setenv("SLUICE_STORE_URL", "sqlite:///b.db")
    assert sent("keys list") == []
    assert (tmp_path / "b.db").is_file()
    assert not (tmp_path / ".sluice").exists()


def test_a_secrets_digest_is_what_the_file_holds() -> None:
    assert said("keys hash", input="sk-a\n").strip() == digest("sk-a")


def test_times_are_read_in_both_ways() -> None:
    assert [seconds(text) for text in ("90s", "1.5h", "30d", "2w")] == [90, 5400, 2_592_000, 1_209_600]
    assert moment("1h", 100.0) == 3700
    assert moment("1970-01-02", 0) == 86_400
    assert moment("1970-01-02T01:00:00+01:00", 0) == 86_400

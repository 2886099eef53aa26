"""Finding adapters, ours and others', and what is said when that fails."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from sluice_engines.echo import EchoAdapter
from sluice_engines.registry import AdapterError, adapter_names, create_adapter, load_adapters
from sluice_engines.worker import WorkerAdapter


def install(folder: Path, distribution: str, entry_points: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make a distribution that registers adapters, without pip."""
    info = folder / f"{distribution.replace('-', '_')}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[sluice.engines]\n{entry_points}\n")
    monkeypatch.syspath_prepend(folder)


def test_our_own_adapters_are_registered_like_anybodys():
    assert {"echo", "openai_compatible", "worker"} <= set(adapter_names())
    assert load_adapters(["worker", "echo"]) == {"worker": WorkerAdapter, "echo": EchoAdapter}


def test_every_registered_adapter_can_be_created_without_options():
    for name, factory in load_adapters().items():
        assert create_adapter(factory).name == name


def test_an_unknown_adapter_is_refused_with_the_names_of_the_known_ones():
    with pytest.raises(AdapterError, match=r"no engine adapter 'wroker'; installed ones: echo, .*worker"):
        load_adapters(["wroker"])


def test_a_broken_plugin_is_named_with_its_package_and_its_error(tmp_path, monkeypatch):
    (tmp_path / "broken_plugin.py").write_text("raise RuntimeError('no licence')\n")
    install(tmp_path, "acme-engine", "acme = broken_plugin:Adapter", monkeypatch)

    with pytest.raises(AdapterError) as error:
        load_adapters(["acme"])

    said = str(error.value)
    assert "'acme' of package 'acme-engine'" in said
    assert "broken_plugin:Adapter" in said
    assert "RuntimeError: no licence" in said


def test_a_broken_plugin_that_nobody_uses_does_no_harm(tmp_path, monkeypatch):
    install(tmp_path, "acme-engine", "acme = not_even_there:Adapter", monkeypatch)

    assert "acme" in adapter_names()
    assert load_adapters(["worker"]) == {"worker": WorkerAdapter}


def test_a_plugin_that_was_installed_while_the_process_runs_is_found(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(AdapterError, match="no engine adapter 'acme'"):
        load_adapters(["acme"])
    (tmp_path / "acme_later.py").write_text("Adapter = dict\n")
    place = len(sys.path)
    install(tmp_path, "acme-engine", "acme = acme_later:Adapter", monkeypatch)
    del sys.path[0 : len(sys.path) - place]  # where it was looked for before

    assert load_adapters(["acme"]) == {"acme": dict}


def test_two_packages_under_one_name_are_refused(tmp_path, monkeypatch):
    install(tmp_path, "acme-engine", "echo = acme:Adapter", monkeypatch)

    with pytest.raises(AdapterError, match=r"more than once \(acme:Adapter, sluice_engines\.echo:"):
        load_adapters(["echo"])


def test_an_entry_point_that_is_no_factory_is_refused(tmp_path, monkeypatch):
    (tmp_path / "acme_constant.py").write_text("ANSWER = 42\n")
    install(tmp_path, "acme-engine", "acme = acme_constant:ANSWER", monkeypatch)

    with pytest.raises(AdapterError, match="'acme_constant:ANSWER' is not a class or function"):
        load_adapters(["acme"])


def test_what_a_factory_returns_has_to_be_an_adapter():
    with pytest.raises(
        AdapterError, match="dict is not an engine adapter: it has no name, title, default_port"
    ):
        create_adapter(lambda _options: {})  # type: ignore[arg-type, return-value]


def test_a_complaint_about_options_reaches_the_user_as_a_sentence():
    with pytest.raises(AdapterError, match="Adapter 'echo' has no option 'x'"):
        create_adapter(EchoAdapter, {"x": 1})

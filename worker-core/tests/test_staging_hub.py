"""Staging from a Hub on a real socket: what is asked, what is checked, what is told to nobody."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_hub import COMMIT, NAME, SIGNATURE, Hub, running_hub
from staging_tools import FILES, Deadly, Silent, content, in_child, is_whole

from sluice_worker.errors import StagingError
from sluice_worker.staging.hub import HubSource
from sluice_worker.staging.manifest import MANIFEST, Request, read_manifest
from sluice_worker.staging.source import check_name
from sluice_worker.staging.stager import Outcome, Stager
from sluice_worker.staging.workplace import Workplace

SECRET = "hf_secretsecretsecret"


@pytest.fixture
def hub() -> Iterator[Hub]:
    with running_hub(
        Hub({**FILES, "pytorch_model.bin": b"the same again", ".gitattributes": b""})
    ) as running:
        yield running


@pytest.fixture(autouse=True)
def no_token(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HF_TOKEN", "HF_HUB_OFFLINE", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)


def stage(hub: Hub, out: Path, reporter: Silent | None = None, **request: object) -> Outcome:
    wanted = Request(source=NAME, **request)  # type: ignore[arg-type]

    def convert(*_: object) -> None:
        raise AssertionError("nothing is to be converted")

    source = HubSource(wanted, hub.url)
    return Stager(wanted, source, Workplace(out), convert, reporter or Silent(), "test").run()


def command(hub: Hub, *arguments: str, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "sluice_worker", "stage", NAME, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "HF_ENDPOINT": hub.url, **environment},
    )


def test_the_wanted_files_come_and_the_commit_is_noted(hub: Hub, tmp_path: Path) -> None:
    stage(hub, tmp_path / "out")
    assert content(tmp_path / "out") == FILES
    manifest = read_manifest(tmp_path / "out")
    assert manifest is not None and manifest.origin == COMMIT and is_whole(tmp_path / "out")
    hub.log.clear()
    assert not stage(hub, tmp_path / "out").changed and hub.log == []


def test_patterns_replace_the_default_choice(hub: Hub, tmp_path: Path) -> None:
    stage(hub, tmp_path / "out", include=("*.bin", "*.json"), revision="main")
    assert set(content(tmp_path / "out")) == {"pytorch_model.bin", "config.json"}
    with pytest.raises(StagingError, match=r"no file that fits \*\.gguf"):
        stage(hub, tmp_path / "none", include=("*.gguf",))


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_bytes_that_are_not_those_of_the_checksum_never_arrive(hub: Hub, tmp_path: Path, name: str) -> None:
    wrong = bytearray(FILES[name])
    wrong[len(wrong) // 2] ^= 1
    hub.served[name] = bytes(wrong)
    with pytest.raises(StagingError, match=f"{name} of {NAME} came with other bytes"):
        stage(hub, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    hub.served.clear()
    stage(hub, tmp_path / "out")
    assert content(tmp_path / "out") == FILES


def test_a_new_commit_fetches_only_what_differs(hub: Hub, tmp_path: Path) -> None:
    stage(hub, tmp_path / "out")
    hub.log.clear()
    hub.commit = COMMIT[::-1]
    hub.files["config.json"] = b'{"new": 1}'
    assert stage(hub, tmp_path / "out", revision=hub.commit).changed
    assert hub.downloads() == ["config.json"]
    assert content(tmp_path / "out") == {**FILES, "config.json": b'{"new": 1}'}


def test_killed_anywhere_the_next_run_ends_the_same(hub: Hub, tmp_path: Path) -> None:
    """Over an older folder, whose unchanged files are linked, not fetched."""
    for after in range(0, 100, 3):
        out = tmp_path / f"v{after}" / "out"
        hub.commit, hub.files["config.json"] = COMMIT, FILES["config.json"]
        stage(hub, out)
        hub.commit, hub.files["config.json"] = COMMIT[::-1], b'{"new": 1}'
        status = in_child(lambda: stage(hub, out, Deadly(after), revision=hub.commit))  # noqa: B023
        assert not out.exists() or is_whole(out)
        stage(hub, out, revision=hub.commit)
        assert content(out) == {**FILES, "config.json": b'{"new": 1}'} and is_whole(out)
        if status == 0:
            break
    assert 9 < after < 99


def test_a_killed_download_goes_on_where_it_stopped(tmp_path: Path) -> None:
    weights = bytes(range(251)) * 60_000
    with running_hub(Hub({"model.safetensors": weights}, stalls_after=12_000_000)) as hub:
        out = tmp_path / "out"
        process = command(hub, str(out))
        part = tmp_path / ".out.staging"
        deadline = time.monotonic() + 60
        while sum(path.stat().st_size for path in part.glob("*.part")) < 10_000_000:
            assert process.poll() is None and time.monotonic() < deadline, process.stderr
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        (there,) = (path.stat().st_size for path in part.glob("*.part"))
        assert not out.exists() and there < len(weights)
        hub.stalls_after = None
        hub.log.clear()
        stage(hub, out)
        assert content(out) == {"model.safetensors": weights}
        assert {wanted for _, path, wanted, _ in hub.log if "resolve" in path} == {f"bytes={there}-"}


def test_a_hub_without_ranges_gives_the_file_from_its_beginning(hub: Hub, tmp_path: Path) -> None:
    out = tmp_path / "out"

    class DiesInTheMiddle(Silent):
        def end(self) -> None:
            part = next((tmp_path / ".out.staging").glob("*.part"))
            if part.stat().st_size > 1_000_000:
                os.truncate(part, 1_000_000)
                os._exit(9)

    assert in_child(lambda: stage(hub, out, DiesInTheMiddle())) == 9
    hub.ranges = False
    stage(hub, out)
    assert content(out) == FILES
    assert "bytes=1000000-" in {wanted for *_, wanted, _ in hub.log}


@pytest.mark.parametrize(
    "name",
    ["../evil.json", "/etc/evil.json", "a/../../evil.json", "a\\evil.json", "a/./b.json", "x\n.json", "a//b"],
)
def test_names_that_lead_outside_are_refused(hub: Hub, tmp_path: Path, name: str) -> None:
    hub.files[name] = b"{}"
    with pytest.raises(StagingError, match="could be written outside"):
        check_name(name)
    with pytest.raises(StagingError, match="could be written outside"):
        stage(hub, tmp_path / "v" / "out", include=("*",))
    assert not (tmp_path / "v" / "out").exists() and not list(tmp_path.rglob("*evil*"))


def test_a_manifest_in_the_repository_is_not_taken_for_ours(hub: Hub, tmp_path: Path) -> None:
    hub.files[MANIFEST] = b'{"finished": true}'
    stage(hub, tmp_path / "out")
    assert content(tmp_path / "out") == FILES and is_whole(tmp_path / "out")


def test_the_token_is_used_and_never_written_down(hub: Hub, tmp_path: Path) -> None:
    hub.token = SECRET
    token_file = tmp_path / "token"
    token_file.write_text(f"{SECRET}\n")
    out = tmp_path / "volume" / "out"
    refused = command(hub, str(out))
    stderr = refused.communicate()[1]
    assert refused.returncode == 1
    assert stderr.splitlines()[-1].startswith(f"sluice-worker: {NAME} is gated: accept its terms")
    done = command(hub, str(out), HF_TOKEN_PATH=str(token_file))
    stdout, stderr = done.communicate()
    assert done.returncode == 0, stderr
    written = [path.read_bytes() for path in out.parent.rglob("*") if path.is_file()]
    for secret in (SECRET, SIGNATURE):
        assert secret not in stdout + stderr and not any(secret.encode() in data for data in written)
    elsewhere = [authorization for host, *_, authorization in hub.log if host == "localhost"]
    assert elsewhere == [None]


@pytest.mark.parametrize(
    ("environment", "arguments", "message"),
    [
        ({"HF_ENDPOINT": "http://127.0.0.1:1"}, [], r"could not be fetched from the Hub: Connect"),
        ({"HF_HUB_OFFLINE": "1"}, [], "could not be fetched from the Hub: Offline"),
        ({}, ["--revision", "no-such"], "has no revision no-such. Check --revision."),
    ],
)
def test_failures_are_one_line(
    hub: Hub, tmp_path: Path, environment: dict[str, str], arguments: list[str], message: str
) -> None:
    done = command(hub, str(tmp_path / "out"), *arguments, **environment)
    _, stderr = done.communicate()
    assert done.returncode == 1
    (line,) = stderr.splitlines()
    assert line.startswith("sluice-worker: ") and message in line


def test_an_unknown_name_says_what_to_check(hub: Hub, tmp_path: Path) -> None:
    wanted = Request(source="acme/other")
    source = HubSource(wanted, hub.url)
    with pytest.raises(StagingError, match="neither a folder here nor a model on the Hub"):
        source.listing()
    assert json.dumps(hub.listing())  # the hub itself is up

"""Staging a folder: what comes of it, damage, full disks, several stagers, and engines that wait."""

from __future__ import annotations

import errno
import io
import json
import os
import resource
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import msgspec
import pytest
from staging_tools import FILES, Deadly, Silent, content, in_child, is_whole, make_model, stage, verify
from test_cli import run

from sluice_worker.errors import CheckpointError, ConfigError, ModelNotFoundError, StagingError, WorkerError
from sluice_worker.loading.model_folder import resolve_model
from sluice_worker.staging import source as source_module
from sluice_worker.staging.checksum import sha256_of
from sluice_worker.staging.manifest import MANIFEST, read_manifest, write_manifest
from sluice_worker.staging.reporter import ConsoleReporter
from sluice_worker.staging.stager import Outcome
from sluice_worker.staging.workplace import Workplace

# ---- what comes of it -------------------------------------------------------------------------------------


def test_the_folder_has_the_files_and_a_manifest_of_them(tmp_path: Path) -> None:
    model, out = make_model(tmp_path / "m"), tmp_path / "volume" / "m"
    outcome = stage(model, out)
    assert content(out) == FILES
    manifest = read_manifest(out)
    assert manifest is not None and outcome == Outcome(manifest, changed=True)
    assert manifest.finished and manifest.request.source == str(model)
    assert {file.name: (file.size, file.sha256) for file in manifest.files} == {
        name: (len(data), sha256_of(model / name)) for name, data in FILES.items()
    }
    assert sorted(path.name for path in out.parent.iterdir()) == [".m.lock", "m"]
    assert all(path.stat().st_mode & 0o444 == 0o444 for path in out.rglob("*"))


def test_a_second_run_does_nothing_and_neither_needs_the_source(tmp_path: Path) -> None:
    model, out = make_model(tmp_path / "m"), tmp_path / "out"
    stage(model, out)
    before = {path: path.stat().st_mtime_ns for path in (out, *out.rglob("*"))}
    reporter = Silent()
    assert not stage(model, out, reporter).changed
    shutil.rmtree(model)
    assert not stage(model, out, reporter).changed
    assert reporter.steps == []
    assert {path: path.stat().st_mtime_ns for path in (out, *out.rglob("*"))} == before


def test_a_source_that_changed_or_another_one_replaces_what_is_there(tmp_path: Path) -> None:
    model, other, out = make_model(tmp_path / "m"), make_model(tmp_path / "n"), tmp_path / "out"
    stage(model, out)
    (model / "config.json").write_bytes(b'{"new": 1}')
    assert stage(model, out).changed
    assert content(out)["config.json"] == b'{"new": 1}'
    assert stage(other, out).changed
    assert content(out) == FILES
    assert sorted(path.name for path in tmp_path.iterdir()) == [".out.lock", "m", "n", "out"]


def test_patterns_choose_and_hidden_files_are_left_out(tmp_path: Path) -> None:
    model = make_model(tmp_path / "m", {**FILES, ".git/HEAD": b"x", ".hidden": b"x"})
    stage(model, tmp_path / "a")
    assert content(tmp_path / "a") == FILES
    stage(model, tmp_path / "b", include=("*.json", "sub/*"), exclude=("*.txt",))
    assert set(content(tmp_path / "b")) == {"config.json"}
    with pytest.raises(StagingError, match="no file to stage that fits --include and --exclude"):
        stage(model, tmp_path / "c", include=("*.gguf",))


def test_links_to_files_are_followed_and_others_refused(tmp_path: Path) -> None:
    blobs = make_model(tmp_path / "blobs", {"weights": FILES["model.safetensors"]})
    model = make_model(tmp_path / "m", {"config.json": b"{}"})
    (model / "model.safetensors").symlink_to(blobs / "weights")
    stage(model, tmp_path / "out")
    staged = tmp_path / "out" / "model.safetensors"
    assert not staged.is_symlink() and staged.read_bytes() == FILES["model.safetensors"]
    (model / "folder").symlink_to(blobs)
    with pytest.raises(StagingError, match="folder is neither a file nor a link to one"):
        stage(model, tmp_path / "out")
    (model / "folder").unlink()
    (model / "lost").symlink_to(tmp_path / "nowhere")
    with pytest.raises(StagingError, match="lost is a link that leads nowhere"):
        stage(model, tmp_path / "out")
    assert is_whole(tmp_path / "out")


def test_one_file_can_be_staged(tmp_path: Path) -> None:
    model = make_model(tmp_path / "m", {"a.gguf": b"GGUF", "b.gguf": b"other"})
    stage(model / "a.gguf", tmp_path / "out")
    assert content(tmp_path / "out") == {"a.gguf": b"GGUF"}


# ---- damage -----------------------------------------------------------------------------------------------


def test_a_byte_that_changed_is_found_and_only_its_file_fetched_again(tmp_path: Path) -> None:
    model, out = make_model(tmp_path / "m"), tmp_path / "out"
    stage(model, out)
    again = tmp_path / "again"
    stage(out, again)  # from a staged folder, whose checksums are known
    weights = again / "model.safetensors"
    stat = weights.stat()
    with weights.open("r+b") as file:
        file.seek(1_000_000)
        file.write(b"\xff")
    os.utime(weights, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert not stage(out, again).changed  # size and time are as they were
    with pytest.raises(StagingError, match=r"again is damaged: model\.safetensors differ.*--rehash"):
        verify(out, again)
    reporter = Silent()
    assert stage(out, again, reporter, rehash=True).changed
    assert [step for step in reporter.steps if step.startswith("fetch")] == ["fetch model.safetensors"]
    assert verify(out, again).num_bytes == sum(map(len, FILES.values()))
    assert content(again) == content(out) == FILES


@pytest.mark.parametrize("damage", ["cut", "gone", "a link"])
def test_a_file_that_was_cut_or_replaced_is_seen_without_hashing(tmp_path: Path, damage: str) -> None:
    model, out = make_model(tmp_path / "m"), tmp_path / "out"
    stage(model, out)
    path = out / "model.safetensors"
    if damage == "cut":
        os.truncate(path, 1000)
    else:
        path.unlink()
    if damage == "a link":
        path.symlink_to(model / "model.safetensors")
    assert stage(model, out).changed
    assert content(out) == FILES and not path.is_symlink()


def test_a_staged_source_that_is_damaged_is_not_copied_on(tmp_path: Path) -> None:
    model, out = make_model(tmp_path / "m"), tmp_path / "out"
    stage(model, out)
    path = out / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    with pytest.raises(StagingError, match=r"is not what sluice-stage\.json beside it records"):
        stage(out, tmp_path / "again")
    assert not (tmp_path / "again").exists()


# ---- several at once --------------------------------------------------------------------------------------


def test_of_several_stagers_one_works_and_the_others_wait(tmp_path: Path) -> None:
    model, out = make_model(tmp_path / "m"), tmp_path / "out"
    reporters = [Silent() for _ in range(4)]
    outcomes: list[Outcome] = []
    place = Workplace(out)
    with place.lock(Silent()):
        threads = [
            threading.Thread(target=lambda r=reporter: outcomes.append(stage(model, out, r)))  # type: ignore[misc]
            for reporter in reporters
        ]
        for thread in threads:
            thread.start()
        deadline = time.monotonic() + 30
        while not all(reporter.lines for reporter in reporters) and time.monotonic() < deadline:
            time.sleep(0.01)
        assert not out.exists() and outcomes == []
    for thread in threads:
        thread.join()
    assert sorted(outcome.changed for outcome in outcomes) == [False, False, False, True]
    assert content(out) == FILES
    assert all("another stager works on" in reporter.lines[0] for reporter in reporters)


# ---- a disk that is full, or read-only --------------------------------------------------------------------


def test_too_little_room_is_said_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, out = make_model(tmp_path / "m"), tmp_path / "out"
    usage = shutil.disk_usage(tmp_path)._replace(free=2_000_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(StagingError, match=r"has 2\.0 MB free, and staging needs 19\.8 MB more"):
        stage(model, out)
    assert not out.exists()


def test_a_disk_that_fills_up_keeps_the_old_folder_and_goes_on_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, model, out = make_model(tmp_path / "o", {"a": b"old"}), make_model(tmp_path / "m"), tmp_path / "out"
    stage(old, out)

    def full(*_: object) -> str:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(source_module, "copy_hashed", full)
        with pytest.raises(StagingError, match=r"no room left to stage .*out .*run again.*kept"):
            stage(model, out)
    assert content(out) == {"a": b"old"}
    assert stage(model, out).changed and content(out) == FILES


def test_a_limit_of_the_file_system_ends_the_command_in_one_line(tmp_path: Path) -> None:
    model, out = make_model(tmp_path / "m"), tmp_path / "out"
    code = (
        "import resource, sys\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))\n"
        "from sluice_worker.cli import main\n"
        f"sys.argv = ['sluice-worker', 'stage', {str(model)!r}, {str(out)!r}]\n"
        "main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr.splitlines()[-1].startswith("sluice-worker: There is no room left to stage")
    assert "Traceback" not in done.stderr and not out.exists()
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY
    assert stage(model, out).changed


# ---- where to, and what is refused ------------------------------------------------------------------------


def test_what_somebody_else_put_there_is_left_alone(tmp_path: Path) -> None:
    model, out = make_model(tmp_path / "m"), make_model(tmp_path / "out", {"precious": b"1"})
    with pytest.raises(StagingError, match="was not put there by sluice-worker stage"):
        stage(model, out)
    assert content(out) == {"precious": b"1"}
    (tmp_path / "empty").mkdir()
    assert stage(model, tmp_path / "empty").changed
    (tmp_path / "link").symlink_to(tmp_path / "empty")
    with pytest.raises(StagingError, match="link is a link"):
        stage(model, tmp_path / "link")


def test_a_mount_point_is_refused() -> None:
    with pytest.raises(StagingError, match=r"/proc is a volume of its own.*/proc/model"):
        Workplace(Path("/proc"))


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ({"source": "./nowhere"}, "There is no model folder"),
        ({"source": "sluice-tiny", "revision": "main"}, "--revision is for models on the Hub"),
        ({"source": "sluice-tiny", "to": "int8", "include": ("*",)}, "leave --include and --exclude out"),
    ],
)
def test_requests_that_make_no_sense(tmp_path: Path, request_: dict[str, object], message: str) -> None:
    with pytest.raises(WorkerError, match=message):
        stage(str(request_.pop("source")), tmp_path / "out", **request_)


def test_a_folder_is_not_staged_over_itself(tmp_path: Path) -> None:
    model = make_model(tmp_path / "m")
    with pytest.raises(ConfigError, match="holds the model itself"):
        stage(model, model)
    with pytest.raises(ConfigError, match="holds the model itself"):
        stage(model / "sub" / "notes.txt", model)


# ---- engines wait -----------------------------------------------------------------------------------------


def test_serving_refuses_what_is_not_whole(tmp_path: Path) -> None:
    out = tmp_path / "out"
    stage("sluice-tiny", out)
    assert resolve_model(str(out)).name == "out"
    manifest = read_manifest(out)
    assert manifest is not None
    write_manifest(out, msgspec.structs.replace(manifest, finished=False))
    with pytest.raises(CheckpointError, match="out is not staged to its end"):
        resolve_model(str(out))
    write_manifest(out, manifest)
    os.truncate(out / "model.safetensors", 100)
    with pytest.raises(CheckpointError, match=r"has 100 bytes, not the \d+ it was staged with"):
        resolve_model(str(out))
    (out / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"model\.safetensors is missing"):
        resolve_model(str(out))
    (out / MANIFEST).write_bytes(b"{half a manif")
    with pytest.raises(CheckpointError, match="out is not staged to its end"):
        resolve_model(str(out))


def test_serving_says_when_a_folder_is_still_being_staged(tmp_path: Path) -> None:
    model, out = make_model(tmp_path / "m"), tmp_path / "out"
    assert in_child(lambda: stage(model, out, Deadly(8))) == 9
    with pytest.raises(ModelNotFoundError, match=r"out is not staged to its end\. Wait for"):
        resolve_model(str(out))
    with pytest.raises(CheckpointError, match="not staged to its end"):
        resolve_model(str(tmp_path / ".out.staging" / "files"))


def test_the_command(tmp_path: Path) -> None:
    out = tmp_path / "out"
    first, second = run("stage", "sluice-tiny", str(out)), run("stage", "sluice-tiny", str(out))
    assert (first.returncode, second.returncode) == (0, 0), first.stderr
    assert first.stdout == f"{out}: sluice-tiny, 6 files, 9.7 MB\n"
    assert second.stdout == f"{out}: sluice-tiny, 6 files, 9.7 MB, nothing to do\n" and second.stderr == ""
    assert "model.safetensors: 9.5 MB" in first.stderr
    (out / "config.json").write_text("{}")
    damaged = run("stage", "sluice-tiny", str(out), "--verify-only")
    assert damaged.returncode == 1 and damaged.stderr.startswith("sluice-worker: ")
    assert "config.json differ" in damaged.stderr
    assert "--to is 'int2'; choose int8, int4, gguf," in run("stage", "m", str(out), "--to", "int2").stderr


def test_nothing_heavy_is_imported_when_there_is_nothing_to_do(tmp_path: Path) -> None:
    stage("sluice-tiny", tmp_path / "out")
    code = (
        "import sys\nfrom pathlib import Path\n"
        "from sluice_worker.stage_command import run_stage\n"
        "from sluice_worker.staging.manifest import Request\n"
        f"run_stage(Request(source='sluice-tiny'), Path({str(tmp_path / 'out')!r}), rehash=False, "
        "verify_only=False)\n"
        "heavy = {'torch', 'numpy', 'huggingface_hub', 'tokenizers'} & set(sys.modules)\n"
        "sys.exit(f'imported: {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


# ---- telling ----------------------------------------------------------------------------------------------


def test_a_terminal_gets_a_line_that_is_redrawn() -> None:
    times = iter([0.0, 0.1, 1.0, 1.0, 2.0])
    out = io.StringIO()
    reporter = ConsoleReporter(out, is_terminal=True, clock=lambda: next(times))
    reporter.begin("model", 4_000_000, 1_000_000)
    reporter.advance(1_000_000)
    reporter.end()
    drawn = [line.strip() for line in out.getvalue().split("\r")[1:]]
    assert drawn[0] == "model: 1.0 MB of 4.0 MB (25 %)"
    assert drawn[1:] == [
        "model: 2.0 MB of 4.0 MB (50 %), 1.0 MB/s",
        "model: 2.0 MB of 4.0 MB (50 %), 500.0 kB/s",
    ]


def test_the_manifest_is_json_that_others_can_read(tmp_path: Path) -> None:
    stage(make_model(tmp_path / "m"), tmp_path / "out")
    raw = json.loads((tmp_path / "out" / MANIFEST).read_text())
    assert raw["finished"] is True and raw["tool"].startswith("sluice-worker ")
    assert set(raw["files"][0]) == {"name", "size", "sha256", "mtime_ns"}

"""Check Sluice's engine profiles on a machine with a GPU and Docker, and record what the engines answer.

    python ops/gpu-check/check.py gpu tgi         # some profiles
    python ops/gpu-check/check.py                 # all, one after another: they may share the one GPU
    python ops/gpu-check/check.py --dry-run       # only say what would be done

For each profile: bring it up with Compose and wait until it is healthy; see that `sluice engines probe`
knows it; record its pages over the fixtures in `engines/tests/pages`, and some of its answers in
`engines/tests/payloads`; run `tests/engines_live` against it and the CPU worker, behind a gateway of this
Python; take it down again. Everything is tried; exit status 1 when anything failed, 2 when Docker or a GPU
is missing.

Run it in the project's own virtual environment (`make test TESTS=router/tests` makes it). Recorded pages
have other values than the documented ones that they replace: review `git diff`, and set what `make test
TESTS=engines/tests` expects.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
PAGES = ROOT / "engines" / "tests" / "pages"
PAYLOADS = ROOT / "engines" / "tests" / "payloads"
REPORTS = ROOT / "docs" / "reports"
UP_WITHIN_S = 3600
"""The first start loads images and models, and compiles kernels."""


@dataclass(frozen=True)
class Profile:
    """One profile of `docker-compose.yml` that has an engine."""

    name: str
    service: str
    adapter: str
    port_variable: str
    port: int
    pages: str
    """Folder of its pages among the fixtures; `vllm` on a GPU has one of its own beside the CPU's."""

    def url(self, environment: Mapping[str, str]) -> str:
        """Where the engine is published on this machine."""
        return f"http://127.0.0.1:{environment.get(self.port_variable) or self.port}"


WORKER = Profile("", "worker", "worker", "SLUICE_WORKER_PORT", 8006, "worker")
PROFILES: tuple[Profile, ...] = (
    Profile("gpu", "vllm", "vllm", "SLUICE_VLLM_PORT", 8001, "vllm-gpu"),
    Profile("quant", "vllm-quant", "vllm", "SLUICE_QUANT_PORT", 8002, "vllm-awq"),
    Profile("tgi", "tgi", "tgi", "SLUICE_TGI_PORT", 8003, "tgi-3"),
    Profile("tgi-tp", "tgi-tp", "tgi", "SLUICE_TGI_TP_PORT", 8004, "tgi-tp"),
    Profile("trt", "trt", "trt", "SLUICE_TRT_PORT", 8005, "trt"),
    Profile("llamacpp", "llamacpp", "llamacpp", "SLUICE_LLAMACPP_PORT", 8007, "llamacpp"),
    Profile("worker-gpu", "worker-gpu", "worker", "SLUICE_WORKER_GPU_PORT", 8016, "worker-gpu"),
)

ASKED: Mapping[str, tuple[str, dict[str, Any]]] = {
    "chat.json": ("/v1/chat/completions", {"max_tokens": 24, "temperature": 0}),
    "chat.sse": (
        "/v1/chat/completions",
        {"max_tokens": 24, "temperature": 0, "stream": True, "stream_options": {"include_usage": True}},
    ),
    "chat-logprobs.json": (
        "/v1/chat/completions",
        {"max_tokens": 4, "temperature": 0, "logprobs": True, "top_logprobs": 2},
    ),
    "chat-too-long.json": (
        "/v1/chat/completions",
        {"max_tokens": 1, "messages": [{"role": "user", "content": "word " * 200_000}]},
    ),
}
"""What is asked of every engine, by the name of the file that its answer goes to."""


class Failed(Exception):
    """A step did not work; the message is a sentence."""


Run = Callable[[Sequence[str], Mapping[str, str]], str]
"""Runs a command in the repository with further variables; returns what it printed. Raises `Failed`."""


def main(arguments: list[str]) -> int:
    """Entry point. Returns the exit status."""
    parser = _parser()
    options = parser.parse_args(arguments)
    unknown = sorted(set(options.profiles) - {p.name for p in PROFILES})
    if unknown:
        parser.error(f"no profile {', '.join(unknown)}; there are: {', '.join(p.name for p in PROFILES)}")
    chosen = [p for p in PROFILES if p.name in options.profiles] if options.profiles else list(PROFILES)
    if options.dry_run:
        for profile in [WORKER, *chosen]:
            for command in plan(profile, Path("FOLDER"), os.environ):
                say(shlex.join(command))
        return 0
    missing = lacking()
    if missing:
        say(f"gpu-check: {missing}")
        return 2
    failures = check_all(chosen, run, os.environ, keep=options.keep)
    for failure in failures:
        say(f"FAILED {failure}")
    say(f"{len(chosen)} profiles, {len(failures)} failures; review `git diff`")
    return 1 if failures else 0


def _parser() -> argparse.ArgumentParser:
    found = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    found.add_argument("profiles", nargs="*", metavar="PROFILE", help=", ".join(p.name for p in PROFILES))
    found.add_argument("--keep", action="store_true", help="leave the engines running")
    found.add_argument("--dry-run", action="store_true", help="print the commands and do nothing")
    return found


def lacking() -> str | None:
    """What this machine lacks; `None` when it can be begun."""
    if shutil.which("docker") is None:
        return "there is no docker here; install Docker Engine with the compose plugin"
    if shutil.which("nvidia-smi") is None:
        return "there is no nvidia-smi here; install the GPU's driver and the NVIDIA container toolkit"
    return None


def check_all(
    profiles: Sequence[Profile], run: Run, environment: Mapping[str, str], *, keep: bool
) -> list[str]:
    """Every profile, whatever happens to the ones before; returns the failures, one sentence each."""
    failures: list[str] = []
    with tempfile.TemporaryDirectory() as name:
        for profile in profiles:
            failures += _failure(profile, lambda p=profile: _check(p, Path(name), run, environment))
            if not keep:
                failures += _failure(profile, lambda p=profile: run(down(p), {}))
    return failures


def _failure(profile: Profile, work: Callable[[], object]) -> list[str]:
    """Do it; what went wrong, if anything did."""
    try:
        work()
    except Failed as error:
        return [f"{profile.name}: {error}"]
    return []


def _check(profile: Profile, folder: Path, run: Run, environment: Mapping[str, str]) -> None:
    say(f"== {profile.name}")
    for command in (up(WORKER), up(profile)):
        run(command, {})
    models = {}
    for engine in (WORKER, profile):
        found = json.loads(run(probe(engine, environment), {}))["identity"]
        if found["adapter"] != engine.adapter:
            raise Failed(f"the probe takes {engine.url(environment)} for {found['adapter']}")
        models[engine.service] = (found["models"][0], found)
    run(record(profile, environment), {})
    _, identity = models[profile.service]
    for fixtures in (PAGES, PAYLOADS):
        about = f"{identity['title']} {identity['version'] or ''}".strip()
        describe(fixtures / "README.md", profile, about)
    record_payloads(profile.url(environment), identity["models"][0], PAYLOADS / profile.pages)
    listed = folder / f"{profile.name}.json"
    entries = [entry(e, models[e.service][0], environment) for e in (WORKER, profile)]
    listed.write_text(json.dumps(entries, indent=1), encoding="utf-8")
    run(live(), live_variables(profile, listed))


def plan(profile: Profile, folder: Path, environment: Mapping[str, str]) -> list[list[str]]:
    """The commands for one profile, in order; for the worker only that it comes up."""
    if profile is WORKER:
        return [up(profile), probe(profile, environment)]
    variables = [f"{k}={v}" for k, v in live_variables(profile, folder / f"{profile.name}.json").items()]
    return [
        up(profile),
        probe(profile, environment),
        record(profile, environment),
        ["env", *variables, *live()],
        down(profile),
    ]


def compose(profile: Profile, *words: str) -> list[str]:
    """A command of Compose with the profile on."""
    chosen = ["--profile", profile.name] if profile.name else []
    return ["docker", "compose", *chosen, *words]


def up(profile: Profile) -> list[str]:
    """Start the engine, and what it depends on, and wait until it is healthy."""
    return compose(profile, "up", "--detach", "--wait", "--wait-timeout", str(UP_WITHIN_S), profile.service)


def down(profile: Profile) -> list[str]:
    """Stop the engine, so that the next one has the GPU."""
    return compose(profile, "rm", "--force", "--stop", profile.service)


def probe(profile: Profile, environment: Mapping[str, str]) -> list[str]:
    """Say what the engine is."""
    return [_script("sluice"), "engines", "probe", profile.url(environment), "--json"]


def record(profile: Profile, environment: Mapping[str, str]) -> list[str]:
    """Record its pages, at rest and at work."""
    program = str(ROOT / "engines" / "tests" / "record_pages.py")
    return [sys.executable, program, profile.url(environment), str(PAGES / profile.pages), "--busy", "5"]


def live() -> list[str]:
    """The suite."""
    return [sys.executable, "-m", "pytest", "-q", str(ROOT / "tests" / "engines_live")]


def live_variables(profile: Profile, listed: Path) -> dict[str, str]:
    """What the suite is told."""
    return {
        "SLUICE_LIVE_ENGINES": str(listed),
        "SLUICE_REQUIRE_ENGINES": "1",
        "SLUICE_LIVE_REPORT": str(REPORTS / f"engines-live-{profile.name}.md"),
    }


def entry(profile: Profile, model: str, environment: Mapping[str, str]) -> dict[str, Any]:
    """The engine as the suite's list has it."""
    return {
        "name": profile.service,
        "adapter": profile.adapter,
        "url": profile.url(environment),
        "model": model,
        "kill": compose(profile, "kill", profile.service),
        "start": up(profile),
    }


def describe(readme: Path, profile: Profile, engine: str) -> None:
    """Say in the fixtures' table that this folder is recorded, and from what."""
    row = f"| `{profile.pages}` | {engine}, profile `{profile.name}` of `docker-compose.yml` | recorded |"
    lines = readme.read_text(encoding="utf-8").splitlines()
    rows = [number for number, line in enumerate(lines) if line.startswith("| `")]
    known = next((n for n in rows if lines[n].startswith(f"| `{profile.pages}` |")), None)
    if known is None:
        lines.insert(rows[-1] + 1, row)
    else:
        lines[known] = row
    readme.write_text("\n".join(lines) + "\n", encoding="utf-8")


def record_payloads(url: str, model: str, folder: Path) -> None:
    """Ask what `ASKED` lists, and keep the answers as they come, with `statuses.json` beside them."""
    folder.mkdir(parents=True, exist_ok=True)
    statuses = {}
    question = [{"role": "user", "content": "What is the capital of France?"}]
    for name, (path, fields) in ASKED.items():
        body = json.dumps({"model": model, "messages": question, **fields}).encode()
        request = urllib.request.Request(url + path, body, {"content-type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=300) as answer:
                (folder / name).write_bytes(answer.read())
                statuses[name] = answer.status
        except urllib.error.HTTPError as error:
            (folder / name).write_bytes(error.read())
            statuses[name] = error.code
        except OSError as error:
            raise Failed(f"{url}{path} did not answer: {error}") from error
    (folder / "statuses.json").write_text(json.dumps(statuses, indent=1) + "\n", encoding="utf-8")


def run(command: Sequence[str], variables: Mapping[str, str]) -> str:
    """See `Run`. Errors go to this script's own output."""
    say("$ " + shlex.join(command))
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, **variables}, stdout=subprocess.PIPE, text=True, check=False
    )
    if done.returncode != 0:
        say(done.stdout)
        raise Failed(f"`{shlex.join(command)}` ended with status {done.returncode}")
    return done.stdout


def say(text: str) -> None:
    """One line for whoever watches."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def _script(name: str) -> str:
    return str(Path(sys.executable).parent / name)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""Two workers, one of them slow, and a gateway with three tenants before them, all on loopback.

Bounds are so small that few requests fill them, and patience is so long that a busy machine does not decide
who is refused: what is refused is so because there is no room, or because its client cannot wait.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec
import psutil

from sluice_bench.experiments.stack import MODEL_NAME, Engine, Stack, running_stack, worker_engine
from sluice_bench.processes import ServerFailed, ServerProcess
from sluice_bench.rehearsal.slowness import Slowed
from sluice_bench.scrape import metrics_page
from sluice_bench.target import Target
from sluice_bench.workload import Asking

TENANTS = ("ada", "ben", "cleo")
QUICK, SLOW = "quick", "slow"
"""Names of the workers."""

AT_ONCE = 4
"""Requests that a worker gets at once."""
WAITING = 12
"""Requests that may wait in the gateway."""
SLOW_SHARE = 0.1
"""Of its speed that is left to the slow worker."""

_PATIENCE_S = 240.0
_HEALTHY = re.compile(r"^sluice_gateway_endpoint_healthy\{.*\} 1(?:\.0)?$", re.MULTILINE)
_HEALTHY_WITHIN_S = 120.0
_LOOK_EVERY_S = 0.05
_ENGINE_PROCESS = "sluice_worker.engine_process"


class Stage(msgspec.Struct, frozen=True, kw_only=True):
    """What is running."""

    stack: Stack
    keys: Mapping[str, str]
    """Of each tenant."""

    @property
    def target(self) -> Target:
        """The gateway."""
        return Target.parse(self.stack.gateway.url)

    def asking(self, tenant: str, *headers: tuple[str, str], stream: bool = True) -> Asking:
        """As a tenant asks: for answers of exactly the length that it names."""
        return Asking(
            model=MODEL_NAME, stream=stream, api_key=self.keys[tenant], ignore_eos=True, headers=headers
        )

    def slowed(self) -> Slowed:
        """A block in which the slow worker is slow; its HTTP server answers as ever."""
        return Slowed([engine_process_of(self.stack.engines[SLOW])], SLOW_SHARE)

    def wait_until_healthy(self) -> None:
        """Until the gateway takes both workers for healthy. Raises `ServerFailed`."""
        give_up = time.monotonic() + _HEALTHY_WITHIN_S
        while len(_HEALTHY.findall(metrics_page(self.stack.gateway.url))) < len(self.stack.engines):
            if time.monotonic() > give_up:
                raise ServerFailed(f"the gateway lacks a worker:\n{self.stack.gateway.tail()}")
            time.sleep(_LOOK_EVERY_S)


def engine_process_of(worker: ServerProcess) -> psutil.Process:
    """The process of a worker that computes."""
    return next(process for process in worker.processes() if _ENGINE_PROCESS in process.cmdline())


@contextmanager
def stage(model: Path, folder: Path) -> Iterator[Stage]:
    """Start all of it below `folder`, an empty one; end it. Raises `ServerFailed`."""
    keys = {tenant: f"sk-{secrets.token_urlsafe(24)}" for tenant in TENANTS}
    engines = [worker_engine(name, model, ("--threads", "1")) for name in (QUICK, SLOW)]
    with running_stack(engines, folder, config_for(keys)) as stack:
        made = Stage(stack=stack, keys=keys)
        made.wait_until_healthy()
        yield made


def config_for(keys: Mapping[str, str]) -> Callable[[Sequence[Engine], Mapping[str, str], Path], bytes]:
    """The `sluice.yaml` (JSON is YAML) of a gateway whose tenants have these keys."""

    def config_of(engines: Sequence[Engine], urls: Mapping[str, str], folder: Path) -> bytes:
        return msgspec.json.encode(
            {
                "keys": [_key(tenant, secret) for tenant, secret in keys.items()],
                "backends": [_backend(engine.name, urls[engine.name]) for engine in engines],
                "queue": {"max_waiting": WAITING, "timeout_s": _PATIENCE_S},
                "admission": {"default_ttft_s": _PATIENCE_S, "queued_prefill_s": _PATIENCE_S},
                "store": {"url": f"sqlite:///{folder / 'sluice.db'}"},
                "ledger": {"journal_folder": str(folder / "ledger")},
                "files": {"dir": str(folder / "files")},
                "timeouts": {"hold_status_s": _PATIENCE_S},
            }
        )

    return config_of


def _key(tenant: str, secret: str) -> dict[str, str]:
    return {"id": tenant, "tenant": tenant, "sha256": hashlib.sha256(secret.encode()).hexdigest()}


def _backend(name: str, url: str) -> dict[str, object]:
    return {
        "name": name,
        "adapter": "worker",
        "url": url,
        "models": [MODEL_NAME],
        "max_in_flight": AT_ONCE,
    }

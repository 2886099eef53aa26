"""Two workers, one of them slow, and a gateway with three tenants before them, all on loopback.

Bounds are so small that few requests fill them, and patience is so long that a busy machine does not decide
who is refused: what is refused is so because there is no room, or because its client cannot wait.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import msgspec
import psutil

from sluice_bench.experiments.stack import (
    MODEL_NAME,
    Engine,
    Stack,
    gateway_process,
    running_stack,
    worker_engine,
)
from sluice_bench.processes import ServerFailed, ServerProcess
from sluice_bench.rehearsal.slowness import Slowed, standing_still
from sluice_bench.scrape import metrics_page
from sluice_bench.target import Target, WireRequest
from sluice_bench.workload import Asking, Shape, chat_requests

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
_TIMEOUTS = ("hold_status_s", "first_token_s", "idle_s")
_HEALTHY = re.compile(r"^sluice_gateway_endpoint_healthy\{.*\} 1(?:\.0)?$", re.MULTILINE)
_HEALTHY_WITHIN_S = 120.0
_LOOK_EVERY_S = 0.05
_COMPILED = "serves from compiled modules"
_ENGINE_PROCESS = "sluice_worker.engine_process"


class Stage(msgspec.Struct, frozen=True, kw_only=True):
    """What is running."""

    stack: Stack
    keys: Mapping[str, str]
    """Of each tenant."""
    folder: Path
    """For all state."""

    @property
    def target(self) -> Target:
        """The gateway."""
        return Target.parse(self.stack.gateway.url)

    def asking(self, tenant: str, *headers: tuple[str, str], stream: bool = True) -> Asking:
        """As a tenant asks: for answers of exactly the length that it names."""
        return Asking(
            model=MODEL_NAME, stream=stream, api_key=self.keys[tenant], ignore_eos=True, headers=headers
        )

    def requests_by_turns(
        self, shape: Shape, each: int, seed: int, *headers: tuple[str, str]
    ) -> list[WireRequest]:
        """`each` of every tenant."""
        own = [
            chat_requests(self.target, shape, self.asking(tenant, *headers), each, seed + number)
            for number, tenant in enumerate(TENANTS)
        ]
        return [request for turn in zip(*own, strict=True) for request in turn]

    def slowed(self) -> Slowed:
        """A block in which the slow worker is slow; its HTTP server answers as ever."""
        return Slowed([engine_process_of(self.stack.engines[SLOW])], SLOW_SHARE)

    def standing_still(self, worker: str) -> AbstractContextManager[None]:
        """A block in which a worker computes nothing; its HTTP server answers as ever."""
        return standing_still([engine_process_of(self.stack.engines[worker])])

    @contextmanager
    def with_a_new_gateway(self, name: str, hedge_share: float | None = None) -> Iterator[Stage]:
        """The same workers behind another gateway, which does not know them yet; `hedge_share` is its
        configuration's, the usual one with `None`. Raises `ServerFailed`."""
        folder = self.folder / name
        folder.mkdir()
        urls = {worker: server.url for worker, server in self.stack.engines.items()}
        with gateway_process(config_for(self.keys, urls, folder, hedge_share), folder) as gateway:
            made = Stage(stack=Stack(gateway, self.stack.engines), keys=self.keys, folder=folder)
            made.wait_until_healthy()
            yield made

    def is_compiled(self) -> bool:
        """Whether the gateway runs its request path compiled."""
        return self.stack.gateway.has_said(_COMPILED)

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

    def config_of(_: Sequence[Engine], urls: Mapping[str, str], folder: Path) -> bytes:
        return config_for(keys, urls, folder)

    with running_stack(engines, folder, config_of) as stack:
        made = Stage(stack=stack, keys=keys, folder=folder)
        made.wait_until_healthy()
        yield made


def config_for(
    keys: Mapping[str, str], urls: Mapping[str, str], folder: Path, hedge_share: float | None = None
) -> bytes:
    """The `sluice.yaml` (JSON is YAML) of a gateway before workers at these addresses, whose tenants have
    these keys."""
    return msgspec.json.encode(
        {
            "keys": [_key(tenant, secret) for tenant, secret in keys.items()],
            "backends": [_backend(name, url) for name, url in urls.items()],
            "queue": {"max_waiting": WAITING, "timeout_s": _PATIENCE_S},
            "admission": {"default_ttft_s": _PATIENCE_S, "queued_prefill_s": _PATIENCE_S},
            "failover": {} if hedge_share is None else {"hedge_share": hedge_share},
            "store": {"url": f"sqlite:///{folder / 'sluice.db'}"},
            "ledger": {"journal_folder": str(folder / "ledger")},
            "files": {"dir": str(folder / "files")},
            "timeouts": dict.fromkeys(_TIMEOUTS, _PATIENCE_S),
        }
    )


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

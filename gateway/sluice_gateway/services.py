"""What keeps something beyond a request: usage, responses, files, batches, answers to be replayed.

One process's part of each, put together from the settings. All of it shares one database, which the owner of
this object has migrated before `start`; none of it is needed for a plain request to be served.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Mapping

from sluice_gateway.auth import Keyring
from sluice_gateway.batches.holders import finder
from sluice_gateway.batches.pipeline_runner import PipelineRunner
from sluice_gateway.batches.service import BatchService
from sluice_gateway.files.service import FileService
from sluice_gateway.ledger.ledger import Ledger
from sluice_gateway.replay.claims import Claims
from sluice_gateway.replay.replays import Replays
from sluice_gateway.responses_api.service import ResponsesService
from sluice_gateway.responses_api.serving import BackgroundResponses, Serve, TokenCounter
from sluice_gateway.settings import Settings
from sluice_gateway.store.database import Database

_WRITER_BITS = 62


class Services:
    """`start` before the first request, `aclose` after the last."""

    def __init__(
        self,
        settings: Settings,
        environment: Mapping[str, str],
        database: Database,
        keyring: Keyring,
        serve: Serve,
        *,
        clock: Callable[[], float],
        wall_clock: Callable[[], float],
    ) -> None:
        """`serve` is the pipeline's, `clock` its clock. Starts nothing."""
        self.ledger: Ledger | None = None
        if settings.ledger.enabled:
            writer = secrets.randbits(_WRITER_BITS)
            self.ledger = Ledger(settings.ledger, database, writer=writer, wall_clock=wall_clock)
        self.replays = Replays(
            settings.idempotency,
            settings.cache,
            clock=clock,
            wall_clock=wall_clock,
            claims=_claims(settings, environment, clock),
        )
        run = PipelineRunner(serve, clock)
        self.responses = ResponsesService(
            database, settings.responses, clock=wall_clock, randomness=os.urandom
        )
        self.background = BackgroundResponses(self.responses, serve, clock)
        self.count_tokens = TokenCounter(run)
        self.files = FileService(settings.files, database, wall_clock)
        self.batches = BatchService(
            settings.batches,
            database,
            self.files,
            run,
            finder(keyring, wall_clock),
            wall_clock,
            max_body_bytes=settings.server.max_body_bytes,
        )

    async def start(self) -> None:
        """Open journals and begin background work. Raises `StoreError` when a folder cannot be used."""
        if self.ledger is not None:
            await self.ledger.start()
        self.responses.start()
        self.files.start()
        self.batches.start()

    async def drain(self) -> None:
        """Begin no more batch requests; those on their way may end."""
        await self.batches.aclose()

    async def aclose(self) -> None:
        """Stop, and bring what was recorded to safety. Idempotent."""
        await self.batches.aclose()
        await self.files.aclose()
        await self.responses.aclose()
        await self.replays.aclose()
        if self.ledger is not None:
            await self.ledger.aclose()


def _claims(settings: Settings, environment: Mapping[str, str], clock: Callable[[], float]) -> Claims | None:
    """Idempotency keys are shared where limits are."""
    if settings.redis is None:
        return None
    from redis.asyncio import Redis

    return Claims(
        Redis.from_url(
            settings.redis.url,
            password=environment.get(settings.redis.password_env or "") or None,
            retry=None,
        ),
        prefix=settings.redis.prefix,
        ttl_s=settings.idempotency.ttl_s,
        timeout_s=settings.redis.timeout_ms / 1000,
        clock=clock,
        random_bytes=os.urandom,
    )

"""A process that records 500 requests and then waits to be killed: `URL FOLDER journalled|half_committed`."""

from __future__ import annotations

import asyncio
import itertools
import sys
import time

from sluice_gateway.exchange import Exchange
from sluice_gateway.ledger.ledger import Intervals, Ledger
from sluice_gateway.ledger.settings import LedgerSettings
from sluice_gateway.store.database import Database


async def main(url: str, folder: str, when: str) -> None:
    database = Database(url)
    settings = LedgerSettings(journal_folder=folder, retention_days=None)
    store_s = 3600.0 if when == "journalled" else 0.01
    intervals = Intervals(journal_s=0.01, store_s=store_s)
    ledger = Ledger(settings, database, writer=1, wall_clock=time.time, intervals=intervals)
    if when == "half_committed":
        # The commit has happened, and the process dies before the journal forgets.
        ledger._forget = lambda segment: time.sleep(3600)  # type: ignore[method-assign]
    await ledger.start()
    for number in range(500):
        ledger.record(Exchange(f"req_{number}", "chat", "/v1/chat/completions", 0.0))
    for _ in itertools.count():
        state = ledger.snapshot()
        if state.journal_bytes and (when == "journalled" or state.stored == 500):
            break
        await asyncio.sleep(0.01)
    print("recorded", flush=True)
    await asyncio.sleep(3600)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))

"""Who a batch is run for.

A key is looked up by its id whenever it is needed, so that a batch ends soon after its key. The holder of a
signed token has no key to look up, and its token ends long before most batches: such a batch keeps the rights
that the token gave when the batch was made.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from sluice_gateway.auth import OPEN, Keyring
from sluice_gateway.batches.runner_types import FindKey
from sluice_gateway.batches.tables import Batch
from sluice_gateway.identity import Key
from sluice_gateway.store.database import StoreError


def bind(batch: Batch, key: Key, find_key: FindKey) -> Batch:
    """The batch, with what it takes to know its holder again."""
    if find_key(key.id) is not None:
        return batch
    lasting = msgspec.structs.replace(key, expires_at=None)
    return msgspec.structs.replace(batch, holder=msgspec.json.encode(lasting).decode())


def holder_of(batch: Batch, find_key: FindKey) -> Key | None:
    """Whose requests a batch's are now; `None` when nobody's any more. Raises as `find_key` does."""
    if batch.holder is not None:
        return msgspec.json.decode(batch.holder, type=Key)
    return find_key(batch.key_id)


def finder(keyring: Keyring, wall_clock: Callable[[], float]) -> FindKey:
    """Looks keys up in the snapshot of the moment. `wall_clock` gives seconds since 1970."""

    def find(key_id: str) -> Key | None:
        snapshot = keyring.snapshot
        if snapshot.is_open:
            return OPEN if key_id == OPEN.id else None
        found = next((key for key in snapshot.keys.values() if key.id == key_id), None)
        if found is None and not snapshot.is_complete:
            raise StoreError("The keys have not been read yet.")
        expires_at = found.expires_at if found is not None else None
        return None if expires_at is not None and expires_at <= wall_clock() else found

    return find

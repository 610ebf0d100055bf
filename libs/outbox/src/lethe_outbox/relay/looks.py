"""One look at the writers for everybody who asks meanwhile."""

import asyncio
import time

from prometheus_client import Summary

from lethe_outbox.relay.horizon import Horizon, Look
from lethe_outbox.relay.storage import RelayStorage


class Looks:
    """Takes looks one after another; who asks during one gets the next.

    Attributes:
        rewinds: the sum of all buckets' rewinds, as the newest look saw it.
    """

    def __init__(self, storage: RelayStorage, took: Summary) -> None:
        self._storage = storage
        self._took = took
        self._horizon = Horizon()
        self._next: asyncio.Task[Look] | None = None
        self._busy = asyncio.Lock()
        self.rewinds: int | None = None

    @property
    def last_id(self) -> int:
        """The last id drawn before the newest look."""
        return self._horizon.last.last_id

    async def take(self) -> Look:
        """Give a look that began after this call."""
        if self._next is None:
            self._next = asyncio.create_task(self._take())
            self._next.add_done_callback(_seen)
        return await asyncio.shield(self._next)

    async def _take(self) -> Look:
        async with self._busy:
            self._next = None
            began = time.monotonic()
            last_id, self.rewinds, writers = await self._storage.look()
            self._took.observe(time.monotonic() - began)
            return self._horizon.observe(last_id, writers)


def _seen(look: asyncio.Task[Look]) -> None:
    """Look at the error, in case that everybody who waited was cancelled."""
    if not look.cancelled():
        look.exception()

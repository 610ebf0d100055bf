"""Stopping aiokafka's clients, which may hang, or raise what was meant for their own tasks."""

import asyncio
from typing import Final, Protocol

PATIENCE_SECONDS: Final = 5.0


class Stoppable(Protocol):
    """A consumer or producer."""

    async def stop(self) -> None:
        """Disconnect."""
        ...


async def stopped(client: Stoppable) -> None:
    """Stop `client`, whatever it says to that, and wait `PATIENCE_SECONDS` for it at most.

    An idempotent producer waits for batches that never expire, a consumer for a broker that is
    away, and both may end in the cancellation of a task of their own: none of it is the caller's.
    """
    stopping = asyncio.ensure_future(client.stop())
    try:
        await asyncio.wait({stopping}, timeout=PATIENCE_SECONDS)
    finally:
        stopping.cancel()
        await asyncio.gather(stopping, return_exceptions=True)

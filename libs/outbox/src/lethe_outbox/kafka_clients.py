"""Starting and stopping aiokafka's clients: whole, whoever is cancelled, and not for ever."""

import asyncio
from typing import Final, Protocol

PATIENCE_SECONDS: Final = 5.0
"""How long a stop may take."""

_STARTING_SECONDS: Final = 1.0
"""How long a start that nobody wants any more may go on; a broker that answers needs less."""


class Startable(Protocol):
    """A consumer, producer or admin client."""

    async def start(self) -> None:
        """Connect."""
        ...


class Stoppable(Protocol):
    """A consumer or producer."""

    async def stop(self) -> None:
        """Disconnect."""
        ...


async def started(client: Startable) -> None:
    """Start `client`; who is cancelled meanwhile lets it come to its end first, for a second.

    A start that fails closes what it opened, one that is cancelled leaves a connection behind that
    no stop knows of (aiokafka 0.14, AIOKafkaClient.bootstrap).
    """
    starting = asyncio.ensure_future(client.start())
    try:
        await asyncio.wait({starting})
    except asyncio.CancelledError:
        await asyncio.wait({starting}, timeout=_STARTING_SECONDS)
        raise
    finally:
        starting.cancel()
        await asyncio.gather(starting, return_exceptions=True)
    starting.result()


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

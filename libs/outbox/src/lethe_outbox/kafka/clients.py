"""Starting and stopping aiokafka's clients without leaks, cancelled or not, in bounded time."""

import asyncio
from typing import Final, Protocol

PATIENCE_SECONDS: Final = 5.0
"""How long a stop may take."""

_STARTING_SECONDS: Final = 1.0
"""How long a start may go on after its cancellation; a broker that answers needs less."""


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
    """Start `client`; when cancelled, let the start finish first, for a second at most.

    A start that fails closes what it opened, but one that is cancelled leaks a connection that
    `stop` does not know (aiokafka 0.14, AIOKafkaClient.bootstrap).
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
    """Stop `client` within `PATIENCE_SECONDS`, and ignore what that raises.

    An idempotent producer waits for batches that never expire, a consumer for a broker that is
    away, and either may raise the cancellation of a task of its own.
    """
    stopping = asyncio.ensure_future(client.stop())
    try:
        await asyncio.wait({stopping}, timeout=PATIENCE_SECONDS)
    finally:
        stopping.cancel()
        await asyncio.gather(stopping, return_exceptions=True)

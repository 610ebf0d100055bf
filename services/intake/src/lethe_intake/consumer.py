"""What comes in from Kafka: the eraser's words, applied to intake's requests.

The runner opens one transaction per batch, in which the inbox drops what was handled before.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from sqlalchemy.ext.asyncio import AsyncConnection

from lethe_contracts.codec import decode
from lethe_contracts.errors import RecordError
from lethe_contracts.topics import EVENTS
from lethe_intake.domain import Move, moves
from lethe_intake.storage import apply_moves
from lethe_outbox import PoisonError, Record
from lethe_runtime.database import DatabaseProbe
from lethe_runtime.health import Readiness
from lethe_runtime.waiting import StoppedError, until_available

GROUP: Final = "lethe-intake"
TOPICS: Final = (EVENTS,)


async def handle(connection: AsyncConnection, records: Sequence[Record]) -> None:
    """Apply a batch in the caller's transaction.

    Raises:
        PoisonError: a record can never be read; its reason is the contract's code.
    """
    said: list[Move] = []
    for record in records:
        try:
            said.extend(moves(decode(record.headers, record.value)))
        except RecordError as error:
            raise PoisonError(error.reason) from error
    await apply_moves(connection, said)


class Consumer:
    """Runs the consumer once the tables are there.

    Args:
        run: the runner's loop.
        probe: knows whether the tables are there yet.
        readiness: told while waiting.
    """

    def __init__(
        self,
        run: Callable[[asyncio.Event], Awaitable[None]],
        probe: DatabaseProbe,
        readiness: Readiness,
    ) -> None:
        self._run = run
        self._probe = probe
        self._readiness = readiness

    async def run(self, stop: asyncio.Event) -> None:
        """Consume until `stop`."""
        try:
            await until_available(
                "database",
                self._probe.ask,
                readiness=self._readiness,
                stop=stop,
                transient=self._probe.TRANSIENT,
            )
        except StoppedError:
            return
        await self._run(stop)

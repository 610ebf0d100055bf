"""What comes in from Kafka: the eraser's words, applied to intake's requests.

The runner opens one transaction per batch, in which the inbox drops what was handled before.
"""

import asyncio
from collections.abc import Sequence
from typing import Final

from aiokafka.errors import KafkaError
from sqlalchemy.ext.asyncio import AsyncConnection

from lethe_contracts.codec import decode
from lethe_contracts.errors import RecordError
from lethe_contracts.topics import EVENTS, PARTITIONS
from lethe_intake.domain import Move, moves
from lethe_intake.storage import apply_moves
from lethe_outbox import ConsumerRunner, PoisonError, Record, check_partitions
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
    """Runs the consumer once the tables are there and the topics are as agreed.

    Args:
        bootstrap: the brokers.
        runner: consumes.
        probe: knows whether the tables are there yet.
        readiness: told while waiting.
    """

    def __init__(
        self, bootstrap: str, runner: ConsumerRunner, probe: DatabaseProbe, readiness: Readiness
    ) -> None:
        self._bootstrap = bootstrap
        self._runner = runner
        self._probe = probe
        self._readiness = readiness

    async def run(self, stop: asyncio.Event) -> None:
        """Consume until `stop`.

        Raises:
            PartitionCountError: a topic has not the number of partitions of the contract.
            OffsetsLostError: going on would skip what the eraser said.
        """
        try:
            await self._until_migrated(stop)
            await until_available(
                "kafka",
                lambda: check_partitions(self._bootstrap, dict.fromkeys(TOPICS, PARTITIONS)),
                readiness=self._readiness,
                stop=stop,
                transient=(KafkaError, OSError),
            )
        except StoppedError:
            return
        await self._runner.run(stop)

    async def _until_migrated(self, stop: asyncio.Event) -> None:
        await until_available(
            "database",
            self._probe.ask,
            readiness=self._readiness,
            stop=stop,
            transient=self._probe.TRANSIENT,
        )

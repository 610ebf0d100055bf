"""What comes in from Kafka: both topics, projected batch by batch; and the dead letters of both.

The runner opens one transaction per batch, in which the inbox drops what was handled before.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Final
from uuid import UUID

from aiokafka.errors import KafkaError
from sqlalchemy.exc import DataError
from sqlalchemy.ext.asyncio import AsyncConnection

from lethe_contracts.codec import decode
from lethe_contracts.errors import InvalidEventError, RecordError
from lethe_contracts.topics import PARTITIONS, TOPICS
from lethe_outbox import PoisonError, Record, check_partitions
from lethe_reporting.metrics import ReportingMetrics
from lethe_reporting.storage.dead_letters import DEAD_LETTER_TOPICS
from lethe_reporting.storage.projection import project
from lethe_runtime.database import DatabaseProbe
from lethe_runtime.health import Readiness
from lethe_runtime.lifecycle import Loop
from lethe_runtime.waiting import StoppedError, until_available

GROUP: Final = "lethe-reporting"
DEAD_LETTER_GROUP: Final = "lethe-reporting-dead-letters"


class Projector:
    """Takes batches of records into the read model, and counts them once they are committed.

    Args:
        metrics: where events are counted.
    """

    def __init__(self, metrics: ReportingMetrics) -> None:
        self._metrics = metrics
        self._uncommitted: dict[UUID, str] = {}

    async def handle(self, connection: AsyncConnection, records: Sequence[Record]) -> None:
        """Project a batch in the caller's transaction.

        Raises:
            PoisonError: a record can never be read or kept; its reason is the contract's code.
        """
        envelopes = []
        for record in records:
            try:
                envelopes.append(decode(record.headers, record.value))
            except RecordError as error:
                raise PoisonError(error.reason) from error
        try:
            await project(connection, envelopes)
        except DataError as error:
            # A value that no column takes, such as a number beyond its range.
            raise PoisonError(InvalidEventError.reason) from error
        self._uncommitted.update({each.id: each.event.name for each in envelopes})

    async def committed(self, records: Sequence[Record]) -> None:
        """Count what was just committed; what was rolled back or known before is not counted."""
        names = [self._uncommitted.get(record.event_id) for record in records]
        self._metrics.projected(name for name in names if name is not None)
        self._uncommitted.clear()


class AgreedTopics:
    """Compares the live topics with the contract; partitions decide who handles whom.

    Args:
        bootstrap: the brokers.
    """

    TRANSIENT: Final = (KafkaError, OSError, TimeoutError)
    """What `check` raises while the broker is away."""

    def __init__(self, bootstrap: str) -> None:
        self._bootstrap = bootstrap

    async def check(self) -> None:
        """Compare.

        Raises:
            PartitionCountError: a topic is missing or has another number of partitions.
            KafkaError: the broker does not answer.
        """
        agreed = dict.fromkeys((*TOPICS, *DEAD_LETTER_TOPICS), PARTITIONS)
        await check_partitions(self._bootstrap, agreed)


class Consumer:
    """Runs a consumer once the tables and the topics are there as agreed.

    Args:
        run: the loop.
        check: raises while the broker is away, and refuses topics that are not as agreed.
        probe: knows whether the tables are there yet.
        readiness: told while waiting.
    """

    def __init__(
        self,
        run: Loop,
        check: Callable[[], Awaitable[None]],
        probe: DatabaseProbe,
        readiness: Readiness,
    ) -> None:
        self._run = run
        self._check = check
        self._probe = probe
        self._readiness = readiness

    async def run(self, stop: asyncio.Event) -> None:
        """Consume until `stop`.

        Raises:
            PartitionCountError: a topic is missing or has another number of partitions.
            OffsetsLostError: going on would skip records.
        """
        try:
            await until_available(
                "database",
                self._probe.ask,
                readiness=self._readiness,
                stop=stop,
                transient=self._probe.TRANSIENT,
            )
            await until_available(
                "kafka",
                self._check,
                readiness=self._readiness,
                stop=stop,
                transient=AgreedTopics.TRANSIENT,
            )
        except StoppedError:
            return
        await self._run(stop)

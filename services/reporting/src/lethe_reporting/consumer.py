"""What comes in from Kafka: both topics, projected batch by batch; and the dead letters of both.

The runner opens one transaction per batch, in which the inbox drops what was handled before.
"""

from collections.abc import Sequence
from typing import Final
from uuid import UUID

from sqlalchemy.exc import DataError
from sqlalchemy.ext.asyncio import AsyncConnection

from lethe_contracts.codec import decode
from lethe_contracts.errors import InvalidEventError, RecordError
from lethe_outbox import PoisonError, Record
from lethe_reporting.metrics import ReportingMetrics
from lethe_reporting.storage.projection import project

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

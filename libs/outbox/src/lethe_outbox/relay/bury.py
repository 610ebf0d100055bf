"""What becomes of a row that the broker refuses: its dead-letter topic, and its status.

The status is committed under the lane's fence before anything later of the key is sent. A
dead-letter topic that refuses too leaves the row DLT_FAILED: in the database, visible, in nobody's
way.
"""

import logging
from datetime import UTC, datetime
from typing import Final

from lethe_outbox.kafka.dead_letter_topic import (
    ERROR_HEADERS,
    RELAY_PREFIX,
    Failure,
    dead_letter_topic,
)
from lethe_outbox.metrics import RelayMetrics
from lethe_outbox.relay.batches import headers_of
from lethe_outbox.relay.lane import Lane, LaneLostError, Row
from lethe_outbox.relay.producer import BrokenError, RefusedError
from lethe_outbox.relay.producers import Producers
from lethe_outbox.relay.settings import RelaySettings
from lethe_outbox.relay.storage import Fence, RelayStorage
from lethe_outbox.schema import Status

_MOST_FAILURES: Final = 3
_log = logging.getLogger(__name__)


class Undertaker:
    """Buries refused rows."""

    def __init__(
        self,
        outbox: str,
        storage: RelayStorage,
        producers: Producers,
        settings: RelaySettings,
        metrics: RelayMetrics,
    ) -> None:
        self._outbox = outbox
        self._storage = storage
        self._producers = producers
        self._settings = settings
        self._metrics = metrics

    async def bury(self, lane: Lane, row: Row, partition: int, refusal: RefusedError) -> bool:
        """Send the row to its dead-letter topic and commit what became of it.

        Says whether its key is held back from now on.

        Raises:
            LaneLostError: the lane belongs to another relay, which decides about the row.
        """
        topic = row.topic.decode()
        status, failures = await self._send(row, partition, refusal)
        held = topic in self._settings.hold_back_topics
        fence = Fence(self._storage.owner, {lane.number: lane.epoch})
        while not await self._storage.bury(
            row, status, reason=refusal.reason, dlt_attempts=failures, held=held, fence=fence
        ):
            if not await self._storage.owned(fence):
                raise LaneLostError(lane)
            # A lease that had ended may be renewed by now: then the row is still to be buried.
            if not await self._storage.any_pending(row.part, [row.id]):
                lane.acknowledged.append(row.id)
                return False
        lane.acknowledged.append(row.id)
        self._tell(topic, status, refusal)
        if held:
            lane.hold(row)
        return held

    async def _send(self, row: Row, partition: int, refusal: RefusedError) -> tuple[Status, int]:
        """Send the dead letter; gives what became of the row, and how often sending failed."""
        topic = row.topic.decode()
        now = datetime.now(UTC)
        failure = Failure(
            reason=refusal.reason,
            error_class=refusal.error_class,
            refused_by=f"{RELAY_PREFIX}{self._outbox}",
            attempts=1,
            first_failed_at=now,
            last_failed_at=now,
            origin_topic=topic,
            origin_partition=partition,
            origin_row=row.id,
        )
        headers = [*_headers(row), *failure.headers()]
        failures, using = 0, self._producers
        with self._producers.apart() as own:
            while failures < _MOST_FAILURES:
                producer = await using.current()
                try:
                    await producer.send(dead_letter_topic(topic), row.key, row.payload, headers)
                except RefusedError:
                    return Status.DLT_FAILED, failures + 1
                except BrokenError as broken:
                    using.give_up(producer, broken)
                    failures, using = failures + 1, own
                else:
                    using.succeeded()
                    return Status.DEAD_LETTERED, failures
        return Status.DLT_FAILED, failures

    def _tell(self, topic: str, status: Status, refusal: RefusedError) -> None:
        if status is Status.DEAD_LETTERED:
            self._metrics.dead_lettered.labels(self._outbox, topic).inc()
            _log.error(
                "a row for %s was refused (%s) and is in its dead-letter topic",
                topic,
                refusal.reason,
            )
        else:
            self._metrics.dlt_failed.labels(self._outbox, topic).inc()
            _log.critical(
                "a row for %s was refused (%s) and by its dead-letter topic too; it stays in the "
                "outbox until it is requeued",
                topic,
                refusal.reason,
            )


def _headers(row: Row) -> list[tuple[str, bytes]]:
    """Give the row's own headers: an event may be what somebody made of another dead letter."""
    try:
        return [header for header in headers_of(row.headers) if header[0] not in ERROR_HEADERS]
    except ValueError:
        return []

"""A relay in memory: from a `MemoryOutbox` to a `MemoryBroker`."""

from collections.abc import Collection
from datetime import UTC, datetime
from typing import Final

from aiokafka.errors import KafkaError, MessageSizeTooLargeError

from lethe_outbox.errors import ReorderError
from lethe_outbox.kafka.dead_letter_topic import Failure, dead_letter_topic
from lethe_outbox.schema import Status
from lethe_outbox.testing.broker import MemoryBroker
from lethe_outbox.testing.outbox import MemoryOutbox, MemoryRow

_DEAD: Final = (Status.DEAD_LETTERED, Status.DLT_FAILED)


class MemoryRelay:
    """Publishes what is committed, when it is told to.

    Args:
        outbox: what is published.
        broker: where to.
        hold_back_topics: as in `RelaySettings`.
    """

    def __init__(
        self,
        outbox: MemoryOutbox,
        broker: MemoryBroker,
        *,
        hold_back_topics: Collection[str] = (),
    ) -> None:
        self._outbox = outbox
        self._broker = broker
        self._hold_back_topics = frozenset(hold_back_topics)

    def publish(self, *, acknowledge: bool = True) -> int:
        """Publish every row that is pending and not held back; gives how many.

        Args:
            acknowledge: False for a relay that dies after publishing: the rows stay pending, and
                the next call publishes them again, as at least once allows.
        """
        published = 0
        for row in self._outbox.rows:
            if row.status is not Status.PENDING or self._is_held_back(row):
                continue
            refusal = self._refusal(row)
            if refusal is None:
                published += 1
                row.status = Status.SENT if acknowledge else Status.PENDING
            else:
                self._bury(row, refusal)
        return published

    def requeue(self, ids: Collection[int] | None = None, *, accept_reorder: bool = False) -> int:
        """Make refused rows pending again; gives how many. As `operations.requeue`.

        Raises:
            ReorderError: later events of a row's key were or may be published, and that was not
                accepted; nothing is changed.
        """
        rows = [
            row
            for row in self._outbox.rows
            if row.status in _DEAD
            and (row.id in ids if ids is not None else row.status is Status.DLT_FAILED)
        ]
        if not accept_reorder and any(not row.held and self._has_later(row) for row in rows):
            raise ReorderError("some of the rows have later events of their key")
        for row in rows:
            row.status, row.reason, row.held = Status.PENDING, None, False
        return len(rows)

    def _refusal(self, row: MemoryRow) -> KafkaError | None:
        message = row.message
        try:
            self._broker.send(message.topic, message.key.encode(), message.payload, row.headers)
        except KafkaError as error:
            return error
        return None

    def _bury(self, row: MemoryRow, refusal: KafkaError) -> None:
        message = row.message
        too_large = isinstance(refusal, MessageSizeTooLargeError)
        row.reason = "too_large" if too_large else "unknown_topic"
        now = datetime.now(UTC)
        failure = Failure(
            reason=row.reason,
            error_class=type(refusal).__name__,
            refused_by="relay-memory",
            attempts=1,
            first_failed_at=now,
            last_failed_at=now,
            origin_topic=message.topic,
        )
        topic = dead_letter_topic(message.topic)
        headers = [*row.headers, *failure.headers()]
        try:
            self._broker.send(topic, message.key.encode(), message.payload, headers)
        except KafkaError:
            row.status = Status.DLT_FAILED
        else:
            row.status = Status.DEAD_LETTERED
        row.held = message.topic in self._hold_back_topics

    def _is_held_back(self, row: MemoryRow) -> bool:
        return any(one.held and _same_key(one, row) for one in self._outbox.rows)

    def _has_later(self, row: MemoryRow) -> bool:
        return any(one.id > row.id and _same_key(one, row) for one in self._outbox.rows)


def _same_key(one: MemoryRow, other: MemoryRow) -> bool:
    return (one.message.topic, one.message.key) == (other.message.topic, other.message.key)

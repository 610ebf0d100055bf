"""Setting aside what can never be handled: told to whoever must know, then sent to its topic.

The order is what makes it safe: first the hook's own transaction, then the dead-letter topic, and
only then may the offset move on. Killed in between, all of it is done again for the same record.
"""

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

from aiokafka import TopicPartition
from aiokafka.errors import KafkaError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from lethe_outbox.consumer.intact import has_written, write
from lethe_outbox.errors import TransactionError
from lethe_outbox.kafka.dead_letter_topic import (
    DeadLetterSender,
    Failure,
    dead_letter_topic,
    original_headers,
)
from lethe_outbox.record import event_id_of

_log: Final = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class DeadRecord:
    """A record that is about to be set aside: where it stands and why, not what it holds."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    event_id: UUID | None
    """None when it carries none that can be read."""
    reason: str


OnDeadLetter = Callable[[AsyncConnection, DeadRecord], Awaitable[None]]
"""Told of a record before it goes to the dead-letter topic, in a transaction of its own.

It may be told of the same record again. While it fails the record is not set aside and its
partition stands still.
"""


@dataclass(slots=True)
class Tries:
    """How often a record was tried, and since when."""

    offset: int
    first_failed_at: datetime
    count: int = 0


@dataclass(slots=True)
class Quarantine:
    """Sends the records of a consumer group to their dead-letter topics.

    Attributes:
        group: on whose behalf.
        engine: where the hook's transactions run.
        producer: closed by `close`.
        on_dead_letter: the hook.
        blocked: partitions whose dead-letter topic did not take a record the last time.
    """

    group: str
    engine: AsyncEngine
    producer: DeadLetterSender
    on_dead_letter: OnDeadLetter | None = None
    blocked: set[TopicPartition] = field(default_factory=set)
    _tries: dict[TopicPartition, Tries] = field(default_factory=dict)

    def tries(self, consumed: Any) -> Tries:
        """Give the tries of a record that just failed, or is about to be set aside.

        A partition moves on only past the record that is tried, so the tries of any other record
        of it are obsolete.
        """
        place = TopicPartition(consumed.topic, consumed.partition)
        known = self._tries.get(place)
        if known is None or known.offset != consumed.offset:
            known = self._tries[place] = Tries(consumed.offset, datetime.now(UTC))
        return known

    def settled(self, consumed: Any) -> None:
        """Forget the tries of a record that is dealt with."""
        self._tries.pop(TopicPartition(consumed.topic, consumed.partition), None)

    def revoked(self) -> None:
        """Forget what was blocked or tried: its partitions may be somebody else's now."""
        self.blocked.clear()
        self._tries.clear()

    async def close(self) -> None:
        """Let go of the brokers."""
        await self.producer.close()

    async def bury(self, consumed: Any, reason: str, error_class: str) -> bool:
        """Set a record aside; False when its dead-letter topic cannot be written.

        Raises:
            Exception: whatever the hook raised; the record is not in its dead-letter topic.
        """
        tries = self.tries(consumed)
        await self._tell(consumed, reason)
        failure = Failure(
            reason=reason,
            error_class=error_class,
            refused_by=self.group,
            attempts=tries.count + 1,
            first_failed_at=tries.first_failed_at,
            last_failed_at=datetime.now(UTC),
            origin_topic=consumed.topic,
            origin_partition=consumed.partition,
            origin_offset=consumed.offset,
        )
        headers = [*original_headers(tuple(consumed.headers)), *failure.headers()]
        topic = dead_letter_topic(consumed.topic)
        try:
            await self.producer.send(topic, consumed.key, consumed.value, headers)
        except (KafkaError, OSError, TimeoutError) as refused:
            self.blocked.add(TopicPartition(consumed.topic, consumed.partition))
            _log.critical(
                "group %s: %s cannot be written (%s); partition %d of %s stands still at offset %d "
                "until it can: it must exist and take a record of %d bytes and 64 KiB more",
                self.group,
                topic,
                type(refused).__name__,
                consumed.partition,
                consumed.topic,
                consumed.offset,
                len(consumed.value or b""),
            )
            return False
        _log.error(
            "group %s: dead letter from %s partition %d offset %d: %s",
            self.group,
            consumed.topic,
            consumed.partition,
            consumed.offset,
            reason,
        )
        return True

    async def _tell(self, consumed: Any, reason: str) -> None:
        if self.on_dead_letter is None:
            return
        dead = DeadRecord(
            topic=consumed.topic,
            partition=consumed.partition,
            offset=consumed.offset,
            key=consumed.key,
            event_id=event_id_of(tuple(consumed.headers)),
            reason=reason,
        )
        async with self.engine.begin() as connection:
            await write(connection)
            await self.on_dead_letter(connection, dead)
            # A database error that the hook caught would make the commit a silent rollback.
            if not await has_written(connection):
                raise TransactionError("on_dead_letter ended the transaction it was given")

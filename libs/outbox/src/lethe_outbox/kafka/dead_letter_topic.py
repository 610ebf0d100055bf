"""Dead-letter topics: what is sent to them, and how.

A dead letter is the original record, bytes for bytes, with headers that say what went wrong. They
are cut short so that a record at its origin's size limit still fits the dead-letter topic, whose
limit must be `HEADROOM_BYTES` above the origin's.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Protocol

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaConnectionError, KafkaError, KafkaTimeoutError

from lethe_outbox.kafka.brokers import Bootstrap, client_arguments
from lethe_outbox.kafka.clients import started, stopped
from lethe_outbox.record import ConsumedHeaders

HEADROOM_BYTES: Final = 64 * 1024
_LONGEST_TEXT: Final = 256
_DEADLINE_SECONDS: Final = 30.0

REASON: Final = "error-reason"
ERROR_CLASS: Final = "error-class"
ATTEMPTS: Final = "error-attempts"
REFUSED_BY: Final = "error-refused-by"
ORIGIN_TOPIC: Final = "origin-topic"
ORIGIN_PARTITION: Final = "origin-partition"
ORIGIN_OFFSET: Final = "origin-offset"
ORIGIN_ROW: Final = "origin-row"
FIRST_FAILED: Final = "error-first-at"
LAST_FAILED: Final = "error-last-at"
ERROR_HEADERS: Final = frozenset(
    {
        REASON,
        ERROR_CLASS,
        ATTEMPTS,
        REFUSED_BY,
        ORIGIN_TOPIC,
        ORIGIN_PARTITION,
        ORIGIN_OFFSET,
        ORIGIN_ROW,
        FIRST_FAILED,
        LAST_FAILED,
    }
)

RELAY_PREFIX: Final = "relay-"
"""A relay refuses as `relay-<outbox>`; no consumer group may be called so."""


def dead_letter_topic(topic: str) -> str:
    """Name the dead-letter topic of `topic`."""
    return f"{topic}.DLT"


@dataclass(frozen=True, slots=True)
class Failure:
    """What went wrong with a record, and where it was."""

    reason: str
    error_class: str
    refused_by: str
    """The consumer group, or the relay: two groups may refuse the same record, each for itself."""
    attempts: int
    first_failed_at: datetime
    last_failed_at: datetime
    origin_topic: str
    origin_partition: int | None = None
    origin_offset: int | None = None
    """None if it was never published."""
    origin_row: int | None = None
    """The id of its row in the relay's outbox."""

    def headers(self) -> list[tuple[str, bytes]]:
        """Write it as headers, each cut to a bounded length."""
        found: list[tuple[str, object]] = [
            (REASON, self.reason),
            (ERROR_CLASS, self.error_class),
            (ATTEMPTS, self.attempts),
            (REFUSED_BY, self.refused_by),
            (FIRST_FAILED, self.first_failed_at.astimezone(UTC).isoformat()),
            (LAST_FAILED, self.last_failed_at.astimezone(UTC).isoformat()),
            (ORIGIN_TOPIC, self.origin_topic),
        ]
        numbers = (
            (ORIGIN_PARTITION, self.origin_partition),
            (ORIGIN_OFFSET, self.origin_offset),
            (ORIGIN_ROW, self.origin_row),
        )
        found += [(name, number) for name, number in numbers if number is not None]
        return [(name, str(value).encode()[:_LONGEST_TEXT]) for name, value in found]


def original_headers(headers: ConsumedHeaders) -> ConsumedHeaders:
    """Return the headers a record had before it became a dead letter."""
    return tuple(header for header in headers if header[0] not in ERROR_HEADERS)


class DeadLetterSender(Protocol):
    """Sends dead letters one at a time."""

    async def send(
        self,
        topic: str,
        key: bytes | None,
        value: bytes | None,
        headers: Sequence[tuple[str, bytes | None]],
    ) -> None:
        """Send one record and wait until the brokers have it.

        Raises:
            KafkaError, OSError, TimeoutError: it is not certain that they have it.
        """
        ...

    async def close(self) -> None:
        """Let go of the connection."""
        ...


class DeadLetterProducer:
    """Sends dead letters and replays one at a time; connects when first used.

    They are compressed: a record that came so may be as large as its topic takes only that way.

    Args:
        bootstrap: the brokers.
        max_request_bytes: the largest record sent; above the largest `max.message.bytes` in use.
            By default as much as a broker of the usual `socket.request.max.bytes` takes at all.
    """

    def __init__(self, bootstrap: Bootstrap, *, max_request_bytes: int = 100_000_000) -> None:
        self._bootstrap = bootstrap
        self._max_request_bytes = max_request_bytes
        self._producer: AIOKafkaProducer | None = None

    async def send(
        self,
        topic: str,
        key: bytes | None,
        value: bytes | None,
        headers: Sequence[tuple[str, bytes | None]],
    ) -> None:
        """Send one record and wait until the brokers have it.

        After any failure the producer is built anew: an idempotent one may be stuck.

        Raises:
            KafkaError: it is not certain that they have it. Timeouts and broken connections are
                raised as one, too, because a replay also meets those of its database.
        """
        try:
            async with asyncio.timeout(_DEADLINE_SECONDS):
                producer = await self._started()
                if key is None and value is None:
                    await _send_empty(producer, topic, headers)
                else:
                    await producer.send_and_wait(topic, value, key=key, headers=list(headers))
        except KafkaError:
            await self.close()
            raise
        except TimeoutError as error:
            await self.close()
            raise KafkaTimeoutError("the brokers do not answer") from error
        except OSError as error:
            await self.close()
            raise KafkaConnectionError("the brokers cannot be reached") from error

    async def close(self) -> None:
        """Let go of the connection."""
        producer, self._producer = self._producer, None
        if producer is not None:
            await stopped(producer)

    async def _started(self) -> Any:
        if self._producer is None:
            producer = AIOKafkaProducer(
                **client_arguments(self._bootstrap),
                acks="all",
                enable_idempotence=True,
                max_request_size=self._max_request_bytes,
                compression_type="gzip",
            )
            try:
                await started(producer)
            except BaseException:
                # A start that was cancelled leaves connections and tasks behind, too.
                await stopped(producer)
                raise
            self._producer = producer
        return self._producer


async def _send_empty(
    producer: AIOKafkaProducer, topic: str, headers: Sequence[tuple[str, bytes | None]]
) -> None:
    """Send what has neither key nor value: Kafka takes that, aiokafka's own `send` asserts."""
    batch = producer.create_batch()
    batch.append(timestamp=None, key=None, value=None, headers=list(headers))
    batch.close()
    partition = min(await producer.partitions_for(topic))
    await (await producer.send_batch(batch, topic, partition=partition))

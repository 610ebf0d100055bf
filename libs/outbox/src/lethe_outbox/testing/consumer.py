"""A consumer group in memory: the real runner's decisions, without brokers and database."""

from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import Any, cast
from uuid import UUID

from aiokafka import TopicPartition
from prometheus_client import CollectorRegistry
from sqlalchemy.ext.asyncio import AsyncEngine

from lethe_outbox.consumer.inbox import Inbox
from lethe_outbox.consumer.polling import Done
from lethe_outbox.consumer.runner import AfterCommit, ConsumerRunner, ConsumerSettings
from lethe_outbox.metrics import ConsumerMetrics
from lethe_outbox.record import Record
from lethe_outbox.testing.broker import MemoryBroker, MemoryRecord
from lethe_outbox.testing.transactions import MemoryEngine, on_commit

MemoryHandler = Callable[[Any, Sequence[Record]], Awaitable[None]]
"""As `consumer.Handler`, given whatever the engine's `begin()` gives."""


class MemoryInbox(Inbox):
    """Stands in for an `Inbox`: remembers what committed transactions handled."""

    def __init__(self) -> None:
        super().__init__()
        self._handled: set[tuple[UUID, str]] = set()

    async def handled(
        self, connection: Any, event_ids: Collection[UUID], consumer: str
    ) -> set[UUID]:
        """Note `event_ids` when `connection` commits; returns those that were not noted before."""
        new = {one for one in event_ids if (one, consumer) not in self._handled}
        on_commit(connection, lambda: self._handled.update((one, consumer) for one in new))
        return new

    async def still_noted(self, connection: Any) -> bool:
        """Say whether what `handled` noted still waits for a commit of `connection`."""
        return bool(connection.in_transaction())


class _DeadLetters:
    """Sends dead letters to a broker of memory."""

    def __init__(self, broker: MemoryBroker) -> None:
        self._broker = broker

    async def send(
        self,
        topic: str,
        key: bytes | None,
        value: bytes | None,
        headers: Sequence[tuple[str, bytes | None]],
    ) -> None:
        """Send one record."""
        self._broker.send(topic, key, value, headers)

    async def close(self) -> None:
        """Nothing is open."""


class MemoryConsumer:
    """A group that consumes when it is told to.

    Args:
        broker: what is consumed from.
        group: its name, which the inbox keeps.
        topics: what is consumed.
        handler: the handler under test.
        engine: its `begin()` is the handler's transaction: a real AsyncEngine, or None for
            transactions of memory.
        inbox: shared with other groups or looked at, if given.
        settings: `attempts` counts here too.
        transient: as in `ConsumerRunner`.
        after_commit: likewise.

    Attributes:
        registry: holds the consumer's metrics.
    """

    def __init__(
        self,
        broker: MemoryBroker,
        group: str,
        topics: Sequence[str],
        handler: MemoryHandler,
        *,
        engine: AsyncEngine | MemoryEngine | None = None,
        inbox: MemoryInbox | None = None,
        settings: ConsumerSettings | None = None,
        transient: tuple[type[Exception], ...] = (),
        after_commit: AfterCommit | None = None,
    ) -> None:
        self.registry = CollectorRegistry()
        self._broker = broker
        self._topics = tuple(topics)
        self._next: dict[TopicPartition, int] = {}
        self._runner = ConsumerRunner(
            cast("AsyncEngine", engine or MemoryEngine()),
            "",
            group,
            topics,
            handler,
            inbox or MemoryInbox(),
            ConsumerMetrics(self.registry),
            settings=settings,
            transient=transient,
            after_commit=after_commit,
            dead_letters=_DeadLetters(broker),
        )

    async def consume(self) -> int:
        """Deal with everything that is there, as one poll would; gives how many are dealt with.

        What has to be tried again is tried by the next call, from the same place.
        """
        polled: dict[TopicPartition, list[MemoryRecord]] = {}
        for topic in self._topics:
            for record in self._broker.records(topic):
                partition = TopicPartition(topic, record.partition)
                if record.offset >= self._next.get(partition, 0):
                    polled.setdefault(partition, []).append(record)
        if not polled:
            return 0
        before = sum(self._next.values())
        for partition, progress in (await self._runner.work(polled)).items():
            reached = progress.next_offset if isinstance(progress, Done) else progress.offset
            self._next[partition] = reached
        return sum(self._next.values()) - before

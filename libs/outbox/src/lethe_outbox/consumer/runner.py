"""The consumer runner: each event's effect once, in one transaction with the inbox.

A batch is one transaction. When it fails for good, its records are handled one by one, each in a
transaction of its own, so that a poison record hurts only itself: it goes to the dead-letter topic
with its original bytes and the partition moves on. What is transient is tried again in place.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from aiokafka import TopicPartition
from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from lethe_outbox import tracing
from lethe_outbox.consumer.inbox import Inbox
from lethe_outbox.consumer.polling import (
    Again,
    Done,
    GroupPoller,
    OnAssigned,
    OnState,
    PollSettings,
    Progress,
)
from lethe_outbox.consumer.quarantine import OnDeadLetter, Quarantine
from lethe_outbox.consumer.transient import is_transient, meets_everybody
from lethe_outbox.errors import (
    AutocommitError,
    ConnectionKindError,
    HandlerCancelledError,
    PoisonError,
    TransactionError,
)
from lethe_outbox.kafka.brokers import Bootstrap
from lethe_outbox.kafka.dead_letter_topic import DeadLetterProducer, DeadLetterSender
from lethe_outbox.metrics import ConsumerMetrics
from lethe_outbox.record import Record

_log: Final = logging.getLogger(__name__)

Handler = Callable[[AsyncConnection, Sequence[Record]], Awaitable[None]]
"""Handles records in the transaction it is given; raises PoisonError for one that never can be.

It may be called again with the same records after its transaction was rolled back, and with fewer.
It leaves the transaction to the runner: one that it ended, or in which it caught a statement's
error outside of a savepoint, counts as failed.
"""

AfterCommit = Callable[[Sequence[Record]], Awaitable[None]]

NOT_OURS: Final = "not_ours"
HANDLER_FAILED: Final = "handler_failed"


@dataclass(frozen=True, slots=True)
class ConsumerSettings(PollSettings):
    """How a runner works, besides polling."""

    attempts: int = 5
    """How often a record is tried that fails with an error of no known class, before it is dead."""


_Pairs = Sequence[tuple[Any, Record | None]]
"""Records as aiokafka gave them, each with what could be read of it."""


@dataclass(slots=True)
class _Outcome:
    """What became of the records of one poll so far."""

    progress: dict[TopicPartition, Progress] = field(default_factory=dict)
    handled: list[Record] = field(default_factory=list)


class ConsumerRunner:
    """Runs `handler` over the records of `topics` as a member of `group`.

    Args:
        engine: where the handler's transactions run; the inbox table must be there.
        bootstrap: the brokers.
        group: the consumer group, and the consumer's name in the inbox.
        topics: what is consumed; their dead-letter topics must exist.
        handler: see `Handler`.
        inbox: see `Inbox`.
        metrics: see `ConsumerMetrics`.
        settings: see `ConsumerSettings`.
        transient: further errors of the handler that are worth trying again in place.
        on_assigned: told the numbers of the assigned partitions whenever they change.
        on_state: told whether the brokers answer.
        after_commit: called with the records whose effect was just committed; must not fail.
        on_dead_letter: see `OnDeadLetter`.
        dead_letters: sends the dead letters; None for a producer of its own.

    Raises:
        ArgumentError: no topic is named, or the group as a relay is.
        ConnectionKindError: the engine is no async one.
    """

    def __init__(
        self,
        engine: AsyncEngine,
        bootstrap: Bootstrap,
        group: str,
        topics: Sequence[str],
        handler: Handler,
        inbox: Inbox,
        metrics: ConsumerMetrics,
        *,
        settings: ConsumerSettings | None = None,
        transient: tuple[type[Exception], ...] = (),
        on_assigned: OnAssigned | None = None,
        on_state: OnState | None = None,
        after_commit: AfterCommit | None = None,
        on_dead_letter: OnDeadLetter | None = None,
        dead_letters: DeadLetterSender | None = None,
    ) -> None:
        if isinstance(engine, Engine):
            raise ConnectionKindError("a runner takes an AsyncEngine; this is an Engine")
        self._engine = engine
        self._group = group
        self._topics = tuple(topics)
        self._handler = handler
        self._inbox = inbox
        self._metrics = metrics
        self._settings = settings or ConsumerSettings()
        self._transient = transient
        self._after_commit = after_commit
        self._quarantine = Quarantine(
            group, engine, dead_letters or DeadLetterProducer(bootstrap), on_dead_letter
        )
        self._poller = GroupPoller(
            bootstrap,
            group,
            topics,
            self.work,
            metrics,
            settings=self._settings,
            on_assigned=on_assigned,
            on_state=on_state,
            on_rebalance=self._rebalanced,
        )
        for topic in topics:
            # From 0 on: a topic's first dead letter would be the birth of its series, no increase.
            metrics.records.labels(group=group, topic=topic, outcome="dead_lettered")

    async def run(self, stop: asyncio.Event) -> None:
        """Consume until `stop`; finish the batch at hand and commit its offsets.

        Raises:
            OffsetsLostError: going on would skip records.
            AutocommitError: so would the engine.
        """
        try:
            await self._poller.run(stop)
        finally:
            await self._quarantine.close()

    async def work(
        self, polled: Mapping[TopicPartition, Sequence[Any]]
    ) -> Mapping[TopicPartition, Progress]:
        """Handle polled records, as aiokafka gives them; returns how far each partition came."""
        outcome = _Outcome()
        read = {
            partition: [(one, Record.of(one)) for one in polled[partition]] for partition in polled
        }
        try:
            if not await self._together(read, outcome):
                for partition, pairs in read.items():
                    outcome.progress[partition] = await self._one_by_one(pairs, outcome)
        except Exception as error:
            if not self._is_transient(error):
                raise
            for partition, consumed in polled.items():
                self._retried(partition.topic, error)
                outcome.progress[partition] = Again(consumed[0].offset)
        await self._committed(outcome.handled)
        self._note_blocked(polled, outcome)
        return outcome.progress

    async def _together(self, read: Mapping[TopicPartition, _Pairs], outcome: _Outcome) -> bool:
        """Handle everything in one transaction; False if each record needs one of its own.

        Raises:
            Exception: a transient error that every record would meet now.
            AutocommitError: no record can be handled.
        """
        records = [record for pairs in read.values() for _, record in pairs]
        whole = [record for record in records if record is not None]
        if len(whole) < len(records):
            return False
        try:
            await self._transaction(whole, outcome)
        except AutocommitError:
            raise
        except Exception as error:
            if meets_everybody(error) and self._is_transient(error):
                raise
            _log.info("group %s: batch failed (%s), one by one", self._group, type(error).__name__)
            return False
        for partition, pairs in read.items():
            outcome.progress[partition] = Done(pairs[-1][0].offset + 1)
        return True

    async def _one_by_one(self, pairs: _Pairs, outcome: _Outcome) -> Progress:
        for consumed, record in pairs:
            if not await self._one(consumed, record, outcome):
                return Again(consumed.offset)
            self._quarantine.settled(consumed)
        return Done(pairs[-1][0].offset + 1)

    async def _one(self, consumed: Any, record: Record | None, outcome: _Outcome) -> bool:
        """Handle one record or bury it; False when it is to be tried again."""
        if record is None:
            return await self._bury(consumed, NOT_OURS, "NotOurs")
        try:
            await self._transaction([record], outcome)
        except PoisonError as error:
            cause = error.__cause__ or error
            return await self._bury(consumed, error.reason, type(cause).__name__)
        except AutocommitError:
            raise
        except Exception as error:  # noqa: BLE001 - a defect of the handler must not stop others
            if self._is_transient(error):
                self._retried(consumed.topic, error)
                return False
            tries = self._quarantine.tries(consumed)
            if tries.count + 1 >= self._settings.attempts:
                return await self._bury(consumed, HANDLER_FAILED, type(error).__name__)
            tries.count += 1
            self._retried(consumed.topic, error)
            return False
        return True

    async def _transaction(self, records: Sequence[Record], outcome: _Outcome) -> None:
        """Handle what is new among `records`, together with their inbox rows."""
        unknown = await self._unknown(_firsts(records))
        new = await self._handle_new(unknown) if unknown else ()
        outcome.handled.extend(unknown)
        handled = Counter([record.topic for record in new])
        for topic, count in handled.items():
            self._count(topic, "handled", count)
        if len(new) < len(records):
            duplicates = Counter([record.topic for record in records]) - handled
            for topic, count in duplicates.items():
                self._count(topic, "duplicate", count)

    async def _handle_new(self, records: Sequence[Record]) -> Sequence[Record]:
        """Handle, in one transaction, the records that the inbox does not have; returns them."""
        async with self._engine.begin() as connection:
            ids = [record.event_id for record in records]
            fresh = await self._inbox.handled(connection, ids, self._group)
            if len(fresh) < len(records):
                records = [record for record in records if record.event_id in fresh]
            if records:
                with tracing.processing(self._group, records):
                    await self._handle(connection, records)
                if not await self._inbox.still_noted(connection):
                    raise TransactionError("the handler ended the transaction it was given")
        return records

    async def _handle(self, connection: AsyncConnection, records: Sequence[Record]) -> None:
        try:
            await self._handler(connection, records)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            # Something it awaited was cancelled: a defect of the handler, not a request to stop.
            raise HandlerCancelledError("the handler awaited what was cancelled") from None
        except ExceptionGroup as several:
            # A TaskGroup's. If one of them says that the record can never be handled, it cannot.
            poison: BaseException | None = several.subgroup(PoisonError)
            while isinstance(poison, ExceptionGroup):
                poison = poison.exceptions[0]
            raise poison or several  # noqa: B904 - the poison keeps the cause it was raised with

    async def _unknown(self, records: Sequence[Record]) -> Sequence[Record]:
        """Leave out the records that the fast path knows to be handled."""
        if self._inbox.fast_path is None:
            return records
        ids = [record.event_id for record in records]
        known = await self._inbox.fast_path.known(self._group, ids)
        return [record for record in records if record.event_id not in known] if known else records

    async def _committed(self, handled: Sequence[Record]) -> None:
        if not handled:
            return
        if self._inbox.fast_path is not None:
            await self._inbox.fast_path.mark(self._group, [one.event_id for one in handled])
        if self._after_commit is not None:
            await self._after_commit(handled)

    async def _bury(self, consumed: Any, reason: str, error_class: str) -> bool:
        """Set a record aside; False when it has to be tried again."""
        try:
            if not await self._quarantine.bury(consumed, reason, error_class):
                return False
        except Exception as error:  # noqa: BLE001 - the hook failed, so nothing was set aside
            self._retried(consumed.topic, error)
            return False
        self._count(consumed.topic, "dead_lettered")
        return True

    def _is_transient(self, error: Exception) -> bool:
        if isinstance(error, ExceptionGroup):
            return all(self._is_transient(one) for one in error.exceptions)
        return isinstance(error, self._transient) or is_transient(error)

    def _retried(self, topic: str, error: BaseException) -> None:
        cause = error.orig if isinstance(error, DBAPIError) and error.orig else error
        _log.warning("group %s: %s, trying %s again", self._group, type(cause).__name__, topic)
        self._metrics.retries.labels(group=self._group, topic=topic).inc()

    def _rebalanced(self) -> None:
        self._quarantine.revoked()
        for topic in self._topics:
            self._metrics.blocked_partitions.labels(group=self._group, topic=topic).set(0)

    def _note_blocked(
        self, polled: Mapping[TopicPartition, Sequence[Any]], outcome: _Outcome
    ) -> None:
        blocked = self._quarantine.blocked
        blocked -= {one for one in polled if isinstance(outcome.progress.get(one), Done)}
        for topic in {partition.topic for partition in polled}:
            count = sum(1 for one in blocked if one.topic == topic)
            gauge = self._metrics.blocked_partitions.labels(group=self._group, topic=topic)
            gauge.set(count)

    def _count(self, topic: str, outcome: str, count: int = 1) -> None:
        self._metrics.records.labels(group=self._group, topic=topic, outcome=outcome).inc(count)


def _firsts(records: Sequence[Record]) -> Sequence[Record]:
    """Keep the first record of each event."""
    first: dict[int, Record] = {}
    for record in records:
        first.setdefault(record.event_id.int, record)
    return records if len(first) == len(records) else list(first.values())

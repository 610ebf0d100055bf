"""Keeping the inbox's partitions: made ahead, and dropped once nothing in them can come again.

An inbox row is needed as long as its event can be consumed again, which is as long as its topic
keeps it after it was handled. So a partition goes only when its range is older than `keep`, and the
newest row in it was handled longer ago than that: an event may be published late. Events whose ids
carry no time are in the default partition, and go by when they were handled alone.

Any number of keepers may run, one at a time does the work; each step is one transaction.
"""

import asyncio
import logging
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncEngine

from lethe_outbox.errors import ArgumentError
from lethe_outbox.metrics import ConsumerMetrics
from lethe_outbox.names import for_text, qualified
from lethe_outbox.partitions.monthly import BY_UUID7, Partition, default_of, older, spans_of
from lethe_outbox.partitions.storage import Outcome, PartitionedTable, drop, make_ahead, partitions
from lethe_outbox.ranges import wrong_number
from lethe_outbox.schema import DEFAULT_SCHEMA

_log: Final = logging.getLogger(__name__)

DEFAULT_KEEP: Final = timedelta(days=35)

_TRANSIENT: Final = (DBAPIError, PoolTimeoutError, OSError, TimeoutError)


@dataclass(frozen=True, slots=True)
class KeeperSettings:
    """How an inbox is kept.

    Raises:
        ArgumentError: a value is out of range.
    """

    keep: timedelta = DEFAULT_KEEP
    """How long an event that was handled is remembered; longer than any topic keeps its records."""
    months_ahead: int = 2
    """Monthly partitions made ahead of the current one."""
    interval_seconds: float = 600.0
    """Between two runs."""
    most_deleted: int = 10_000
    """Rows of the default partition removed in one transaction."""

    def __post_init__(self) -> None:
        if self.keep <= timedelta(0):
            raise ArgumentError("keep must be more than 0")
        wrong = wrong_number(self)
        if wrong is not None:
            raise ArgumentError(wrong)


@dataclass(frozen=True, slots=True)
class Kept:
    """What a run did, and how the inbox stands after it.

    Attributes:
        made: partitions that were made.
        dropped: partitions that were dropped.
        deleted: rows removed from the default partition.
        overdue: partitions whose range is past keeping and that are still there.
        ahead: from now to where the partitions made ahead end.
    """

    made: tuple[str, ...]
    dropped: tuple[str, ...]
    deleted: int
    overdue: int
    ahead: timedelta


class InboxKeeper:
    """Keeps the partitions of the inbox of one database.

    Args:
        engine: the database.
        group: the consumer group beside which it runs; a label of its metrics.
        metrics: `outbox_inbox_ahead_seconds` and `outbox_inbox_overdue_partitions` are set here.
        schema: where the inbox lives.
        settings: see `KeeperSettings`.
    """

    def __init__(
        self,
        engine: AsyncEngine,
        group: str,
        metrics: ConsumerMetrics,
        *,
        schema: str | None = DEFAULT_SCHEMA,
        settings: KeeperSettings | None = None,
    ) -> None:
        self._engine = engine
        self._group = group
        self._metrics = metrics
        self._settings = settings or KeeperSettings()
        self._table = PartitionedTable(schema, "inbox", BY_UUID7)

    async def run(self, stop: asyncio.Event) -> None:
        """Run `once` every `interval_seconds` until `stop`, also while the database is away."""
        while not stop.is_set():
            try:
                await self.once()
            except _TRANSIENT as error:
                _log.warning("inbox of %s not looked after (%s)", self._group, type(error).__name__)
            with suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), self._settings.interval_seconds)

    async def once(self, now: datetime | None = None) -> Kept:
        """Make what is missing and drop what is past keeping; `now` is the database's by default.

        Raises:
            DBAPIError, OSError, TimeoutError: the database is away or refused; safe to repeat.
        """
        now = now or await self._now()
        before = {one.name for one in await partitions(self._engine, self._table)}
        outcomes = await make_ahead(self._engine, self._table, now, self._settings.months_ahead)
        for name, outcome in outcomes.items():
            if outcome is not Outcome.DONE:
                _log.info("inbox of %s: %s is missing (%s)", self._group, name, outcome.value)
        dropped = await self._drop_old(now)
        deleted = await self._delete_from_default(now)
        present = await partitions(self._engine, self._table)
        kept = Kept(
            made=tuple(sorted({one.name for one in present} - before)),
            dropped=dropped,
            deleted=deleted,
            overdue=len(older(present, now - self._settings.keep)),
            ahead=_ahead(present, now),
        )
        self._tell(kept)
        return kept

    async def _drop_old(self, now: datetime) -> tuple[str, ...]:
        limit = now - self._settings.keep

        def may_drop(connection: Connection, partition: Partition) -> bool:
            name = for_text(qualified(partition.schema, partition.name))
            newer = text(f"SELECT EXISTS (SELECT FROM {name} WHERE handled_at > :limit)")  # noqa: S608 - a name of the catalog
            return not connection.scalar(newer, {"limit": limit})

        dropped: list[str] = []
        for partition in older(await partitions(self._engine, self._table), limit):
            outcome = await drop(self._engine, self._table, partition, may_drop)
            if outcome is Outcome.DONE:
                dropped.append(partition.name)
                _log.info("inbox of %s: dropped %s", self._group, partition.name)
            else:
                name, why = partition.name, outcome.value
                _log.info("inbox of %s: %s stays for now (%s)", self._group, name, why)
        return tuple(dropped)

    async def _delete_from_default(self, now: datetime) -> int:
        default = default_of(await partitions(self._engine, self._table))
        if default is None:
            return 0
        name = for_text(qualified(default.schema, default.name))
        delete = text(
            f"DELETE FROM {name} WHERE ctid = ANY (ARRAY(SELECT ctid FROM {name} "  # noqa: S608 - likewise
            "WHERE handled_at <= :limit LIMIT :most FOR UPDATE SKIP LOCKED))"
        )
        values = {"limit": now - self._settings.keep, "most": self._settings.most_deleted}
        deleted = 0
        while True:
            async with self._engine.begin() as connection:
                count = (await connection.execute(delete, values)).rowcount
            deleted += count
            if count < self._settings.most_deleted:
                return deleted

    async def _now(self) -> datetime:
        async with self._engine.connect() as connection:
            found: datetime = (await connection.execute(text("SELECT now()"))).scalar_one()
        return found

    def _tell(self, kept: Kept) -> None:
        self._metrics.inbox_ahead_seconds.labels(group=self._group).set(kept.ahead.total_seconds())
        self._metrics.inbox_overdue_partitions.labels(group=self._group).set(kept.overdue)


def _ahead(present: list[Partition], now: datetime) -> timedelta:
    """Give how long from `now` on every moment has a partition of its own; zero if none has."""
    reached = now
    for span in spans_of(present):
        if span.start <= reached < span.end:
            reached = span.end
    return reached - now

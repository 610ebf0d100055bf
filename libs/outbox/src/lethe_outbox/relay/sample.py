"""Taking the gauges of an outbox, by the relay that owns its first lane."""

import asyncio
import logging
import time
from collections.abc import Mapping
from datetime import datetime
from typing import Final

from prometheus_client import Gauge
from sqlalchemy import NullPool, make_url
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from lethe_outbox.metrics import RelayMetrics
from lethe_outbox.operations.measuring import Figures, figures
from lethe_outbox.operations.requeuing import OutboxStatus, status
from lethe_outbox.relay.lane import Lane
from lethe_outbox.relay.session import options_of
from lethe_outbox.relay.settings import RelaySettings

_STATEMENT_MILLISECONDS: Final = 5000
_SPARING: Final = 10.0
"""The next sample begins so many times later as one took: counting slows no large backlog down."""
_MOST_SPARED: Final = 100.0
"""Seconds between two samples, at most. What takes over ten seconds, by a limit of five for each
statement, is no counting: the relay was frozen, or the database away."""
_STATUSES: Final = ("pending", "sent", "dead_lettered", "dlt_failed")
_NOT_KNOWN: Final = float("nan")
_log = logging.getLogger(__name__)


class Sampler:
    """Takes what can be counted of an outbox; what is not known is NaN, never 0.

    Relays that do not own the first lane say nothing, so that nothing is counted twice.
    """

    def __init__(
        self,
        outbox: str,
        dsn: str,
        schema: str | None,
        metrics: RelayMetrics,
        settings: RelaySettings,
    ) -> None:
        self._outbox = outbox
        self._schema = schema
        self._metrics = metrics
        self._settings = settings
        self._writers: dict[str, datetime] = {}
        self._engine = engine_for(dsn, f"{outbox}-sample", _STATEMENT_MILLISECONDS)
        self._gauges: dict[str, Gauge] = {
            "oldest": metrics.oldest_pending_seconds,
            "size": metrics.size_bytes,
            "dead_tuples": metrics.dead_tuples,
            "default_rows": metrics.default_rows,
            "overdue": metrics.overdue_partitions,
            "janitor": metrics.janitor_timestamp_seconds,
            "writer": metrics.writer_open_seconds,
        }

    async def run(self, lanes: Mapping[int, Lane]) -> None:
        """Sample for ever, while lane 0 is among the lanes owned: a tenth of the time at most."""
        sampling, due = False, 0.0
        try:
            while True:
                began = time.monotonic()
                if 0 not in lanes:
                    if sampling:
                        self._forget()
                    sampling = False
                elif not sampling or began >= due:
                    sampling = True
                    await self._sample()
                    took = time.monotonic() - began
                    spared = min(took * _SPARING, _MOST_SPARED)
                    due = began + max(self._settings.sample_seconds, spared)
                await asyncio.sleep(min(self._settings.sample_seconds, 1))
        finally:
            if sampling:
                self._forget()

    async def _sample(self) -> None:
        rows: dict[str, float] = dict.fromkeys(_STATUSES, _NOT_KNOWN)
        values: dict[str, float] = dict.fromkeys(self._gauges, _NOT_KNOWN)
        try:
            found = await status(self._engine, self._schema)
            rows |= _rows(found)
            values["oldest"] = found.oldest_pending_seconds
            size = await figures(
                self._engine, self._schema, retention_seconds=self._settings.retention_seconds
            )
            rows["sent"] = _sent(found, size)
            values |= self._values(size)
        except (SQLAlchemyError, OSError, ValueError) as error:
            _log.warning("the outbox could not be sampled (%s)", type(error).__name__)
        else:
            stamp = found.taken_at.timestamp()
            self._metrics.sample_timestamp_seconds.labels(self._outbox).set(stamp)
        for name, count in rows.items():
            self._metrics.rows.labels(self._outbox, name).set(count)
        for name, value in values.items():
            self._gauges[name].labels(self._outbox).set(value)

    def _values(self, found: Figures) -> dict[str, float]:
        return {
            "size": found.size_bytes,
            "dead_tuples": found.dead_tuples,
            "default_rows": found.default_rows,
            "overdue": found.overdue_partitions,
            # Not noted means never, which is known.
            "janitor": 0 if found.janitor_at is None else found.janitor_at.timestamp(),
            "writer": self._longest_open(found),
        }

    def _longest_open(self, found: Figures) -> float:
        """Give the age of the oldest open writer; its least age where this role may not know it."""
        self._writers = {
            writer: since or self._writers.get(writer, found.taken_at)
            for writer, since in found.writers.items()
        }
        oldest = min(self._writers.values(), default=found.taken_at)
        return max(0.0, (found.taken_at - oldest).total_seconds())

    def _forget(self) -> None:
        for name in _STATUSES:
            self._metrics.rows.remove(self._outbox, name)
        for gauge in (*self._gauges.values(), self._metrics.sample_timestamp_seconds):
            gauge.remove(self._outbox)


def engine_for(dsn: str, application_name: str, statement_milliseconds: int) -> AsyncEngine:
    """Make an engine that opens a connection for each piece of work and keeps none."""
    return create_async_engine(
        dsn,
        poolclass=NullPool,
        hide_parameters=True,
        connect_args={
            "application_name": application_name[:63],
            "connect_timeout": 5,
            # Behind a pooler in transaction mode nothing prepared is found again.
            "prepare_threshold": None,
            "options": options_of(make_url(dsn), statement_milliseconds),
        },
    )


def _rows(found: OutboxStatus) -> Mapping[str, float]:
    return {
        "pending": found.pending,
        "dead_lettered": found.dead_lettered,
        "dlt_failed": found.dlt_failed,
    }


def _sent(found: OutboxStatus, size: Figures) -> float:
    """Give the other rows, as far as the database's statistics tell how many there are."""
    if size.rows is None:
        return _NOT_KNOWN
    return max(0, size.rows - found.pending - found.dead_lettered - found.dlt_failed)

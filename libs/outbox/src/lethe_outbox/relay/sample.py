"""Taking the gauges of an outbox, by the relay that owns its first lane."""

import asyncio
import logging
from collections.abc import Mapping
from typing import Final

from sqlalchemy import NullPool
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import create_async_engine

from lethe_outbox.metrics import RelayMetrics
from lethe_outbox.operations import OutboxStatus, status
from lethe_outbox.relay.lane import Lane

_STATEMENT_MILLISECONDS: Final = 5000
_STATUSES: Final = ("pending", "dead_lettered", "dlt_failed")
_NOT_KNOWN: Final = float("nan")
_log = logging.getLogger(__name__)


class Sampler:
    """Takes rows by status and the age of the oldest; what is not known is NaN, never 0."""

    def __init__(
        self, outbox: str, dsn: str, schema: str | None, metrics: RelayMetrics, seconds: float
    ) -> None:
        self._outbox = outbox
        self._schema = schema
        self._metrics = metrics
        self._seconds = seconds
        self._engine = create_async_engine(
            dsn,
            poolclass=NullPool,
            hide_parameters=True,
            connect_args={
                "application_name": f"{outbox}-sample"[:63],
                "connect_timeout": 5,
                "options": f"-c statement_timeout={_STATEMENT_MILLISECONDS} -c timezone=UTC",
            },
        )

    async def run(self, lanes: Mapping[int, Lane]) -> None:
        """Sample for ever, while lane 0 is among the lanes owned."""
        sampling = False
        while True:
            if 0 in lanes:
                sampling = True
                await self._sample()
            elif sampling:
                sampling = False
                self._forget()
            await asyncio.sleep(self._seconds if sampling else min(self._seconds, 1))

    async def _sample(self) -> None:
        try:
            found = await status(self._engine, self._schema)
        except (SQLAlchemyError, OSError) as error:
            _log.warning("the outbox could not be sampled (%s)", type(error).__name__)
            self._set(dict.fromkeys(_STATUSES, _NOT_KNOWN), _NOT_KNOWN)
            return
        self._set(_rows(found), found.oldest_pending_seconds)
        stamp = found.taken_at.timestamp()
        self._metrics.sample_timestamp_seconds.labels(self._outbox).set(stamp)

    def _set(self, rows: Mapping[str, float], oldest: float) -> None:
        for name, count in rows.items():
            self._metrics.rows.labels(self._outbox, name).set(count)
        self._metrics.oldest_pending_seconds.labels(self._outbox).set(oldest)

    def _forget(self) -> None:
        for name in _STATUSES:
            self._metrics.rows.remove(self._outbox, name)
        self._metrics.oldest_pending_seconds.remove(self._outbox)


def _rows(found: OutboxStatus) -> Mapping[str, float]:
    return {
        "pending": found.pending,
        "dead_lettered": found.dead_lettered,
        "dlt_failed": found.dlt_failed,
    }

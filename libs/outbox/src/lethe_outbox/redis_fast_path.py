"""The inbox's fast path on Redis (extra `redis`)."""

import asyncio
from collections.abc import Collection, Sequence
from datetime import timedelta
from typing import Final
from uuid import UUID

from redis.asyncio import Redis
from redis.exceptions import RedisError

from lethe_outbox.metrics import ConsumerMetrics

_FAILURES: Final = (RedisError, OSError, TimeoutError)


class RedisFastPath:
    """Remembers handled events in Redis for `keep`; an answer is waited for `patience` at most.

    Args:
        url: the Redis server.
        metrics: counts every time Redis could not be asked or told.
        keep: how long an event is remembered; it is forgotten sooner when Redis needs the room.
        patience: longer than this Redis counts as away, for this call.
        rest: how long Redis is left alone after a failure, so that one which hangs costs
            `patience` now and then and not with every batch.
        namespace: keeps apart what different databases have handled.
    """

    def __init__(
        self,
        url: str,
        metrics: ConsumerMetrics,
        *,
        keep: timedelta = timedelta(days=1),
        patience: timedelta = timedelta(milliseconds=250),
        rest: timedelta = timedelta(seconds=1),
        namespace: str = "inbox",
    ) -> None:
        seconds = patience.total_seconds()
        self._redis: Redis = Redis.from_url(
            url, socket_timeout=seconds, socket_connect_timeout=seconds
        )
        self._metrics = metrics
        self._keep = keep
        self._patience = seconds
        self._rest = rest.total_seconds()
        self._rested_at = 0.0
        self._namespace = namespace

    async def known(self, consumer: str, event_ids: Sequence[UUID]) -> frozenset[UUID]:
        """Return those of `event_ids` that Redis remembers; none when it cannot be asked."""
        if self._resting():
            return frozenset()
        try:
            async with asyncio.timeout(self._patience):
                found = await self._redis.mget([self._key(consumer, one) for one in event_ids])
        except _FAILURES:
            self._failed(consumer)
            return frozenset()
        return frozenset(
            one for one, value in zip(event_ids, found, strict=True) if value is not None
        )

    async def mark(self, consumer: str, event_ids: Collection[UUID]) -> None:
        """Remember `event_ids`, if Redis can be told."""
        if self._resting():
            return
        try:
            async with asyncio.timeout(self._patience):
                pipeline = self._redis.pipeline(transaction=False)
                for one in event_ids:
                    pipeline.set(self._key(consumer, one), b"1", ex=self._keep)
                await pipeline.execute()
        except _FAILURES:
            self._failed(consumer)

    async def close(self) -> None:
        """Close the connections."""
        await self._redis.aclose()

    def _resting(self) -> bool:
        return asyncio.get_running_loop().time() < self._rested_at

    def _failed(self, consumer: str) -> None:
        self._metrics.fast_path_errors.labels(group=consumer).inc()
        self._rested_at = asyncio.get_running_loop().time() + self._rest

    def _key(self, consumer: str, event_id: UUID) -> str:
        return f"{self._namespace}:{consumer}:{event_id}"

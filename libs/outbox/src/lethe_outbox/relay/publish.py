"""Publishing one lane: one batch per partition flies while the next is built.

The next is handed over only after every row of the one before is delivered or its death is
committed, so the first appearance of a key's events is in their order whatever is refused between.
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from operator import itemgetter
from typing import Any, Final

from lethe_outbox import tracing
from lethe_outbox.errors import LetheOutboxError
from lethe_outbox.metrics import RelayMetrics
from lethe_outbox.relay.acknowledge import Acknowledger
from lethe_outbox.relay.batches import Batch, build, by_partition, by_topic
from lethe_outbox.relay.bury import Undertaker
from lethe_outbox.relay.lane import HEADERS_AT, Fetched, Lane, Row
from lethe_outbox.relay.producer import (
    BrokenError,
    Producer,
    RefusedError,
    TopicRefusedError,
    judge,
)
from lethe_outbox.relay.producers import Producers
from lethe_outbox.relay.settings import RelaySettings
from lethe_outbox.relay.storage import RelayStorage

_LARGE_BYTES: Final = 4 * 1024 * 1024
_MOST_ANSWERS: Final = 5
_LOADED_ROWS: Final = 256
_LOADED_BYTES: Final = 1024 * 1024
_payload: Final = itemgetter(5)
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Outlet:
    """What all lanes of a relay publish through.

    Attributes:
        producers: of the fast path.
        careful: not idempotent, for what was refused: another refusal leaves no hole behind.
        large: held while a large record flies, because a broker refuses a request as a whole when
            several of them come together.
        room: set whenever a lane takes a chunk, for whoever fetches.
    """

    outbox: str
    settings: RelaySettings
    metrics: RelayMetrics
    producers: Producers
    careful: Producers
    acknowledger: Acknowledger
    room: asyncio.Event
    large: asyncio.Lock


@dataclass(frozen=True, slots=True)
class _Flight:
    batch: Batch
    producer: Producer
    sent: "asyncio.Future[Any]"
    at: float


class _HeldBackError(LetheOutboxError):
    """A key of the lane is held back now; what was fetched of it must not be published."""


class LanePublisher:
    """Publishes the chunks of one lane, in order, until an empty chunk says that it is over."""

    def __init__(
        self, lane: Lane, outlet: Outlet, undertaker: Undertaker, storage: RelayStorage
    ) -> None:
        self._lane = lane
        self._outlet = outlet
        self._undertaker = undertaker
        self._storage = storage
        self._encoded = outlet.metrics.seconds.labels(outlet.outbox, "encode")
        self._settings = outlet.settings
        self._flying: list[_Flight] = []
        self._history = outlet.acknowledger.history

    async def run(self) -> None:
        """Publish until an empty chunk comes.

        Cancelled, what is on its way may still arrive, and is then acknowledged; nothing leaves.

        Raises:
            LaneLostError: the lane belongs to another relay by now.
            psycopg.Error: the database went away where it had to be read, or a death committed.
            DatabaseReplacedError: it is another one than the rows came from.
        """
        try:
            while await self._take_one():
                pass
        finally:
            # Another relay may own the lane before the lease would have ended.
            self._lane.deadline = 0.0
            for flight in self._flying:
                flight.sent.add_done_callback(partial(self._arrived_late, flight))

    async def _take_one(self) -> bool:
        chunks = self._lane.chunks
        try:
            if chunks.empty():
                await self._land()
            rows = await chunks.get()
            self._outlet.room.set()
            if not rows:
                await self._land()
                return False
            try:
                async for loaded in self._loaded(rows):
                    await self._publish(loaded)
            finally:
                self._lane.sizes.popleft()
                self._outlet.room.set()
        except _HeldBackError:
            self._lane.reset(self._outlet.acknowledger.ids_of(self._lane))
            self._outlet.room.set()
        return True

    async def _loaded(self, rows: Sequence[Fetched]) -> AsyncIterator[Sequence[Fetched]]:
        """Give rows with their payloads, the large ones read a few at a time."""
        if all(map(_payload, rows)):
            yield rows
            return
        begin = 0
        while begin < len(rows):
            part = rows[begin : begin + _LOADED_ROWS]
            missing = [row[0] for row in part if row[5] is None]
            payloads = await self._storage.payloads(missing, _LOADED_BYTES) if missing else {}
            whole, seen = _filled(part, payloads)
            gone = {row[0] for row in part[:seen]} - {row[0] for row in whole}
            # Not pending any more, so somebody else has dealt with them.
            self._lane.acknowledged.extend(gone)
            begin += seen
            if whole:
                yield whole

    async def _publish(self, rows: Sequence[Fetched]) -> None:
        async for batches in self._batches(rows):
            await self._land()
            ready = [batch for batch in batches if batch.refused is None]
            for batch in ready:
                self._flying.append(await self._hand_over(batch))
            await self._split_all([batch for batch in batches if batch.refused is not None])

    async def _batches(self, rows: Sequence[Fetched]) -> AsyncIterator[list[Batch]]:
        groups: dict[tuple[str, int], Sequence[Fetched]] = {}
        for topic, of_topic in by_topic(rows).items():
            try:
                partitions = await self._partitions(self._outlet.producers, topic)
            except RefusedError as refused:
                yield [Batch(topic, 0, [row], refused=refused) for row in of_topic]
                continue
            for partition, of_partition in by_partition(
                of_topic, partitions, self._settings.lanes
            ).items():
                groups[topic, partition] = of_partition
        producer = await self._outlet.producers.current()
        building = build(producer, groups, self._settings.largest_record_bytes)
        while True:
            began = time.monotonic()
            batches = next(building, None)
            self._encoded.observe(time.monotonic() - began)
            if batches is None:
                return
            yield batches

    async def _partitions(self, pool: Producers, topic: str) -> int:
        while True:
            producer = await pool.current()
            try:
                return await producer.partitions(topic)
            except BrokenError as broken:
                pool.discard(producer, broken.error_class)

    async def _hand_over(self, batch: Batch) -> _Flight:
        producer = await self._outlet.producers.current()
        await self._lease()
        sent: asyncio.Future[Any]
        try:
            sent = await producer.hand_over(batch.kafka, batch.topic, batch.partition, self._holds)
        except BrokenError as broken:
            sent = asyncio.get_running_loop().create_future()
            sent.set_exception(broken)
        sent.add_done_callback(_seen)
        return _Flight(batch, producer, sent, time.monotonic())

    async def _land(self) -> None:
        """Wait for everything that flies; what did not arrive is sent again or buried."""
        refused: list[Batch] = []
        while self._flying:
            flight = self._flying[0]
            try:
                await self._arrive(flight, self._outlet.producers)
            except RefusedError:
                self._outlet.producers.retire(flight.producer)
                refused.append(flight.batch)
            except BrokenError as broken:
                self._outlet.producers.give_up(flight.producer, broken)
                try:
                    await self._deliver(self._outlet.producers, flight.batch, apart=broken.late)
                except TopicRefusedError as topic_refused:
                    refused.append(replace(flight.batch, refused=topic_refused))
                except RefusedError:
                    refused.append(flight.batch)
            self._flying.pop(0)
        await self._split_all(refused)

    async def _arrive(self, flight: _Flight, pool: Producers) -> None:
        left = flight.at + self._settings.publish_seconds - time.monotonic()
        if not flight.sent.done():
            await asyncio.wait({flight.sent}, timeout=max(0.0, left))
        if not flight.sent.done():
            flight.producer.give_up(flight.batch.kafka)
            raise BrokenError("TimeoutError", late=True)
        if flight.sent.cancelled():
            raise BrokenError("CancelledError")
        if (error := flight.sent.exception()) is not None:
            raise judge(error) from error
        pool.succeeded()
        self._arrived(flight.batch, flight.at)

    def _arrived(self, batch: Batch, since: float) -> None:
        outlet = self._outlet
        outlet.acknowledger.delivered(self._lane, batch.rows)
        outlet.metrics.count_published(outlet.outbox, batch.topic, len(batch.rows))
        seconds = time.monotonic() - since
        outlet.metrics.publish_seconds.labels(outlet.outbox).observe(seconds)
        tracing.published(batch.topic, batch.partition, batch.rows, HEADERS_AT, seconds)

    def _arrived_late(self, flight: _Flight, sent: "asyncio.Future[Any]") -> None:
        same = self._history == self._outlet.acknowledger.history
        if same and not sent.cancelled() and sent.exception() is None:
            self._arrived(flight.batch, flight.at)

    async def _deliver(self, pool: Producers, batch: Batch, *, apart: bool = False) -> None:
        """Send rows of one topic until a broker has them.

        What is not taken in time goes on by producers of its own, until it is dealt with: neither
        is it in the way of other lanes, nor are they disturbed when it is tried again.

        Args:
            pool: whose producer is used first.
            batch: what is sent.
            apart: whether that was tried already.

        Raises:
            TopicRefusedError: it will take nothing for that topic.
            RefusedError: it will not take them, at least not together.
        """
        answers = 0
        try:
            with pool.apart() as own:
                while True:
                    if apart and not self._lane.apart:
                        self._lane.apart = True
                        self._outlet.room.set()
                    broken = await self._try(own if apart else pool, batch)
                    if broken is None:
                        return
                    apart = apart or broken.late
                    answers += broken.answered
                    if answers >= _MOST_ANSWERS:
                        raise RefusedError("rejected", broken.error_class) from broken
        finally:
            self._lane.apart = False
            self._outlet.room.set()

    async def _try(self, pool: Producers, batch: Batch) -> BrokenError | None:
        """Send rows once; gives why it is not known whether a broker has them, if it is not."""
        # Asked each time: the topic may be another one than before, or gone.
        partitions = await self._partitions(pool, batch.topic)
        producer = await pool.current()
        try:
            async with self._turn(pool, batch):
                rows = by_partition(batch.rows, partitions)
                await self._deliver_by(pool, producer, batch.topic, rows)
        except RefusedError:
            if pool is not self._outlet.careful:
                pool.retire(producer)
            raise
        except BrokenError as broken:
            pool.give_up(producer, broken)
            return broken
        return None

    def _turn(self, pool: Producers, batch: Batch) -> AbstractAsyncContextManager[object]:
        large = sum(len(row[5]) for row in batch.rows) >= _LARGE_BYTES
        return self._outlet.large if large and pool is self._outlet.careful else nullcontext()

    async def _deliver_by(
        self,
        pool: Producers,
        producer: Producer,
        topic: str,
        rows: Mapping[int, Sequence[Fetched]],
    ) -> None:
        groups = {(topic, partition): of_partition for partition, of_partition in rows.items()}
        for batches in build(producer, groups, self._settings.largest_record_bytes):
            for batch in batches:
                if batch.refused is not None:
                    raise batch.refused
                await self._lease()
                sent = await producer.hand_over(
                    batch.kafka, batch.topic, batch.partition, self._holds
                )
                sent.add_done_callback(_seen)
                await self._arrive(_Flight(batch, producer, sent, time.monotonic()), pool)

    async def _split_all(self, refused: Sequence[Batch]) -> None:
        held: set[tuple[str, bytes]] = set()
        for batch in refused:
            await self._split(batch, held)
        if held:
            raise _HeldBackError

    async def _split(self, batch: Batch, held: set[tuple[str, bytes]]) -> None:
        """Send what was refused together in ever smaller parts; what is refused alone is buried.

        Args:
            batch: what was refused.
            held: topic and key of what is held back; added to, and not sent.
        """
        topic = batch.topic
        middle = len(batch.rows) // 2
        parts = deque([batch.rows[:middle], batch.rows[middle:]])
        while parts:
            rows = [row for row in parts.popleft() if (topic, row[4]) not in held]
            if not rows:
                continue
            part = Batch(topic, batch.partition, rows, refused=batch.refused)
            refusal = await self._refusal(part)
            if refusal is not None and len(rows) > 1:
                middle = len(rows) // 2
                parts.extendleft([rows[middle:], rows[:middle]])
            elif refusal is not None:
                dead = Row(*rows[0])
                if await self._undertaker.bury(self._lane, dead, batch.partition, refusal):
                    held.add((topic, dead.key))

    async def _refusal(self, batch: Batch) -> RefusedError | None:
        """Send rows unless it is known that they are refused; gives why they are, if they are."""
        if batch.refused is not None:
            return batch.refused
        try:
            await self._deliver(self._outlet.careful, batch)
        except RefusedError as refused:
            return refused
        return None

    def _holds(self) -> bool:
        """Say whether the lease surely holds: two relays at once could decide otherwise."""
        return self._lane.left > 0

    async def _lease(self) -> None:
        """Wait until the lease surely outlives one publish; a lane that is lost ends this task."""
        lane = self._lane
        while lane.left < self._settings.publish_seconds:
            lane.renewed.clear()
            await lane.renewed.wait()


def _filled(
    rows: Sequence[Fetched], payloads: Mapping[int, tuple[bytes, bytes]]
) -> tuple[list[Fetched], int]:
    """Put what was loaded into rows until one has to wait; gives those and how many were seen.

    Args:
        rows: in the order of their ids.
        payloads: with headers, of the first ones that lack theirs, without those that are not
            pending any more.
    """
    furthest = max(payloads, default=None)
    whole: list[Fetched] = []
    for seen, row in enumerate(rows):
        loaded = row[5:] if row[5] is not None else payloads.get(row[0])
        if loaded is not None:
            whole.append((*row[:5], *loaded))
        elif furthest is not None and row[0] > furthest:
            return whole, seen
    return whole, len(rows)


def _seen(sent: "asyncio.Future[Any]") -> None:
    """Look at the error, so that nobody is told that nobody did."""
    if not sent.cancelled():
        sent.exception()

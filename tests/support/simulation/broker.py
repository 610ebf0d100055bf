"""A model of what relays need of Kafka and of aiokafka's producer.

A request may arrive long after whoever sent it gave it up, its answer may be lost, and after what
an idempotent producer did not send, or had refused, it can send nothing more to that partition.
"""

import asyncio
from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from aiokafka.errors import (
    KafkaConnectionError,
    KafkaError,
    KafkaTimeoutError,
    MessageSizeTooLargeError,
    OutOfOrderSequenceNumber,
)

from lethe_outbox.relay import producer as real
from tests.support.simulation.database import POISON
from tests.support.simulation.world import Loop, World

_LOST_ANSWERS = 0.004
_CANCELLED = 0.3
_SIZES = (1, 3, 6, 20)

Place = tuple[str, int]


@dataclass
class Broker:
    """Topics as they are in the end; until it is back, it or a partition takes nothing."""

    world: World
    partitions: int
    records: dict[Place, list[tuple[str, bytes]]] = field(default_factory=lambda: defaultdict(list))
    away_until: float = 0.0
    partition_away_until: dict[int, float] = field(default_factory=lambda: defaultdict(float))

    def append(self, place: Place, rows: Sequence[tuple[bytes, bytes]]) -> KafkaError | None:
        """Take a batch as a whole, or refuse it as a whole."""
        if not place[0].endswith(".DLT") and any(POISON in value for _, value in rows):
            return MessageSizeTooLargeError()
        self.records[place] += [(key.decode(), value) for key, value in rows]
        return None


@dataclass
class Builder:
    """A batch that is full after some records; what is large is alone."""

    most: int
    rows: list[tuple[bytes, bytes]] = field(default_factory=list)

    def append(self, *, key: bytes, value: bytes, **_: Any) -> object | None:
        large = POISON in value or any(POISON in other for _, other in self.rows)
        if len(self.rows) >= self.most or (self.rows and large):
            return None
        self.rows.append((key, value))
        return self.rows

    def close(self) -> None:
        pass

    def size(self) -> int:
        return len(self.rows)


@dataclass
class _Sent:
    batch: Builder
    answer: "asyncio.Future[None]"
    may_leave: Callable[[], bool]


class Producer:
    """The interface of the relay's `Producer` on the model: one request per partition flies."""

    def __init__(self, broker: Broker, loop: Loop, *, idempotent: bool) -> None:
        self._broker = broker
        self._world = broker.world
        self._loop = loop
        self._idempotent = idempotent
        self._waiting: dict[Place, deque[_Sent]] = defaultdict(deque)
        self._flying: set[Place] = set()
        self._torn: set[Place] = set()
        self._answers: set[asyncio.Future[None]] = set()
        self._closed = False

    def batch(self) -> Builder:
        return Builder(self._world.random.choice(_SIZES))

    async def partitions(self, topic: str) -> int:
        del topic
        return self._broker.partitions

    async def hand_over(
        self, batch: Builder, topic: str, partition: int, may_leave: Callable[[], bool]
    ) -> "asyncio.Future[None]":
        await asyncio.sleep(self._world.soon() / 2)
        if self._closed:
            raise real.BrokenError("ProducerClosed")
        answer: asyncio.Future[None] = self._loop.create_future()
        self._answers.add(answer)
        self._waiting[topic, partition].append(_Sent(batch, answer, may_leave))
        self._next((topic, partition))
        return asyncio.shield(answer)

    def give_up(self, batch: Builder) -> None:
        for waiting in self._waiting.values():
            for sent in waiting:
                if sent.batch is batch:
                    sent.may_leave = _never

    async def send(self, topic: str, key: bytes, value: bytes, headers: object) -> None:
        del headers
        await (await self.hand_over(Builder(1, [(key, value)]), topic, 0, lambda: True))

    async def stop(self) -> None:
        if self._answers:
            await asyncio.wait(set(self._answers), timeout=3)
        await self.abort()

    async def abort(self) -> None:
        self._closed = True
        await asyncio.sleep(self._world.soon())
        for answer in self._answers:
            if self._world.random.random() < _CANCELLED:
                answer.cancel()
            _fail(answer, KafkaConnectionError())

    def _next(self, place: Place) -> None:
        if self._waiting[place] and place not in self._flying and not self._closed:
            self._flying.add(place)
            self._loop.call_later(self._world.soon() / 2, self._send, place)

    def _send(self, place: Place) -> None:
        sent = self._waiting[place].popleft()
        if not sent.may_leave():
            self._torn.add(place)
            _fail(sent.answer, KafkaTimeoutError())
            self._landed(place)
            return
        torn = self._idempotent and place in self._torn
        self._world.later(self._world.soon(), self._arrive, place, sent, torn)

    def _arrive(self, place: Place, sent: _Sent, torn: bool) -> None:  # noqa: FBT001 - a callback
        broker = self._broker
        away = max(broker.away_until, broker.partition_away_until[place[1]]) - self._world.now
        if away > 0:
            self._world.later(away + self._world.soon(), self._arrive, place, sent, torn)
            return
        error = OutOfOrderSequenceNumber() if torn else self._broker.append(place, sent.batch.rows)
        if self._world.random.random() > _LOST_ANSWERS:
            self._world.later(self._world.soon(), self._loop.tell, self._hear, place, sent, error)

    def _hear(self, place: Place, sent: _Sent, error: KafkaError | None) -> None:
        if error is None:
            if not sent.answer.done():
                sent.answer.set_result(None)
        else:
            self._torn.add(place)
            _fail(sent.answer, error)
        self._landed(place)

    def _landed(self, place: Place) -> None:
        self._flying.discard(place)
        self._next(place)


def _never() -> bool:
    return False


def _fail(answer: "asyncio.Future[None]", error: KafkaError) -> None:
    if not answer.done():
        answer.set_exception(error)
        answer.exception()

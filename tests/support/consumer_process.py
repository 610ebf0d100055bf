"""A consumer as a process, to be killed and frozen."""

import asyncio
import logging
import signal
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from aiokafka import AIOKafkaConsumer
from prometheus_client import CollectorRegistry
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine

from lethe_outbox import ConsumerMetrics, ConsumerRunner, ConsumerSettings, Inbox, Record
from lethe_outbox.consumer.quarantine import DeadRecord
from lethe_outbox.errors import PoisonError
from lethe_outbox.kafka.dead_letter_topic import DeadLetterProducer
from lethe_outbox.redis_fast_path import RedisFastPath
from tests.support.fail_points import FailPoint, arm
from tests.support.forked import Forked


class Handler:
    """Leaves a row for each event, in the transaction it is given; poison is refused."""

    async def handle(self, connection: AsyncConnection, records: Sequence[Record]) -> None:
        if any(record.value == b"poison" for record in records):
            raise PoisonError("of_the_test")
        await connection.execute(
            text("INSERT INTO effect (event_id, value) VALUES (:id, :group)"),
            [{"id": one.event_id, "group": GROUP[0]} for one in records],
        )

    async def told(self, connection: AsyncConnection, dead: DeadRecord) -> None:
        await connection.execute(
            text("INSERT INTO told (event_id, value) VALUES (:id, :group)"),
            {"id": dead.event_id, "group": GROUP[0]},
        )


GROUP: Final = [""]

STEPS: Final[dict[str, tuple[type, str]]] = {
    "note in the inbox": (Inbox, "handled"),
    "handle": (Handler, "handle"),
    "mark in Redis": (RedisFastPath, "mark"),
    "tell of a dead letter": (Handler, "told"),
    "send a dead letter": (DeadLetterProducer, "send"),
    "commit offsets": (AIOKafkaConsumer, "commit"),
}
"""Every step that changes something outside the process. Before the mark is after the commit."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a process consumes, and where."""

    url: str
    kafka: str
    redis_url: str
    group: str
    topic: str
    session_seconds: float = 6.0
    idle_transaction_seconds: int = 60


def start(wanted: Wanted, log: Path, points: Iterable[FailPoint] = ()) -> Forked:
    """Start one; what it logs goes to `log`. At `points` it kills or freezes itself."""
    return Forked(_run, wanted, tuple(points), out=log)


def _run(wanted: Wanted, points: Iterable[FailPoint]) -> None:
    for point in points:
        arm(point, STEPS)
    asyncio.run(_consumer(wanted))


async def _consumer(wanted: Wanted) -> None:
    logging.basicConfig(level=logging.INFO)
    GROUP[0] = wanted.group
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    limit = f"-c idle_in_transaction_session_timeout={wanted.idle_transaction_seconds}s"
    engine = create_async_engine(wanted.url, connect_args={"options": limit})
    metrics, handler = ConsumerMetrics(CollectorRegistry()), Handler()
    fast_path = RedisFastPath(wanted.redis_url, metrics)
    runner = ConsumerRunner(
        engine,
        wanted.kafka,
        wanted.group,
        [wanted.topic],
        handler.handle,
        Inbox(fast_path=fast_path),
        metrics,
        settings=ConsumerSettings(
            batch_records=10,
            poll_seconds=0.05,
            first_pause=0.02,
            longest_pause=0.2,
            session_seconds=wanted.session_seconds,
        ),
        on_dead_letter=handler.told,
    )
    await runner.run(stop)
    await fast_path.close()
    await engine.dispose()

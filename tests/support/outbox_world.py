"""An outbox on real servers: tables, rows, records, and relays that run in the test's own loop."""

import asyncio
from collections.abc import AsyncIterator, Collection, Iterable, Sequence
from contextlib import asynccontextmanager

from prometheus_client import CollectorRegistry
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncEngine

from lethe_outbox import Message, Outbox
from lethe_outbox.kafka.brokers import Bootstrap
from lethe_outbox.message import bucket_of
from lethe_outbox.metrics import RelayMetrics
from lethe_outbox.migrations import create_outbox, create_outbox_upkeep
from lethe_outbox.relay import Relay, RelaySettings
from lethe_outbox.schema import Status
from tests.support import databases
from tests.support.outbox_checker import Buried, Effect, Published, Stored, judge, published
from tests.support.topics import read_raw
from tests.support.waiting import until

OUTBOX = Outbox()
NAME = "tested"
QUICK = RelaySettings(sample_seconds=0.2, pause_max_seconds=0.5, unknown_topic_seconds=1)


def lay(database_url: str) -> None:
    """Create the tables."""
    databases.lay(database_url, create_outbox, create_outbox_upkeep)


def key_in_lane(lane: int, number: int = 0, lanes: int = 16) -> str:
    """Make the `number`-th key of a lane."""
    found = (key for key in map("key-{}".format, range(100_000)) if bucket_of(key) % lanes == lane)
    for _ in range(number):
        next(found)
    return next(found)


async def append(engine: AsyncEngine, *messages: Message) -> None:
    async with engine.begin() as connection:
        await OUTBOX.append_async(connection, *messages)


async def append_apart(engine: AsyncEngine, *messages: Message) -> None:
    """Append without locking whole buckets, which an open transaction of another key would stop."""
    async with engine.begin() as connection:
        for message in messages:
            await OUTBOX.append_async(connection, message)


def events(topic: str, keys: Iterable[str], each: int, *, size: int = 0) -> list[Message]:
    """Make `each` rounds over `keys`, the payload telling key and round."""
    listed = list(keys)
    return [
        Message(topic, key, f"{key}:{number}".encode() + b"x" * size)
        for number in range(each)
        for key in listed
    ]


async def stored(engine: AsyncEngine) -> list[Stored]:
    table = OUTBOX.outbox
    columns = (
        *(table.c.id, table.c.event_id, table.c.topic, table.c.key, table.c.status),
        *(table.c.sent_at.is_not(None), table.c.attempts, table.c.dlt_attempts),
        table.c.last_error,
    )
    async with engine.connect() as connection:
        rows = (await connection.execute(select(*columns).order_by(table.c.id))).all()
    return [Stored(row[0], row[1], row[2], row[3], Status(row[4]), *row[5:]) for row in rows]


async def buried(engine: AsyncEngine) -> list[Buried]:
    table = OUTBOX.dead
    columns = (
        *(table.c.id, table.c.event_id, table.c.topic, table.c.key, table.c.status),
        table.c.held,
    )
    async with engine.connect() as connection:
        rows = (await connection.execute(select(*columns))).all()
    return [Buried(row[0], row[1], row[2], row[3], Status(row[4]), row[5]) for row in rows]


async def problems(
    engine: AsyncEngine,
    bootstrap: str,
    topics: Sequence[str],
    effects: Sequence[Effect] | None = None,
    *,
    reordered: Collection[int] = (),
) -> list[str]:
    """Judge the outbox as it stands now, by its rows, its dead and every record of `topics`."""
    return judge(
        await stored(engine),
        await read_topics(bootstrap, topics),
        effects,
        buried=await buried(engine),
        reordered=reordered,
    )


async def statuses(engine: AsyncEngine) -> list[Status]:
    return [row.status for row in await stored(engine)]


async def none_pending(engine: AsyncEngine) -> bool:
    table = OUTBOX.outbox
    async with engine.connect() as connection:
        found = await connection.execute(select(table.c.id).where(table.c.status == 0).limit(1))
        return found.first() is None


async def drained(engine: AsyncEngine, within: float = 30) -> None:
    await until(lambda: none_pending(engine), within=within, what="an outbox without pending rows")


async def read_topics(bootstrap: str, topics: Sequence[str]) -> list[Published]:
    """Read every record of topics at this moment."""
    return published(await read_raw(bootstrap, topics))


class Running:
    """A relay in a task of this loop."""

    def __init__(
        self, database_url: str, bootstrap: Bootstrap, settings: RelaySettings = QUICK
    ) -> None:
        self.registry = CollectorRegistry()
        self.states: list[tuple[str, str, str]] = []
        self.stop = asyncio.Event()
        self.relay = Relay(
            NAME,
            database_url,
            bootstrap,
            settings=settings,
            metrics=RelayMetrics(self.registry),
            on_state=lambda *state: self.states.append(state),
        )
        self.task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self.task = asyncio.create_task(self.relay.run(self.stop))

    async def end(self) -> None:
        self.stop.set()
        if self.task is not None:
            await asyncio.wait_for(self.task, 30)

    def value(self, metric: str, **labels: str) -> float | None:
        return self.registry.get_sample_value(metric, {"outbox": NAME, **labels})

    async def reach(self, metric: str, goal: float, *, within: float = 20, **labels: str) -> None:
        """Wait until a counter is at least `goal`."""
        await until(
            lambda: (self.value(metric, **labels) or 0) >= goal,
            within=within,
            what=f"{metric} >= {goal}",
        )


@asynccontextmanager
async def running(
    database_url: str, bootstrap: Bootstrap, settings: RelaySettings = QUICK
) -> AsyncIterator[Running]:
    """Run a relay; it drains at the end."""
    relay = Running(database_url, bootstrap, settings)
    relay.start()
    try:
        yield relay
    finally:
        await relay.end()

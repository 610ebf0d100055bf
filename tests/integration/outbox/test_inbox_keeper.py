"""The inbox's partitions: made ahead, and dropped when nothing in them can come again."""

import asyncio
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest
from prometheus_client import CollectorRegistry
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

from lethe_outbox import ConsumerMetrics, Inbox
from lethe_outbox.consumer.inbox_keeper import InboxKeeper, KeeperSettings, Kept
from lethe_outbox.partitions.monthly import first_uuid7
from tests.support.waiting import until

DAY = timedelta(days=1)
KEEP = 35 * DAY


class World:
    """An inbox and its keeper."""

    def __init__(self, engine: AsyncEngine) -> None:
        self.engine = engine
        self.registry = CollectorRegistry()
        self.keeper = InboxKeeper(
            engine,
            "group",
            ConsumerMetrics(self.registry),
            settings=KeeperSettings(keep=KEEP, most_deleted=2),
        )

    async def handled(self, event_id: UUID, at: datetime) -> None:
        async with self.engine.begin() as connection:
            await connection.execute(
                text("INSERT INTO lethe.inbox VALUES (:id, 'group', :at)"),
                {"id": event_id, "at": at},
            )

    async def rows(self) -> int:
        async with self.engine.connect() as connection:
            found = await connection.execute(text("SELECT count(*) FROM lethe.inbox"))
            return int(found.scalar_one())

    async def partitions(self) -> set[str]:
        async with self.engine.connect() as connection:
            found = await connection.execute(
                text("SELECT relid::text FROM pg_partition_tree('lethe.inbox') WHERE isleaf")
            )
            return {name.removeprefix("lethe.") for name in found.scalars()}

    def metric(self, name: str) -> float | None:
        return self.registry.get_sample_value(name, {"group": "group"})


@pytest.fixture
def world(engine: AsyncEngine) -> World:
    return World(engine)


def later(months: int) -> datetime:
    """The 15th, some months after this one."""
    now = datetime.now(UTC)
    number = now.year * 12 + now.month - 1 + months
    return datetime(number // 12, number % 12 + 1, 15, tzinfo=UTC)


def name_of(moment: datetime) -> str:
    return f"inbox_{moment:%Y_%m}"


async def test_partitions_are_made_ahead_of_the_months_of_the_migration(world: World) -> None:
    await world.keeper.once()
    then = later(3)
    assert name_of(then) not in await world.partitions()
    found = await world.keeper.once(then)
    assert name_of(later(5)) in found.made
    assert {name_of(later(n)) for n in (3, 4, 5)} <= await world.partitions()
    assert found.ahead > 60 * DAY
    assert world.metric("outbox_inbox_ahead_seconds") == found.ahead.total_seconds()
    assert (await world.keeper.once(then)).made == ()


async def test_a_partition_goes_when_its_newest_row_is_past_keeping_and_not_before(
    world: World,
) -> None:
    now = datetime.now(UTC)
    await world.keeper.once(now)
    # Its id says this month; it was published late and handled in the next one.
    await world.handled(first_uuid7(now), later(1))
    too_early = await world.keeper.once(later(1) + KEEP - DAY)
    assert too_early.dropped == ()
    assert too_early.overdue == 1
    assert world.metric("outbox_inbox_overdue_partitions") == 1
    assert await world.rows() == 1
    in_time = await world.keeper.once(later(1) + KEEP + DAY)
    assert in_time.dropped == (name_of(now),)
    assert in_time.overdue == 0
    assert await world.rows() == 0


async def test_a_partition_that_cannot_go_keeps_no_other_one(world: World) -> None:
    now = datetime.now(UTC)
    await world.keeper.once(now)
    await world.handled(uuid4(), now)
    async with world.engine.begin() as connection:
        await connection.execute(text(f"CREATE VIEW report AS SELECT * FROM lethe.{name_of(now)}"))  # noqa: S608 - a name of ours
    found = await world.keeper.once(later(2) + KEEP)
    assert found.dropped == (name_of(later(1)),)
    assert (found.overdue, found.deleted) == (1, 1)


async def test_ids_without_a_time_are_forgotten_by_when_they_were_handled(world: World) -> None:
    now = datetime.now(UTC)
    for _ in range(5):
        await world.handled(uuid4(), now - KEEP - DAY)
    await world.handled(uuid4(), now - KEEP + DAY)
    found = await world.keeper.once(now)
    assert found.deleted == 5
    assert await world.rows() == 1


async def test_an_event_is_recognised_wherever_its_row_lies(world: World) -> None:
    foreign, ancient = uuid4(), first_uuid7(datetime(2001, 1, 1, tzinfo=UTC))
    inbox = Inbox()
    for expected in ({foreign, ancient}, set[UUID]()):
        async with world.engine.begin() as connection:
            assert await inbox.handled(connection, [foreign, ancient], "group") == expected
        await world.keeper.once()


async def test_rows_of_a_month_that_was_late_are_moved_and_still_recognised(world: World) -> None:
    then = later(6)
    event_id = first_uuid7(then)
    await world.handled(event_id, then)
    await world.keeper.once(then)
    async with world.engine.begin() as connection:
        found = await connection.execute(
            text("SELECT event_id FROM lethe.inbox WHERE tableoid = CAST(:name AS regclass)"),
            {"name": f"lethe.{name_of(then)}"},
        )
        assert list(found.scalars()) == [event_id]
        assert await Inbox().handled(connection, [event_id], "group") == set()


async def test_many_keepers_do_each_thing_once(world: World) -> None:
    others = [World(world.engine) for _ in range(4)]
    then = later(8)
    await asyncio.gather(*(one.keeper.once(then) for one in others))
    await until(lambda: _nothing_left(world, then), what="every partition")
    names = await world.partitions()
    assert {name_of(later(n)) for n in (8, 9, 10)} <= names
    assert not any(name.endswith("_2") for name in names)


async def _nothing_left(world: World, then: datetime) -> bool:
    found: Kept = await world.keeper.once(then)
    return not (found.made or found.dropped or found.overdue)


async def test_a_consumer_at_work_is_not_stopped_by_its_keeper(world: World) -> None:
    now = datetime.now(UTC)
    event_id = first_uuid7(now)
    then = now + 100 * DAY
    async with world.engine.connect() as connection:
        await Inbox().handled(connection, [event_id], "group")  # open, not committed
        busy = await world.keeper.once(then)
        assert name_of(now) not in busy.dropped
        await connection.commit()
    # What was committed meanwhile was handled just now, and stays.
    assert name_of(now) not in (await world.keeper.once(now + 34 * DAY)).dropped
    assert await world.rows() == 1


async def test_it_goes_on_after_its_table_was_away(world: World) -> None:
    registry = CollectorRegistry()
    keeper = InboxKeeper(
        world.engine,
        "group",
        ConsumerMetrics(registry),
        settings=KeeperSettings(interval_seconds=0.05),
    )
    async with world.engine.begin() as connection:
        await connection.execute(text("ALTER TABLE lethe.inbox RENAME TO put_away"))
    with pytest.raises(DBAPIError):
        await keeper.once()
    stop = asyncio.Event()
    task = asyncio.create_task(keeper.run(stop))
    async with world.engine.begin() as connection:
        await connection.execute(text("ALTER TABLE lethe.put_away RENAME TO inbox"))
    await until(
        lambda: registry.get_sample_value("outbox_inbox_ahead_seconds", {"group": "group"}),
        what="partitions made ahead",
    )
    stop.set()
    await asyncio.wait_for(task, 20)

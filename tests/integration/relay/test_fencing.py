"""What the fence lets through: an owner's writes, and nobody else's."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta

import pytest
from prometheus_client import CollectorRegistry
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from uuid_utils.compat import uuid7

from lethe_outbox import Message
from lethe_outbox.errors import DatabaseReplacedError, UnsafeDatabaseError
from lethe_outbox.message import bucket_of
from lethe_outbox.metrics import RelayMetrics
from lethe_outbox.relay.acknowledge import Acknowledger
from lethe_outbox.relay.bury import Undertaker
from lethe_outbox.relay.lane import Lane, Row
from lethe_outbox.relay.lease_storage import LeaseStorage, Terms
from lethe_outbox.relay.producer import RefusedError
from lethe_outbox.relay.producers import Producers
from lethe_outbox.relay.reach import Reach
from lethe_outbox.relay.session import Session
from lethe_outbox.relay.settings import RelaySettings
from lethe_outbox.relay.storage import Fence, RelayStorage
from lethe_outbox.schema import Status
from lethe_sandbox.stack import Addresses
from tests.support.databases import own_database
from tests.support.outbox_world import OUTBOX, append, statuses

KEY = "key"
LANES = 16
LANE = bucket_of(KEY) % LANES


class Owner:
    """One relay's view of the database."""

    def __init__(self, session: Session, terms: Terms) -> None:
        self.storage = RelayStorage(session, "lethe", uuid7(), LANES)
        self.leases = LeaseStorage(self.storage, "tested", terms)

    async def claim(self) -> Lane:
        await self.storage.prepare()
        await self.leases.register()
        claimed = await self.leases.claim(LANES, [])
        return Lane.claimed(LANE, claimed[LANE], 0.0, 2)

    def fence(self, lane: Lane) -> Fence:
        return Fence(self.storage.owner, {lane.number: lane.epoch})

    async def fetch(self, lane: Lane) -> list[Row]:
        limits = dict.fromkeys(lane.buckets, 10)
        rows = await self.storage.fetch([lane], limits, lane.ends(1000))
        return [Row(*row) for row in rows]


@pytest.fixture
async def owner(engine: AsyncEngine, database_url: str) -> AsyncIterator[Owner]:
    await append(engine, Message("t", KEY, b"1"), Message("t", KEY, b"2"))
    async with Session(database_url, "owner") as session:
        yield Owner(session, Terms(60, watch_backends=True))


@pytest.fixture
async def other(database_url: str) -> AsyncIterator[Owner]:
    async with Session(database_url, "other") as session:
        yield Owner(session, Terms(60, watch_backends=True))


async def expire(engine: AsyncEngine) -> None:
    async with engine.begin() as connection:
        await connection.execute(
            text("update lethe.outbox_bucket set lease_until = now() - interval '1 second'")
        )


async def test_an_owner_reads_and_acknowledges(engine: AsyncEngine, owner: Owner) -> None:
    lane = await owner.claim()
    rows = await owner.fetch(lane)
    assert [row.payload for row in rows] == [b"1", b"2"]
    ids = [row.id for row in rows]
    assert await owner.storage.acknowledge(rows[0].part, ids, owner.fence(lane)) == 2
    assert await statuses(engine) == [Status.SENT] * 2
    assert await owner.fetch(lane) == []


async def test_who_writes_another_outbox_of_the_server_is_no_writer_of_this_one(
    owner: Owner, stack: Addresses, laid: str
) -> None:
    """The tables of two copies of a database have the same numbers."""
    await owner.storage.prepare()
    with own_database(stack, laid) as url:
        elsewhere = create_async_engine(url)
        async with elsewhere.begin() as connection:
            await OUTBOX.append_async(connection, Message("t", KEY, b"1"))
            _, _, writers = await owner.storage.look()
        await elsewhere.dispose()
    assert writers == []


async def test_only_marks_do_not_wait_for_the_disk(owner: Owner) -> None:
    lane = await owner.claim()
    [first, _] = await owner.fetch(lane)
    setting = "select current_setting('synchronous_commit')"
    async with owner.storage.session.acker.transaction():
        await owner.storage.acknowledge(first.part, [first.id], owner.fence(lane))
        within = await (await owner.storage.session.acker.execute(setting)).fetchone()
    after = await (await owner.storage.session.acker.execute(setting)).fetchone()
    assert (within, after) == (("off",), ("on",))


async def test_no_payload_is_taken_from_another_server_and_none_is_missed_there(
    owner: Owner,
) -> None:
    """Behind a pooler it is not noticed otherwise; there an id is another row's, or no row's."""
    lane = await owner.claim()
    [first, second] = await owner.fetch(lane)
    session = owner.storage.session
    assert await owner.storage.payloads([first.id], 1) == {first.id: (b"1", first.headers)}
    assert await owner.storage.payloads([second.id + 1], 1) == {}
    before = session.identity.started - timedelta(days=1)
    session.identity = replace(session.identity, started=before)
    await owner.storage.prepare()
    for number in (first.id, second.id + 1):
        with pytest.raises(DatabaseReplacedError):
            await owner.storage.payloads([number], 1)


async def test_nobody_claims_what_is_owned_by_a_living_relay(owner: Owner, other: Owner) -> None:
    await owner.claim()
    await other.storage.prepare()
    assert await other.leases.register() == 2
    assert await other.leases.claim(LANES, []) == {}


async def test_what_came_before_a_dead_row_is_marked_after_a_takeover_though_its_key_is_held(
    engine: AsyncEngine, owner: Owner, other: Owner
) -> None:
    """It was delivered before, and the mark was on its way when the relay died."""
    lane = await owner.claim()
    [first, second] = await owner.fetch(lane)
    await append(engine, Message("t", KEY, b"3"))
    assert await owner.storage.bury(
        second,
        Status.DEAD_LETTERED,
        reason="r",
        dlt_attempts=0,
        held=True,
        fence=owner.fence(lane),
    )
    await expire(engine)
    taken = await other.claim()
    taken.held = await other.leases.held(list(taken.buckets))
    assert [row.payload for row in await other.fetch(taken)] == [b"1"]
    stragglers = await other.storage.stragglers({bucket_of(KEY): second.id}, 0, second.id)
    assert stragglers == {bucket_of(KEY): first.id}


async def test_of_a_partition_that_was_dropped_nothing_is_marked_and_nothing_pending(
    engine: AsyncEngine, owner: Owner
) -> None:
    lane = await owner.claim()
    [first, second] = await owner.fetch(lane)
    assert await owner.storage.acknowledge(first.part, [first.id], owner.fence(lane)) == 1
    async with engine.begin() as connection:
        query = text("select tableoid::regclass from lethe.outbox limit 1")
        await connection.execute(text(f"drop table {await connection.scalar(query)}"))
    for _ in range(2):
        assert await owner.storage.acknowledge(first.part, [second.id], owner.fence(lane)) == 0
        assert not await owner.storage.any_pending(first.part, [second.id])


async def test_a_row_that_was_made_pending_by_hand_may_be_refused_again(
    engine: AsyncEngine, owner: Owner
) -> None:
    lane = await owner.claim()
    [first, _] = await owner.fetch(lane)
    for reason in ("too_large", "policy"):
        assert await owner.storage.bury(
            first,
            Status.DLT_FAILED,
            reason=reason,
            dlt_attempts=1,
            held=False,
            fence=owner.fence(lane),
        )
        async with engine.begin() as connection:
            # Without `lethe outbox requeue`, which would take it from the list of the dead.
            found = await connection.execute(text("select reason from lethe.outbox_dead"))
            assert [row.reason for row in found] == [reason]
            query = text("update lethe.outbox set status = 0 returning dlt_attempts")
            attempts = (await connection.execute(query)).scalars().all()
    assert sorted(attempts) == [0, 2]


async def test_who_lost_the_lease_reads_acknowledges_and_buries_nothing(
    engine: AsyncEngine, owner: Owner, other: Owner
) -> None:
    lost = await owner.claim()
    rows = await owner.fetch(lost)
    await expire(engine)
    taken = await other.claim()
    assert taken.epoch == lost.epoch + 1

    fence = owner.fence(lost)
    assert await owner.storage.acknowledge(rows[0].part, [rows[0].id], fence) == 0
    assert not await owner.storage.bury(
        rows[1], Status.DEAD_LETTERED, reason="r", dlt_attempts=0, held=False, fence=fence
    )
    assert not await owner.storage.owned(fence)
    assert await owner.fetch(lost) == []
    assert await owner.leases.renew([lost]) == {}
    assert await statuses(engine) == [Status.PENDING] * 2
    assert [row.payload for row in await other.fetch(taken)] == [b"1", b"2"]


async def test_an_expired_lease_acknowledges_nothing_even_if_nobody_took_it(
    engine: AsyncEngine, owner: Owner
) -> None:
    lane = await owner.claim()
    rows = await owner.fetch(lane)
    await expire(engine)
    fence = owner.fence(lane)
    assert await owner.storage.acknowledge(rows[0].part, [rows[0].id], fence) == 0
    assert list(await owner.leases.renew([lane])) == [LANE]
    assert await owner.storage.acknowledge(rows[0].part, [rows[0].id], fence) == 1


@pytest.fixture
def renewed_when_asked(owner: Owner, monkeypatch: pytest.MonkeyPatch) -> list[Lane]:
    """Renews these lanes right before the owner asks whether it lost them."""
    lanes: list[Lane] = []
    real = owner.storage.owned

    async def owned(fence: Fence) -> bool:
        assert list(await owner.leases.renew(lanes)) == [LANE]
        return await real(fence)

    monkeypatch.setattr(owner.storage, "owned", owned)
    return lanes


async def test_what_was_refused_before_the_lease_was_renewed_is_marked_after_it(
    engine: AsyncEngine, owner: Owner, renewed_when_asked: list[Lane]
) -> None:
    lane = await owner.claim()
    limits, ends = dict.fromkeys(lane.buckets, 10), lane.ends(1000)
    rows = await owner.storage.fetch([lane], limits, ends)
    acknowledger = Acknowledger("tested", RelayMetrics(CollectorRegistry()), 100, asyncio.Event())
    acknowledger.begin(owner.storage.session.identity)
    acknowledger.delivered(lane, rows)
    renewed_when_asked.append(lane)
    await expire(engine)
    await acknowledger.flush(owner.storage, lambda lost: pytest.fail(f"lost {lost.number}"))
    assert await statuses(engine) == [Status.SENT] * 2
    assert sorted(lane.acknowledged) == [row[0] for row in rows]


async def test_what_could_not_be_buried_before_the_lease_was_renewed_is_buried_after_it(
    engine: AsyncEngine,
    owner: Owner,
    renewed_when_asked: list[Lane],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Else its key would go on, also where it is to be held back."""
    lane = await owner.claim()
    [first, _] = await owner.fetch(lane)
    settings = RelaySettings(hold_back_topics=frozenset({"t"}))
    producers = Producers(
        "nowhere:1", settings, idempotent=False, reach=Reach(settings, lambda *_: None)
    )
    undertaker = Undertaker(
        "tested", owner.storage, producers, settings, RelayMetrics(CollectorRegistry())
    )

    async def send(*_: object) -> tuple[Status, int]:
        return Status.DEAD_LETTERED, 0

    monkeypatch.setattr(undertaker, "_send", send)
    renewed_when_asked.append(lane)
    await expire(engine)
    assert await undertaker.bury(lane, first, 0, RefusedError("too_large", "E"))
    assert await statuses(engine) == [Status.DEAD_LETTERED, Status.PENDING]
    assert lane.held == {first.bucket: first.id}


async def test_a_relay_whose_session_is_gone_is_succeeded_at_once(
    engine: AsyncEngine, database_url: str, owner: Owner
) -> None:
    async with Session(database_url, "short-lived") as session:
        gone = Owner(session, Terms(60, watch_backends=True))
        await gone.claim()
    lane = await owner.claim()
    assert len(await owner.fetch(lane)) == 2
    del engine


async def test_a_released_lane_is_free_with_its_low_water_mark(
    engine: AsyncEngine, owner: Owner, other: Owner
) -> None:
    lane = await owner.claim()
    lane.buckets[bucket_of(KEY)].low_water = 2
    await owner.leases.release([lane])
    await expire(engine)
    taken = await other.claim()
    assert taken.buckets[bucket_of(KEY)].cursor == 2


async def test_a_fetch_that_does_not_know_of_a_rewind_finds_nothing(
    engine: AsyncEngine, owner: Owner
) -> None:
    lane = await owner.claim()
    async with engine.begin() as connection:
        await connection.execute(text("update lethe.outbox_bucket set rewinds = rewinds + 1"))
    assert await owner.fetch(lane) == []


async def test_ids_that_are_drawn_ahead_are_refused(engine: AsyncEngine, owner: Owner) -> None:
    async with engine.begin() as connection:
        await connection.execute(text("alter sequence lethe.outbox_id_seq cache 10"))
    with pytest.raises(UnsafeDatabaseError):
        await owner.storage.prepare()

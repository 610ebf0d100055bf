"""Leases, fences and statuses of several relays, in the real SQL, against a simple model."""

import asyncio
from collections.abc import Awaitable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, LiteralString, TypeVar

import psycopg
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy import make_url
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from uuid_utils.compat import UUID, uuid7

from lethe_outbox import Message, requeue
from lethe_outbox.message import bucket_of
from lethe_outbox.relay.horizon import Horizon
from lethe_outbox.relay.lane import Lane, Row
from lethe_outbox.relay.lease_storage import LeaseStorage, Terms
from lethe_outbox.relay.session import Session
from lethe_outbox.relay.storage import Fence, RelayStorage
from lethe_outbox.schema import Status
from tests.support.outbox_world import append, key_in_lane, lay

T = TypeVar("T")
LANES = 2
RELAYS = 2
KEYS = [key_in_lane(lane, number, LANES) for lane in range(LANES) for number in range(2)]
LANE_OF = {key: bucket_of(key) % LANES for key in KEYS}
LIMIT = 3
MOST_IDS = 4
TERMS = Terms(3600, watch_backends=False)


# The model: what anybody would expect of leases and statuses.


@dataclass
class OneLease:
    owner: UUID | None = None
    epoch: int = 0
    expired: bool = False


@dataclass
class OneRow:
    key: str
    status: Status = Status.PENDING
    held: bool = False


@dataclass
class Model:
    leases: dict[int, OneLease] = field(
        default_factory=lambda: {lane: OneLease() for lane in range(LANES)}
    )
    rows: dict[int, OneRow] = field(default_factory=dict)
    alive: dict[UUID, bool] = field(default_factory=dict)
    rewinds: dict[int, int] = field(default_factory=dict)

    def free(self, lane: int, relay: UUID) -> bool:
        lease = self.leases[lane]
        nobody = lease.owner is None or not self.alive.get(lease.owner, False)
        return nobody or lease.owner == relay or lease.expired

    def owned(self, lane: Lane, relay: UUID) -> bool:
        lease = self.leases[lane.number]
        return lease.owner == relay and lease.epoch == lane.epoch

    def fenced_in(self, lane: Lane, relay: UUID) -> bool:
        return self.owned(lane, relay) and not self.leases[lane.number].expired

    def pending(self, lane: Lane, limit: int | None, ends: Mapping[int, int]) -> list[int]:
        """What a fetch from the lane's cursors must give, of each bucket `limit` at most."""
        found: list[int] = []
        for number, bucket in lane.buckets.items():
            if self.rewinds.get(number, 0) != bucket.rewinds:
                continue
            ids = [
                row
                for row, one in sorted(self.rows.items())
                if bucket_of(one.key) == number
                and one.status is Status.PENDING
                and bucket.cursor < row <= ends[number]
                and not (lane.held and self._waits(row))
            ]
            found += ids[:limit]
        return found

    def _waits(self, row: int) -> bool:
        key = self.rows[row].key
        return any(one.key == key and one.held and dead < row for dead, one in self.rows.items())


class RelayUnderTest:
    """What one relay believes, kept in the product's own classes."""

    def __init__(self, session: Session) -> None:
        self.id = uuid7()
        self.storage = RelayStorage(session, "lethe", self.id, LANES)
        self.leases: LeaseStorage | None = None
        self.horizon = Horizon()
        self.lanes: dict[int, Lane] = {}
        self.fetched: dict[int, Row] = {}

    async def begin(self) -> None:
        await self.storage.prepare()
        self.leases = LeaseStorage(self.storage, "tested", TERMS)

    def fence(self, lanes: Iterable[Lane]) -> Fence:
        return Fence(self.id, {lane.number: lane.epoch for lane in lanes})

    def fetched_of(self, lane: Lane) -> list[int]:
        return [row for row, one in self.fetched.items() if one.bucket in lane.buckets]

    def drop(self, lane: Lane) -> None:
        for row in self.fetched_of(lane):
            del self.fetched[row]
        del self.lanes[lane.number]


@dataclass
class Database:
    """The servers' side, shared by all runs of the machine."""

    runner: asyncio.Runner
    engine: AsyncEngine
    sessions: list[Session]
    onlooker: psycopg.Connection[Any]

    def run(self, work: Awaitable[T]) -> T:
        async def waited() -> T:
            return await work

        return self.runner.run(waited())

    def execute(self, statement: LiteralString, *values: object) -> list[Any]:
        found = self.onlooker.execute(statement, values)
        return found.fetchall() if found.description else []


ANY_RELAY = st.integers(0, RELAYS - 1)
ANY_LANE = st.integers(0, LANES - 1)


class Leases(RuleBasedStateMachine):
    """Relays claim, renew, lose, steal, read, acknowledge, bury and restart; rows come back."""

    database: ClassVar[Database]

    def __init__(self) -> None:
        super().__init__()
        database = self.database
        database.execute(
            "truncate lethe.outbox, lethe.outbox_dead, lethe.outbox_relay restart identity"
        )
        database.execute(
            "update lethe.outbox_bucket set owner = null, lease_until = null, epoch = 0,"
            " low_water = 0, rewinds = 0"
        )
        self.model = Model()
        self.relays = [self._new(session) for session in database.sessions]

    def _new(self, session: Session) -> RelayUnderTest:
        relay = RelayUnderTest(session)
        self.database.run(relay.begin())
        self.model.alive[relay.id] = False
        return relay

    @initialize()
    def begin_at_work(self) -> None:
        """Everything interesting needs owners and rows."""
        self.append([*KEYS, *KEYS])
        for relay in self.relays:
            self._register(relay)
        for relay in self.relays:
            self._claim(relay, 1)
        for relay, lane in self._believed():
            self._fetch(relay, lane)

    # Writers and operators

    @rule(keys=st.lists(st.sampled_from(KEYS), min_size=1, max_size=4))
    def append(self, keys: list[str]) -> None:
        messages = [Message("t", key, b"") for key in keys]
        self.database.run(append(self.database.engine, *messages))
        ((last,),) = self.database.execute("select max(id) from lethe.outbox")
        for row, key in enumerate(keys, start=last - len(keys) + 1):
            self.model.rows[row] = OneRow(key)

    @precondition(lambda self: self._dead())
    @rule(data=st.data())
    def requeue(self, data: st.DataObject) -> None:
        ids = data.draw(st.sets(st.sampled_from(self._dead()), min_size=1))

        async def requeued() -> int:
            async with self.database.engine.begin() as connection:
                return await requeue(connection, ids, accept_reorder=True)

        assert self.database.run(requeued()) == len(ids)
        buckets = set()
        for row in ids:
            one = self.model.rows[row]
            one.status, one.held = Status.PENDING, False
            buckets.add(bucket_of(one.key))
        for bucket in buckets:
            self.model.rewinds[bucket] = self.model.rewinds.get(bucket, 0) + 1

    def _dead(self) -> list[int]:
        dead = (Status.DEAD_LETTERED, Status.DLT_FAILED)
        return [row for row, one in self.model.rows.items() if one.status in dead]

    # Time

    @rule(lane=ANY_LANE)
    def expire(self, lane: int) -> None:
        """Let a lease's time pass, or the database's clock jump."""
        self.model.leases[lane].expired = self.model.leases[lane].owner is not None
        self.database.execute(
            "update lethe.outbox_bucket set lease_until = now() - interval '1 second'"
            " where owner is not null and bucket %% %s = %s",
            LANES,
            lane,
        )

    @rule(number=ANY_RELAY)
    def fall_silent(self, number: int) -> None:
        """Let a relay's heartbeat run out."""
        relay = self.relays[number]
        self.model.alive[relay.id] = False
        self.database.execute(
            "update lethe.outbox_relay set alive_until = now() - interval '1 second'"
            " where relay_id = %s",
            relay.id,
        )

    # Relays

    @rule(number=ANY_RELAY, most=st.integers(0, LANES))
    def turn(self, number: int, most: int) -> None:
        """What a relay does every few seconds."""
        self._register(self.relays[number])
        self._renew(self.relays[number])
        if most:
            self._claim(self.relays[number], most)

    def _register(self, relay: RelayUnderTest) -> None:
        assert relay.leases is not None
        self.model.alive[relay.id] = True
        alive = self.database.run(relay.leases.register())
        assert alive == sum(self.model.alive.values())

    def _claim(self, relay: RelayUnderTest, most: int) -> None:
        assert relay.leases is not None
        free = [
            lane
            for lane in range(LANES)
            if lane not in relay.lanes and self.model.free(lane, relay.id)
        ][:most]
        claimed = self.database.run(relay.leases.claim(most, list(relay.lanes)))
        assert sorted(claimed) == free
        for lane, leases in claimed.items():
            lease = self.model.leases[lane]
            self.model.leases[lane] = OneLease(relay.id, lease.epoch + 1)
            assert {one.epoch for one in leases} == {lease.epoch + 1}
            made = Lane.claimed(lane, leases, 0.0, 2)
            held = self.database.run(relay.leases.held(list(made.buckets)))
            made.held = {bucket: row for bucket, row in held.items() if bucket in made.buckets}
            relay.lanes[lane] = made

    def _renew(self, relay: RelayUnderTest) -> None:
        assert relay.leases is not None
        for lane in relay.lanes.values():
            lane.raise_low_waters()
        kept = self.database.run(relay.leases.renew(list(relay.lanes.values())))
        owned = {n for n, lane in relay.lanes.items() if self.model.owned(lane, relay.id)}
        assert set(kept) == owned
        for lane in list(relay.lanes.values()):
            if lane.number in owned:
                self.model.leases[lane.number].expired = False
            else:
                relay.drop(lane)

    @precondition(lambda self: self._believed())
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        relay, lane = data.draw(st.sampled_from(self._believed()))
        assert relay.leases is not None
        lane.reset([])
        lane.raise_low_waters()
        self.database.run(relay.leases.release([lane]))
        if self.model.owned(lane, relay.id):
            self.model.leases[lane.number] = OneLease(None, lane.epoch)
        relay.drop(lane)

    @rule(number=ANY_RELAY)
    def restart(self, number: int) -> None:
        """Die and come back as another; what was registered stays until it is silent."""
        self.relays[number] = self._new(self.database.sessions[number])

    @rule(number=ANY_RELAY)
    def deregister(self, number: int) -> None:
        relay = self.relays[number]
        assert relay.leases is not None
        self.database.run(relay.leases.deregister())
        self.model.alive[relay.id] = False

    @precondition(lambda self: self._believed())
    @rule(data=st.data())
    def fetch(self, data: st.DataObject) -> None:
        self._fetch(*data.draw(st.sampled_from(self._believed())))

    def _fetch(self, relay: RelayUnderTest, lane: Lane) -> None:
        last_id, _, writers = self.database.run(relay.storage.look())
        look = relay.horizon.observe(last_id, writers)
        lane.begin_fetch(look)
        owned = self.model.owned(lane, relay.id)
        limits, ends = dict.fromkeys(lane.buckets, LIMIT), lane.ends(MOST_IDS)
        expected = self.model.pending(lane, LIMIT, ends) if owned else []
        rows = self.database.run(relay.storage.fetch([lane], limits, ends))
        assert sorted(row[0] for row in rows) == sorted(expected)
        fresh = self.database.run(
            relay.storage.fetch_fresh([lane], min(lane.cursors), look.last_id)
        )
        to_the_last = dict.fromkeys(lane.buckets, look.last_id)
        every = self.model.pending(lane, None, to_the_last) if owned else []
        assert [row[0] for row in fresh] == sorted(every)
        if not owned:
            return
        if any(self.model.rewinds.get(n, 0) != one.rewinds for n, one in lane.buckets.items()):
            # The product sees this by the sum of all rewinds, and goes back before it reads on.
            return
        for row in lane.accept(rows, limits, ends, look):
            relay.fetched[row[0]] = Row(*row)

    @precondition(lambda self: self._believed())
    @rule(data=st.data())
    def go_back(self, data: st.DataObject) -> None:
        """Take over low-water marks that somebody lowered."""
        relay, lane = data.draw(st.sampled_from(self._believed()))
        assert relay.leases is not None
        stored = self.database.run(relay.leases.marks())
        for lease in stored.get(lane.number, []):
            if lease.epoch == lane.epoch:
                lane.rewound(lease.bucket, lease.low_water, lease.rewinds)
        lane.held = self.database.run(relay.leases.held(list(lane.buckets)))
        lane.reset(relay.fetched_of(lane))

    @precondition(lambda self: any(relay.fetched for relay in self.relays))
    @rule(data=st.data())
    def acknowledge(self, data: st.DataObject) -> None:
        relay = data.draw(st.sampled_from([one for one in self.relays if one.fetched]))
        ids = data.draw(st.sets(st.sampled_from(sorted(relay.fetched)), min_size=1))
        lanes = {n: relay.lanes[n] for n in {LANE_OF[self._key(row)] for row in ids}}
        may = all(self.model.fenced_in(lane, relay.id) for lane in lanes.values())
        pending = [row for row in ids if self.model.rows[row].status is Status.PENDING]
        fence = relay.fence(lanes.values())
        part = relay.fetched[min(ids)].part
        marked = self.database.run(relay.storage.acknowledge(part, sorted(ids), fence))
        assert marked == (len(pending) if may else 0)
        assert self.database.run(relay.storage.owned(fence)) is may
        for lane in lanes.values():
            if not self.model.fenced_in(lane, relay.id):
                relay.drop(lane)
        if may:
            for row in ids:
                lanes[LANE_OF[self._key(row)]].acknowledged.append(row)
                del relay.fetched[row]
            for row in pending:
                self.model.rows[row].status = Status.SENT

    @precondition(lambda self: any(relay.fetched for relay in self.relays))
    @rule(
        data=st.data(),
        status=st.sampled_from([Status.DEAD_LETTERED, Status.DLT_FAILED]),
        held=st.booleans(),
    )
    def bury(
        self,
        data: st.DataObject,
        status: Status,
        held: bool,  # noqa: FBT001 - hypothesis passes by name
    ) -> None:
        relay = data.draw(st.sampled_from([one for one in self.relays if one.fetched]))
        row = relay.fetched[data.draw(st.sampled_from(sorted(relay.fetched)))]
        lane = relay.lanes[LANE_OF[self._key(row.id)]]
        one = self.model.rows[row.id]
        may = self.model.fenced_in(lane, relay.id) and one.status is Status.PENDING
        failures = int(status is Status.DLT_FAILED)
        buried = self.database.run(
            relay.storage.bury(
                row,
                status,
                reason="r",
                dlt_attempts=failures,
                held=held,
                fence=relay.fence([lane]),
            )
        )
        assert buried is may
        if not self.model.fenced_in(lane, relay.id):
            relay.drop(lane)
            return
        lane.acknowledged.append(row.id)
        del relay.fetched[row.id]
        if may:
            one.status, one.held = status, held
            if held:
                lane.hold(row)
                waiting = [n for n in relay.fetched_of(lane) if self._key(n) == one.key]
                for number in waiting:
                    del relay.fetched[number]
                lane.reset(relay.fetched_of(lane))

    def _believed(self) -> list[tuple[RelayUnderTest, Lane]]:
        """Which lanes relays believe to own."""
        return [(relay, lane) for relay in self.relays for lane in relay.lanes.values()]

    def _key(self, row: int) -> str:
        return self.model.rows[row].key

    # What must hold

    @invariant()
    def every_status_is_as_expected(self) -> None:
        rows = self.database.execute("select id, status from lethe.outbox")
        assert dict(rows) == {n: one.status for n, one in self.model.rows.items()}
        dead = self.database.execute("select id, held from lethe.outbox_dead")
        assert dict(dead) == {n: self.model.rows[n].held for n in self._dead()}

    @invariant()
    def every_lease_is_as_expected(self) -> None:
        leases = self.database.execute(
            "select distinct bucket %% %s, owner, epoch from lethe.outbox_bucket", LANES
        )
        expected = {(n, one.owner, one.epoch) for n, one in self.model.leases.items()}
        assert {(n, owner, epoch) for n, owner, epoch in leases} == expected

    @invariant()
    def nothing_that_is_pending_lies_below_its_low_water_mark(self) -> None:
        below = self.database.execute(
            "select o.id from lethe.outbox o join lethe.outbox_bucket b using (bucket)"
            " where o.status = 0 and o.id <= b.low_water"
        )
        assert below == []


def test_leases_and_statuses_are_what_a_simple_model_says(database_url: str) -> None:
    lay(database_url)
    plain = make_url(database_url).set(drivername="postgresql")
    address = plain.render_as_string(hide_password=False)
    with asyncio.Runner() as runner, psycopg.connect(address, autocommit=True) as onlooker:
        sessions = [Session(database_url, f"relay-{number}") for number in range(RELAYS)]
        engine = create_async_engine(database_url)
        for session in sessions:
            runner.run(session.__aenter__())
        Leases.database = Database(runner, engine, sessions, onlooker)
        try:
            run_state_machine_as_test(
                Leases, settings=settings(max_examples=30, stateful_step_count=50, deadline=None)
            )
        finally:
            for session in sessions:
                runner.run(session.__aexit__(None, None, None))
            runner.run(engine.dispose())

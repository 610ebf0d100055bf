"""A model of what relays need of PostgreSQL: ids drawn before commits, locks, leases.

A statement takes place at one moment between its call and its answer, also when whoever called it
is frozen meanwhile.
"""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Self, TypeVar
from uuid import UUID

import psycopg

from lethe_outbox.message import bucket_of
from lethe_outbox.relay.lane import Fetched, Lane, Lease
from lethe_outbox.relay.lane import Row as RelayRow
from lethe_outbox.relay.lease_storage import Terms
from lethe_outbox.relay.session import Identity
from lethe_outbox.relay.storage import Fence
from lethe_outbox.schema import Status
from tests.support.simulation.world import Loop, World

BUCKETS = 16
TOPIC = b"simulated"
POISON = b"poison"
_IDENTITY = Identity(1, "00000001", datetime(2026, 1, 1, tzinfo=UTC))

T = TypeVar("T")


class CutError(psycopg.OperationalError):
    """The session is gone."""


@dataclass(slots=True)
class Row:
    id: int
    key: str
    number: int
    poison: bool
    status: Status = Status.PENDING
    committed: bool = False

    @property
    def bucket(self) -> int:
        return bucket_of(self.key) % BUCKETS

    @property
    def payload(self) -> bytes:
        return b"%d:%s" % (self.number, POISON if self.poison else b"")

    def fetched(self) -> Fetched:
        # As what is large is left out until it is its turn.
        payload: Any = None if self.poison else self.payload
        return (self.id, self.bucket, 1, TOPIC, self.key.encode(), payload, b"")


@dataclass(slots=True)
class Bucket:
    owner: UUID | None = None
    epoch: int = 0
    lease_until: float = 0.0
    low_water: int = 0


@dataclass
class Database:
    """The outbox and its leases.

    Attributes:
        rows: everything that was inserted.
        writers: open transactions that hold the table's lock, with what they inserted.
        pending: by bucket, what is not rolled back and not resolved, by id.
        stragglers: whether a pending row was ever found below a low-water mark.
    """

    world: World
    rows: dict[int, Row] = field(default_factory=dict)
    writers: dict[str, list[Row]] = field(default_factory=dict)
    pending: dict[int, list[Row]] = field(default_factory=lambda: defaultdict(list))
    buckets: list[Bucket] = field(default_factory=lambda: [Bucket() for _ in range(BUCKETS)])
    relays: dict[UUID, tuple[float, "Session"]] = field(default_factory=dict)
    begun: int = 0
    last_id: int = 0
    stragglers: bool = False

    def begin(self) -> str:
        """Open a transaction that has the table's lock and has not drawn an id yet."""
        self.begun += 1
        writer = f"3/{self.begun}"
        self.writers[writer] = []
        return writer

    def insert(self, writer: str, key: str, number: int, *, poison: bool) -> None:
        self.last_id += 1
        row = self.rows[self.last_id] = Row(self.last_id, key, number, poison)
        self.pending[row.bucket].append(row)
        self.writers[writer].append(row)

    def end(self, writer: str, *, commit: bool) -> None:
        for row in self.writers.pop(writer):
            row.committed = commit
            if not commit:
                self.pending[row.bucket].remove(row)

    def resolve(self, id_: int, status: Status) -> bool:
        row = self.rows[id_]
        if row.status is not Status.PENDING:
            return False
        row.status = status
        self.pending[row.bucket].remove(row)
        return True

    def is_gone(self, relay: UUID) -> bool:
        """Whether a relay's session or its last word is over."""
        known = self.relays.get(relay)
        return known is None or known[0] < self.world.now or not known[1].alive


class Session:
    """A relay's connections; one statement at a time on each."""

    pooled = False
    identity = _IDENTITY

    def __init__(self, database: Database, loop: Loop) -> None:
        self.database = database
        self.alive = True
        self._loop = loop
        self._turns = {name: asyncio.Lock() for name in ("read", "acknowledge", "lease", "look")}

    async def __aenter__(self) -> Self:
        await asyncio.sleep(self.database.world.soon())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.alive = False

    async def call(self, connection: str, statement: Callable[[], T]) -> T:
        """Send a statement and wait for its answer."""
        world = self.database.world
        answer: asyncio.Future[T] = self._loop.create_future()

        def hear(value: T | None, error: Exception | None) -> None:
            if not answer.done():
                if error is not None:
                    answer.set_exception(error)
                else:
                    answer.set_result(value)  # type: ignore[arg-type] # a statement may give None

        def give(value: T) -> None:
            # Cut off between statement and answer, nobody knows that it took place.
            self._loop.tell(hear, value, None if self.alive else CutError())

        def take_place() -> None:
            if self.alive:
                world.later(world.soon(), give, statement())
            else:
                world.later(world.soon(), self._loop.tell, hear, None, CutError())

        async with self._turns[connection]:
            world.later(world.soon(), take_place)
            return await answer


class Storage:
    """The interface of `RelayStorage` on the model."""

    def __init__(
        self, session: Session, schema: str | None, owner: UUID, lanes: int, **_: Any
    ) -> None:
        del schema
        self.session = session
        self.owner = owner
        self.lanes = lanes
        self._database = session.database

    async def prepare(self) -> None:
        pass

    async def look(self) -> tuple[int, int, list[str]]:
        return await self.session.call(
            "look", lambda: (self._database.last_id, 0, list(self._database.writers))
        )

    async def fetch(
        self, lanes: Sequence[Lane], limits: Mapping[int, int], ends: Mapping[int, int]
    ) -> list[Fetched]:
        return await self._read(
            lanes,
            lambda number, rows: [row for row in rows if row[0] <= ends[number]][: limits[number]],
        )

    async def fetch_fresh(self, lanes: Sequence[Lane], above: int, up_to: int) -> list[Fetched]:
        return await self._read(
            lanes, lambda _, rows: [row for row in rows if above < row[0] <= up_to]
        )

    async def _read(
        self, lanes: Sequence[Lane], chosen: Callable[[int, list[Fetched]], list[Fetched]]
    ) -> list[Fetched]:
        wanted = [
            (number, bucket.cursor, lane.epoch)
            for lane in lanes
            for number, bucket in lane.buckets.items()
        ]

        def statement() -> list[Fetched]:
            found: list[Fetched] = []
            for number, cursor, epoch in wanted:
                bucket = self._database.buckets[number]
                if (bucket.owner, bucket.epoch) != (self.owner, epoch):
                    continue
                visible = (row for row in self._database.pending[number] if row.committed)
                found += chosen(number, [row.fetched() for row in visible if row.id > cursor])
            return found

        return await self.session.call("read", statement)

    async def empty_until(self, above: int, up_to: int) -> int:
        def statement() -> int:
            rows = self._database.rows
            seen = (
                id_ for id_ in range(above + 1, up_to + 1) if id_ in rows and rows[id_].committed
            )
            return next(seen, up_to + 1) - 1

        return await self.session.call("read", statement)

    async def payloads(self, ids: Iterable[int], most_bytes: int) -> dict[int, tuple[bytes, bytes]]:
        del most_bytes
        rows = [self._database.rows[id_] for id_ in ids]
        return await self.session.call(
            "read",
            lambda: {row.id: (row.payload, b"") for row in rows if row.status is Status.PENDING},
        )

    async def acknowledge(self, part: int, ids: Iterable[int], fence: Fence) -> int:
        del part
        marked = list(ids)

        def statement() -> int:
            if not self._is_owned(fence):
                return 0
            return sum(self._database.resolve(id_, Status.SENT) for id_ in marked)

        return await self.session.call("acknowledge", statement)

    async def any_pending(self, part: int, ids: Iterable[int]) -> bool:
        del part
        rows = [self._database.rows[id_] for id_ in ids]
        return await self.session.call(
            "acknowledge", lambda: any(row.status is Status.PENDING for row in rows)
        )

    async def owned(self, fence: Fence) -> bool:
        return await self.session.call("acknowledge", lambda: self._is_owned(fence))

    async def bury(self, row: RelayRow, status: Status, *, fence: Fence, **_: Any) -> bool:
        return await self.session.call(
            "acknowledge",
            lambda: self._is_owned(fence) and self._database.resolve(row.id, status),
        )

    async def stragglers(
        self, low_waters: Mapping[int, int], above: int, up_to: int
    ) -> dict[int, int]:
        marks = dict(low_waters)

        def statement() -> dict[int, int]:
            found: dict[int, int] = {}
            for number, mark in marks.items():
                for row in self._database.pending[number]:
                    if row.committed and above < row.id <= min(up_to, mark):
                        found.setdefault(number, row.id)
            self._database.stragglers |= bool(found)
            return found

        return await self.session.call("look", statement)

    def _is_owned(self, fence: Fence) -> bool:
        now = self._database.world.now
        return all(
            bucket.owner == fence.owner and bucket.epoch == epoch and bucket.lease_until > now
            for lane, epoch in fence.epochs.items()
            for bucket in self._database.buckets[lane :: self.lanes]
        )


class Leases:
    """The interface of `LeaseStorage` on the model."""

    def __init__(self, storage: Storage, name: str, terms: Terms) -> None:
        del name
        self._session = storage.session
        self._database = storage.session.database
        self._owner = storage.owner
        self._lanes = storage.lanes
        self._seconds = terms.seconds

    async def register(self) -> int:
        def statement() -> int:
            database = self._database
            until = database.world.now + self._seconds
            database.relays[self._owner] = (until, self._session)
            return sum(not database.is_gone(relay) for relay in database.relays)

        return await self._session.call("lease", statement)

    async def renew(self, lanes: Iterable[Lane]) -> dict[int, list[Lease]]:
        marks = _marks_of(lanes)

        def statement() -> dict[int, list[Lease]]:
            kept = [number for number, epoch, _ in marks if self._is_mine(number, epoch)]
            self._store(marks)
            for number in kept:
                bucket = self._database.buckets[number]
                bucket.lease_until = self._database.world.now + self._seconds
            return self._by_lane(kept)

        return await self._session.call("lease", statement)

    async def claim(self, most: int, owned: Collection[int]) -> dict[int, list[Lease]]:
        mine = set(owned)

        def statement() -> dict[int, list[Lease]]:
            free = [n for n in range(self._lanes) if n not in mine and self._is_free(n)]
            taken: list[int] = []
            for lane in free[:most]:
                numbers = range(lane, BUCKETS, self._lanes)
                epoch = max(self._database.buckets[number].epoch for number in numbers) + 1
                for number in numbers:
                    bucket = self._database.buckets[number]
                    bucket.owner, bucket.epoch = self._owner, epoch
                    bucket.lease_until = self._database.world.now + self._seconds
                taken += numbers
            return self._by_lane(taken)

        return await self._session.call("lease", statement)

    async def release(self, lanes: Iterable[Lane]) -> None:
        marks = _marks_of(lanes)

        def statement() -> None:
            self._store(marks)
            for number, epoch, _ in marks:
                if self._is_mine(number, epoch):
                    self._database.buckets[number].owner = None

        await self._session.call("lease", statement)

    async def deregister(self) -> None:
        await self._session.call("lease", lambda: self._database.relays.pop(self._owner, None))

    async def held(self, buckets: Sequence[int]) -> dict[int, int]:
        del buckets
        return await self._session.call("lease", dict)

    async def marks(self) -> dict[int, list[Lease]]:
        def statement() -> dict[int, list[Lease]]:
            buckets = enumerate(self._database.buckets)
            return self._by_lane(n for n, bucket in buckets if bucket.owner == self._owner)

        return await self._session.call("lease", statement)

    def _is_mine(self, number: int, epoch: int) -> bool:
        bucket = self._database.buckets[number]
        return (bucket.owner, bucket.epoch) == (self._owner, epoch)

    def _is_free(self, lane: int) -> bool:
        database = self._database
        return all(
            bucket.owner in {None, self._owner}
            or bucket.lease_until < database.world.now
            or (bucket.owner is not None and database.is_gone(bucket.owner))
            for bucket in database.buckets[lane :: self._lanes]
        )

    def _store(self, marks: Iterable[tuple[int, int, int]]) -> None:
        for number, epoch, low_water in marks:
            if self._is_mine(number, epoch):
                bucket = self._database.buckets[number]
                bucket.low_water = max(bucket.low_water, low_water)

    def _by_lane(self, numbers: Iterable[int]) -> dict[int, list[Lease]]:
        found: dict[int, list[Lease]] = defaultdict(list)
        for number in numbers:
            bucket = self._database.buckets[number]
            lease = Lease(number, bucket.epoch, bucket.low_water, 0)
            found[number % self._lanes].append(lease)
        whole = BUCKETS // self._lanes
        return {lane: leases for lane, leases in found.items() if len(leases) == whole}


def _marks_of(lanes: Iterable[Lane]) -> list[tuple[int, int, int]]:
    return [
        (number, lane.epoch, bucket.low_water)
        for lane in lanes
        for number, bucket in lane.buckets.items()
    ]

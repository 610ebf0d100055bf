"""The SQL by which relays share the buckets, all of it on the database's clock."""

import asyncio
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from psycopg import sql

from lethe_outbox.message import BUCKETS
from lethe_outbox.relay.lane import Lane, Lease
from lethe_outbox.relay.storage import RelayStorage

# A relay whose session is gone can neither renew nor acknowledge. Behind a pooler the session is
# the pooler's: such a relay is registered with the backend 0, and only its lease decides.
_GONE: Final = """
    (r.alive_until < clock_timestamp() or $2::bool and r.backend_pid <> 0 and not exists (
        select from pg_stat_activity a
        where a.pid = r.backend_pid
            and (a.backend_start is null or a.backend_start = r.backend_start)))
"""
_REGISTER: Final = """
insert into {relay} (relay_id, name, alive_until, backend_pid, backend_start)
select $1, $2, clock_timestamp() + make_interval(secs => $3::float8),
    case when $4::bool then 0 else pid end, backend_start
from pg_stat_activity where pid = pg_backend_pid()
on conflict (relay_id) do update
set alive_until = excluded.alive_until, backend_pid = excluded.backend_pid,
    backend_start = excluded.backend_start
"""
_DEREGISTER: Final = "delete from {relay} where relay_id = $1"
_BURY_RELAYS: Final = """
delete from {relay} r
where r.relay_id <> $1 and r.alive_until < clock_timestamp() - interval '1 hour'
    and not exists (select from {bucket} b where b.owner = r.relay_id)
"""
_ALIVE: Final = "select count(*) from {relay} r where r.relay_id = $1 or not {gone}"
_RENEW: Final = """
update {bucket} b
set lease_until = clock_timestamp() + make_interval(secs => $2::float8),
    low_water = case when b.rewinds = w.rewinds then greatest(b.low_water, w.low_water)
        else b.low_water end
from unnest($3::int2[], $4::int8[], $5::int8[], $6::int8[])
    w (bucket, epoch, low_water, rewinds)
where b.bucket = w.bucket and b.owner = $1 and b.epoch = w.epoch and {same}
returning b.bucket, b.epoch, b.low_water, b.rewinds
"""
_SERIALISE: Final = "select pg_advisory_xact_lock(hashtext($1), 0)"
_CLAIM: Final = """
with free as (
    select b.bucket % {lanes} as lane, max(b.epoch) + 1 as epoch from {bucket} b
    group by 1
    having bool_and(b.owner is null or b.owner = $1 or b.lease_until < clock_timestamp()
        or not exists (select from {relay} r where r.relay_id = b.owner)
        or exists (select from {relay} r where r.relay_id = b.owner and {gone}))
        and not b.bucket % {lanes} = any ($4::int2[])
    order by 1 limit $5
)
update {bucket} b
set owner = $1, epoch = free.epoch,
    lease_until = clock_timestamp() + make_interval(secs => $3::float8)
from free where b.bucket % {lanes} = free.lane and {same}
returning b.bucket, b.epoch, b.low_water, b.rewinds
"""
_RELEASE: Final = """
update {bucket} b
set owner = null, lease_until = null,
    low_water = case when b.rewinds = w.rewinds then greatest(b.low_water, w.low_water)
        else b.low_water end
from unnest($2::int2[], $3::int8[], $4::int8[], $5::int8[])
    w (bucket, epoch, low_water, rewinds)
where b.bucket = w.bucket and b.owner = $1 and b.epoch = w.epoch and {same}
"""
_HELD: Final = """
select bucket, min(id) from {dead} where held and bucket = any ($1::int2[]) group by bucket
"""
_MARKS: Final = "select bucket, epoch, low_water, rewinds from {bucket} where owner = $1"


@dataclass(frozen=True, slots=True)
class Terms:
    """How leases are taken: their length, and whether a lost session ends them at once."""

    seconds: float
    watch_backends: bool


class LeaseStorage:
    """Claiming, renewing and releasing lanes for one relay."""

    def __init__(self, storage: RelayStorage, name: str, terms: Terms) -> None:
        gone: Any = storage.compose(_GONE)
        fill = {"gone": sql.SQL(gone)}
        self._storage = storage
        self._alone = asyncio.Lock()
        self._name = name
        self._terms = terms
        self._register = storage.compose(_REGISTER)
        self._deregister = storage.compose(_DEREGISTER)
        self._bury_relays = storage.compose(_BURY_RELAYS)
        self._alive = storage.compose(_ALIVE, **fill)
        self._renew = storage.compose(_RENEW)
        self._claim = storage.compose(_CLAIM, **fill)
        self._release = storage.compose(_RELEASE)
        self._held = storage.compose(_HELD)
        self._marks = storage.compose(_MARKS)

    async def register(self) -> int:
        """Say that this relay lives; gives how many do."""
        session, owner = self._storage.session, self._storage.owner
        keeper = session.keeper
        values = (owner, self._name, self._terms.seconds, session.pooled)
        await keeper.execute(self._register, values)
        await keeper.execute(self._bury_relays, (owner,))
        done = await keeper.execute(self._alive, (owner, self._terms.watch_backends))
        row = await done.fetchone()
        return int(row[0]) if row is not None else 1

    async def renew(self, lanes: Iterable[Lane]) -> dict[int, list[Lease]]:
        """Renew lanes and store their low-water marks; gives what is still owned, by lane."""
        arrays = _marks_of(lanes)
        if arrays is None:
            return {}
        values = (self._storage.owner, self._terms.seconds, *arrays)
        done = await self._storage.session.keeper.execute(self._renew, values)
        return self._by_lane(await done.fetchall())

    async def claim(self, most: int, owned: Collection[int]) -> dict[int, list[Lease]]:
        """Take up to `most` lanes that nobody alive owns, each under a new epoch."""
        keeper = self._storage.session.keeper
        values = (
            self._storage.owner,
            self._terms.watch_backends,
            self._terms.seconds,
            list(owned),
            most,
        )
        # Whoever else uses this connection must not find itself inside the transaction.
        async with self._alone, keeper.transaction():
            await keeper.execute(_SERIALISE, (self._storage.name("outbox_bucket"),))
            done = await keeper.execute(self._claim, values)
            return self._by_lane(await done.fetchall())

    async def release(self, lanes: Iterable[Lane]) -> None:
        """Give lanes back, their low-water marks stored."""
        arrays = _marks_of(lanes)
        if arrays is not None:
            values = (self._storage.owner, *arrays)
            await self._storage.session.keeper.execute(self._release, values)

    async def deregister(self) -> None:
        """Say that this relay is gone."""
        keeper = self._storage.session.keeper
        await keeper.execute(self._deregister, (self._storage.owner,))

    async def held(self, buckets: Sequence[int]) -> dict[int, int]:
        """Give, by bucket, the lowest id of a dead row that holds its key back."""
        async with self._alone:
            done = await self._storage.session.keeper.execute(self._held, (list(buckets),))
        return {int(bucket): int(lowest) for bucket, lowest in await done.fetchall()}

    async def marks(self) -> dict[int, list[Lease]]:
        """Give what is owned as it is stored, by lane."""
        keeper = self._storage.session.keeper
        async with self._alone:
            done = await keeper.execute(self._marks, (self._storage.owner,))
        return self._by_lane(await done.fetchall())

    def _by_lane(self, rows: Iterable[Sequence[Any]]) -> dict[int, list[Lease]]:
        found: dict[int, list[Lease]] = {}
        for row in rows:
            lease = Lease(*map(int, row))
            found.setdefault(lease.bucket % self._storage.lanes, []).append(lease)
        return {
            lane: leases
            for lane, leases in found.items()
            if len(leases) == BUCKETS // self._storage.lanes
        }


def _marks_of(lanes: Iterable[Lane]) -> tuple[list[int], list[int], list[int], list[int]] | None:
    rows = [
        (number, lane.epoch, bucket.low_water, bucket.rewinds)
        for lane in lanes
        for number, bucket in lane.buckets.items()
    ]
    if not rows:
        return None
    numbers, epochs, marks, rewinds = (list(column) for column in zip(*rows, strict=True))
    return numbers, epochs, marks, rewinds

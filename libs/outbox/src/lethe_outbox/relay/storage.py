"""All SQL of a running relay."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, cast
from uuid import UUID

import psycopg
from psycopg import sql

from lethe_outbox.errors import DatabaseReplacedError, UnsafeDatabaseError
from lethe_outbox.message import BUCKETS
from lethe_outbox.relay.lane import Fetched, Lane, Row
from lethe_outbox.relay.session import Session
from lethe_outbox.schema import Status

_COLUMNS: Final = """id, bucket, tableoid::int8 as part, topic, key,
        case when greatest(octet_length(payload), octet_length(headers)) <= $6
            then payload end as payload,
        case when octet_length(headers) <= $6 then headers end as headers"""

_FETCH: Final = """
select o.id, o.bucket, o.part, o.topic, o.key, o.payload, o.headers
from unnest($1::int2[], $2::int8[], $3::int8[], $4::int8[], $7::int4[], $8::int8[])
    as w (bucket, cursor, rewinds, epoch, most, up_to)
join {bucket} b
    on b.bucket = w.bucket and b.rewinds = w.rewinds and b.epoch = w.epoch and b.owner = $5
        and {same}
cross join lateral (
    select {columns} from {outbox} r
    where r.bucket = w.bucket and r.id > w.cursor and r.id <= w.up_to and r.status = 0
        {unless_held}
    order by r.id limit w.most
) o
"""
_UNLESS_HELD: Final = """
    and not exists (
        select from {dead} d
        where d.held and d.bucket = r.bucket and d.key = r.key and d.topic = r.topic and d.id < r.id
    )
"""
# One range of ids instead of one per bucket. By itself, so that no plan reads it otherwise.
_FETCH_FRESH: Final = """
with fresh as materialized (
    select {columns} from {outbox} r
    where r.id > $7 and r.id <= $8 and r.status = 0 {unless_held}
)
select f.id, f.bucket, f.part, f.topic, f.key, f.payload, f.headers
from fresh f
join unnest($1::int2[], $2::int8[], $3::int8[], $4::int8[])
    as w (bucket, cursor, rewinds, epoch) on w.bucket = f.bucket and w.cursor < f.id
join {bucket} b
    on b.bucket = w.bucket and b.rewinds = w.rewinds and b.epoch = w.epoch and b.owner = $5
        and {same}
order by f.id
"""
_EMPTY_UNTIL: Final = """
select coalesce((select id - 1 from {outbox} where id > $1 and id <= $2 order by id limit 1), $2)
where {same}
"""
# The last id must be read before the writers: it stands in a materialised part, and the writers are
# asked for per row of it. RowExclusiveLock is what everybody takes who inserts into the outbox or
# one of its partitions; holders of two-phase transactions have no pid.
_LOOK: Final = """
with drawn as materialized (
    select case when is_called then last_value else last_value - 1 end as id,
        (select sum(rewinds) from {bucket})::int8 as rewinds
    from {sequence}
)
select drawn.id, drawn.rewinds, {same}, array(
    select distinct l.virtualtransaction from pg_locks l
    where drawn.id is not null and l.locktype = 'relation' and l.mode = 'RowExclusiveLock'
        and l.granted
        and l.database = (select oid from pg_database where datname = current_database())
        and l.relation in (select relid from pg_partition_tree({outbox_name}::regclass))
        and (l.pid is null or l.pid <> all ($1::int4[]))
)
from drawn
"""
# Ids may be drawn again after a failover or a restore, and behind a pooler a session does not
# notice that it talks to another server.
_SAME: Final = "pg_postmaster_start_time() = {started}"
_REPLACED: Final = "the database is another one than this session began with"
_OWNED: Final = """
    {same} and
    (select count(*) from unnest($2::int2[], $3::int8[]) f (lane, epoch)
     join {bucket} b on b.bucket % {lanes} = f.lane and b.epoch = f.epoch
     where b.owner = $4 and b.lease_until > clock_timestamp())
    = {buckets_per_lane} * cardinality($2::int2[])
"""
# Marks need not be on disk: those a crash forgets are of rows that are published once more, behind
# what was published since. A burial must be, because later rows of its key go out after it.
_ACKNOWLEDGE: Final = """
update {part} set status = 1, sent_at = now()
where id = any ($1::int8[]) and status = 0 and {owned}
    and (select set_config('synchronous_commit', 'off', true)) is not null
"""
_ANY_PENDING: Final = "select from {part} where id = any ($1::int8[]) and status = 0 limit 1"
# The row that has the id elsewhere is another one, and what is not pending there is not dealt with.
_PAYLOADS: Final = """
select s.same, o.id, o.payload, o.headers
from (select {same} as same) s
left join (
    select id, payload, headers, sum(bytes) over (order by id) - bytes as before
    from (
        select id, payload, headers, octet_length(payload) + octet_length(headers) as bytes
        from {outbox} where id = any ($1::int8[]) and status = 0
    ) r
) o on o.before < $2
order by o.id
"""
_BURY: Final = """
with buried as (
    update {outbox}
    set status = $5, attempts = attempts + 1, dlt_attempts = dlt_attempts + $6, last_error = $7
    where id = $1 and status = 0 and {owned}
    returning id, created_at, event_id, bucket, topic, key, status
)
insert into {dead} (id, created_at, event_id, bucket, topic, key, status, reason, held)
select id, created_at, event_id, bucket, topic, key, status, $7, $8 from buried
on conflict (id) do update
set status = excluded.status, reason = excluded.reason, held = excluded.held, died_at = now()
returning id
"""
_STRAGGLERS: Final = """
select o.bucket, min(o.id) from {outbox} o
join unnest($1::int2[], $2::int8[]) w (bucket, low_water) on w.bucket = o.bucket
where o.id > $3 and o.id <= $4 and o.id <= w.low_water and o.status = 0
    and not exists (
        select from {dead} d
        where d.held and d.bucket = o.bucket and d.key = o.key and d.topic = o.topic and d.id < o.id
    )
group by o.bucket
"""


@dataclass(frozen=True, slots=True)
class Fence:
    """What an owner must still own for a write to take effect."""

    owner: UUID
    epochs: Mapping[int, int]
    """By lane."""


class RelayStorage:
    """The statements of one relay on one session."""

    def __init__(
        self,
        session: Session,
        schema: str | None,
        owner: UUID,
        lanes: int,
        *,
        large_payload_bytes: int = 8192,
    ) -> None:
        self.session: Final = session
        self.owner: Final = owner
        self._schema = schema
        self.lanes: Final = lanes
        self._large = large_payload_bytes
        self._parts: dict[int, str] = {}
        self._cursor = session.reader.cursor(binary=True)
        self._pids = session.pids()

    async def prepare(self) -> None:
        """Check the tables and compose the statements.

        Raises:
            UnsafeDatabaseError: ids are not drawn one by one, so a look would not be safe.
        """
        row = await self._one(
            "select s.seqrelid::regclass::text, s.seqcache, s.seqincrement, s.seqcycle"
            " from pg_sequence s"
            " where s.seqrelid = pg_get_serial_sequence($1, 'id')::regclass",
            self.name("outbox"),
        )
        if row is None or tuple(row[1:]) != (1, 1, False):
            raise UnsafeDatabaseError(
                "the ids of the outbox must come from its own sequence, one by one (cache 1)"
            )
        sequence = sql.SQL(row[0])
        self._fetch = self.compose(_FETCH, unless_held=sql.SQL(""))
        self._fetch_unless_held = self.compose(
            _FETCH, unless_held=sql.SQL(self.compose(_UNLESS_HELD))
        )
        self._fetch_fresh = self.compose(_FETCH_FRESH, unless_held=sql.SQL(""))
        self._fetch_fresh_unless_held = self.compose(
            _FETCH_FRESH, unless_held=sql.SQL(self.compose(_UNLESS_HELD))
        )
        self._empty_until = self.compose(_EMPTY_UNTIL)
        self._look = self.compose(_LOOK, sequence=sequence)
        self._bury = self.compose(_BURY)
        self._payloads = self.compose(_PAYLOADS)
        self._stragglers = self.compose(_STRAGGLERS)

    async def look(self) -> tuple[int, int, list[str]]:
        """Give the last id drawn, the sum of all rewinds, and then who writes the outbox.

        Raises:
            DatabaseReplacedError: another server answers than the one this session began with.
        """
        done = await self.session.watcher.execute(self._look, (self._pids,))
        row = await done.fetchone()
        if row is None:
            raise UnsafeDatabaseError("the sequence of the outbox is empty")
        if not row[2]:
            raise DatabaseReplacedError(_REPLACED)
        return int(row[0]), int(row[1] or 0), list(row[3])

    async def fetch(
        self, lanes: Sequence[Lane], limits: Mapping[int, int], ends: Mapping[int, int]
    ) -> list[Fetched]:
        """Read pending rows above each bucket's cursor, ascending within each bucket.

        Args:
            lanes: whose buckets are read.
            limits: most rows of each bucket.
            ends: the last id of each bucket that is looked at, so that it takes no longer the more
                sent rows lie above the cursor.
        """
        numbers = [number for lane in lanes for number in lane.buckets]
        most, up_to = (_array(of[number] for number in numbers) for of in (limits, ends))
        statement = self._fetch_unless_held if _holds_back(lanes) else self._fetch
        return await self._read(statement, lanes, most, up_to)

    async def fetch_fresh(self, lanes: Sequence[Lane], above: int, up_to: int) -> list[Fetched]:
        """Read what `fetch` does of a range of ids, each bucket's whole, for less.

        Args:
            lanes: whose buckets are read.
            above: no cursor of theirs is below this id.
            up_to: the last id.
        """
        statement = self._fetch_fresh_unless_held if _holds_back(lanes) else self._fetch_fresh
        return await self._read(statement, lanes, above, up_to)

    async def _read(self, statement: str, lanes: Sequence[Lane], *more: object) -> list[Fetched]:
        numbers, cursors, rewinds, epochs = [], [], [], []
        for lane in lanes:
            for number, bucket in lane.buckets.items():
                numbers.append(number)
                cursors.append(bucket.cursor)
                rewinds.append(bucket.rewinds)
                epochs.append(lane.epoch)
        arrays = [_array(values) for values in (numbers, cursors, rewinds, epochs)]
        await self._cursor.execute(statement, (*arrays, self.owner, self._large, *more))
        return cast("list[Fetched]", await self._cursor.fetchall())

    async def empty_until(self, above: int, up_to: int) -> int:
        """Give the last id until which no row can be seen above an id, at most `up_to`."""
        done = await self.session.reader.execute(self._empty_until, (above, up_to))
        row = await done.fetchone()
        return above if row is None else int(row[0])

    async def payloads(self, ids: Iterable[int], most_bytes: int) -> dict[int, tuple[bytes, bytes]]:
        """Read payloads and headers of pending rows, the first by id until they are `most_bytes`.

        Raises:
            DatabaseReplacedError: as `look`.
        """
        cursor = self.session.reader.cursor(binary=True)
        await cursor.execute(self._payloads, (_array(ids), most_bytes))
        rows = await cursor.fetchall()
        if not all(row[0] for row in rows):
            raise DatabaseReplacedError(_REPLACED)
        return {int(row[1]): (row[2], row[3]) for row in rows if row[1] is not None}

    async def acknowledge(self, part: int, ids: Iterable[int], fence: Fence) -> int:
        """Mark rows as sent; gives how many were, 0 if anything of the fence is not owned."""
        statement = self._parts.get(part)
        if statement is None:
            statement = await self._statement_for(part)
        try:
            done = await self.session.acker.execute(statement, (_array(ids), *_fence(fence)))
        except psycopg.errors.UndefinedTable:
            # The partition was dropped: nothing of it can be pending.
            return 0
        return done.rowcount

    async def any_pending(self, part: int, ids: Iterable[int]) -> bool:
        """Say whether any of these rows is pending."""
        statement = self.compose(_ANY_PENDING, part=await self._table_of(part))
        try:
            done = await self.session.acker.execute(statement, (_array(ids),))
        except psycopg.errors.UndefinedTable:
            return False
        return await done.fetchone() is not None

    async def owned(self, fence: Fence) -> bool:
        """Say whether everything of the fence is still owned."""
        statement = self.compose("select $1::int4 is null and {owned}")
        done = await self.session.acker.execute(statement, (None, *_fence(fence)))
        row = await done.fetchone()
        return bool(row and row[0])

    async def bury(
        self, row: Row, status: Status, *, reason: str, dlt_attempts: int, held: bool, fence: Fence
    ) -> bool:
        """Record that a row was refused; says whether it was still pending and owned."""
        values = (row.id, *_fence(fence), int(status), dlt_attempts, reason, held)
        done = await self.session.acker.execute(self._bury, values)
        return done.rowcount > 0

    async def stragglers(
        self, low_waters: Mapping[int, int], above: int, up_to: int
    ) -> dict[int, int]:
        """Give, by bucket, the lowest pending id in the range that is below its low-water mark."""
        values = (_array(low_waters.keys()), _array(low_waters.values()), above, up_to)
        done = await self.session.watcher.execute(self._stragglers, values)
        return {int(bucket): int(lowest) for bucket, lowest in await done.fetchall()}

    def name(self, table: str) -> str:
        """Quote the qualified name of a table."""
        return self._identifier(table).as_string(None)

    def compose(self, statement: str, **parts: sql.Composable) -> str:
        """Fill in the names of tables, the number of lanes, and the fence."""
        lanes = self.lanes
        names: dict[str, sql.Composable] = {
            "outbox": self._identifier("outbox"),
            "outbox_name": sql.Literal(self.name("outbox")),
            "dead": self._identifier("outbox_dead"),
            "bucket": self._identifier("outbox_bucket"),
            "relay": self._identifier("outbox_relay"),
            "columns": sql.SQL(_COLUMNS),
            "lanes": sql.Literal(lanes),
            "buckets_per_lane": sql.Literal(BUCKETS // lanes),
        }
        names["same"] = sql.SQL(_SAME).format(started=sql.Literal(self.session.identity.started))
        names["owned"] = sql.SQL(_OWNED).format(**names)
        return sql.SQL(cast("Any", statement)).format(**{**names, **parts}).as_string(None)

    async def _statement_for(self, part: int) -> str:
        statement = self.compose(_ACKNOWLEDGE, part=await self._table_of(part))
        self._parts[part] = statement
        return statement

    async def _table_of(self, part: int) -> sql.Identifier:
        row = await self._one(
            "select n.nspname, c.relname from pg_class c"
            " join pg_namespace n on n.oid = c.relnamespace where c.oid = $1::int8::oid",
            part,
        )
        return self._identifier("outbox") if row is None else sql.Identifier(row[0], row[1])

    async def _one(self, statement: str, *values: object) -> tuple[Any, ...] | None:
        return await (await self.session.acker.execute(statement, values)).fetchone()

    def _identifier(self, table: str) -> sql.Identifier:
        return (
            sql.Identifier(table) if self._schema is None else sql.Identifier(self._schema, table)
        )


def _holds_back(lanes: Sequence[Lane]) -> bool:
    return any(lane.held for lane in lanes)


def _array(values: Iterable[int]) -> str:
    # A literal is cheaper than psycopg's dumper of lists, and its type never changes.
    return "{" + ",".join(map(str, values)) + "}"


def _fence(fence: Fence) -> tuple[str, str, UUID]:
    return _array(fence.epochs.keys()), _array(fence.epochs.values()), fence.owner

"""What intake keeps, and sends on in the same transaction; all SQL of the service.

A submission runs under two advisory locks, the idempotency key's and then the person's, so
identical submissions at the same moment are answered one by one and never make two requests.
A request is open while `closed_at` is null, which holds exactly while its state is not final.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Final
from uuid import UUID
from zoneinfo import ZoneInfo

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    RowMapping,
    Table,
    Text,
    Uuid,
    bindparam,
    case,
    func,
    insert,
    literal,
    null,
    or_,
    select,
    tuple_,
    update,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from uuid_utils.compat import uuid7

from lethe_contracts.codec import Envelope, encode
from lethe_contracts.events import Event
from lethe_contracts.states import RequestState
from lethe_contracts.topics import PARTITIONS, REQUESTS
from lethe_intake.domain import (
    Joined,
    KeyReused,
    Move,
    Outcome,
    Replayed,
    Request,
    Submission,
    Taken,
    deadline,
    requested,
    watermarks,
)
from lethe_outbox import BUCKETS, Message, Outbox, bucket_of, settled_until
from lethe_runtime.database import SCHEMA

MIGRATIONS: Final = Path(__file__).parent / "migrations"
VERSION_TABLE: Final = "alembic_version_intake"

METADATA: Final = MetaData(schema=SCHEMA)

REQUEST: Final = Table(
    "erasure_request",
    METADATA,
    Column("request_id", Uuid, primary_key=True),
    Column("team", Text, nullable=False),
    Column("subject_ref", Text, nullable=False),
    Column("subject_ciphertext", Text),
    Column("reason", Text, nullable=False),
    Column("regulation", Text, nullable=False),
    Column("metadata", JSONB(none_as_null=True)),
    Column("requested_at", DateTime(timezone=True), nullable=False),
    Column("accepted_at", DateTime(timezone=True), nullable=False),
    Column("deadline", DateTime(timezone=True), nullable=False),
    Column("state", Text, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("job_id", Uuid),
    Column("job_sequence", BigInteger),
    Column("closed_at", DateTime(timezone=True)),
)

IDEMPOTENCY: Final = Table(
    "idempotency",
    METADATA,
    Column("team", Text, nullable=False),
    Column("key", Text, nullable=False),
    Column("fingerprint", LargeBinary, nullable=False),
    Column("request_id", Uuid, nullable=False),
    Column("joined", Boolean, nullable=False),
    Column("created_at", DateTime(timezone=True), nullable=False),
    PrimaryKeyConstraint("team", "key"),
)

CONTROL_TICK: Final = Table(
    "control_tick",
    METADATA,
    Column("singleton", Boolean, primary_key=True),
    Column("sequence", BigInteger, nullable=False),
    Column("written_at", DateTime(timezone=True), nullable=False),
)
"""The last round of watermarks, whichever instance wrote it."""

_STATE: Final = bindparam("to_state", type_=Text)

# Applies one event of the eraser, if it is newer than the newest applied: a repeated or overtaken
# event changes nothing.
_MOVE: Final = (
    update(REQUEST)
    .where(
        REQUEST.c.request_id == bindparam("of_request", type_=Uuid),
        or_(
            REQUEST.c.job_id.is_(None),
            tuple_(REQUEST.c.job_id, REQUEST.c.job_sequence)
            < tuple_(bindparam("of_job", type_=Uuid), bindparam("to_sequence", type_=BigInteger)),
        ),
    )
    .values(
        job_id=bindparam("of_job", type_=Uuid),
        job_sequence=bindparam("to_sequence", type_=BigInteger),
        state=_STATE,
        closed_at=bindparam("at", type_=DateTime(timezone=True)),
        subject_ciphertext=case(
            (bindparam("forget", type_=Boolean), null()),
            else_=REQUEST.c.subject_ciphertext,
        ),
    )
)


def _key_of(partition: int) -> str:
    names = (f"watermark-{number}" for number in count())
    return next(name for name in names if bucket_of(name) % PARTITIONS == partition)


_WATERMARK_KEYS: Final = tuple(_key_of(partition) for partition in range(PARTITIONS))


@dataclass(frozen=True, slots=True)
class Ticked:
    """A round of watermarks.

    Attributes:
        at: when it was written, on the database's clock.
        unsettled_buckets: buckets it says nothing of, because a dead letter of them is unresolved.
    """

    at: datetime
    unsettled_buckets: int


class IntakeStorage:
    """The requests and their promises.

    Args:
        engine: the database `intake`.
        outbox: where events are written in the same transaction.
        zone: where a deadline's days are counted.
    """

    def __init__(self, engine: AsyncEngine, outbox: Outbox, zone: ZoneInfo) -> None:
        self._engine = engine
        self._outbox = outbox
        self._unlocked = Outbox(outbox.schema, key_lock=False)
        self._zone = zone

    async def submit(self, submission: Submission) -> Outcome:
        """Write a request and its event, or find the one that is there already.

        When this returns, what it returned is committed. An error means that nothing was written,
        or that the caller cannot know: sending the same again is always safe.
        """
        async with self._engine.begin() as connection:
            known = await self._seen(connection, submission)
            if known is not None:
                return known
            # Under every version: another instance may write under another one meanwhile.
            for ref in sorted(submission.subject.refs):
                now = await _lock(connection, "person", submission.team, ref)
            asked = self._made(submission, now)
            there = await _joinable(connection, submission, asked.deadline)
            request = there or asked
            if there is None:
                await self._write(connection, submission, request, now)
            if submission.idempotency_key is not None:
                await connection.execute(
                    insert(IDEMPOTENCY).values(
                        team=submission.team,
                        key=submission.idempotency_key,
                        fingerprint=submission.fingerprints()[0],
                        request_id=request.request_id,
                        joined=there is not None,
                        created_at=now,
                    )
                )
        return Taken(request) if there is None else Joined(there)

    async def find(self, team: str, request_id: UUID) -> Request | None:
        """Look up one request of `team`."""
        query = select(REQUEST).where(REQUEST.c.request_id == request_id, REQUEST.c.team == team)
        async with self._engine.connect() as connection:
            row = (await connection.execute(query)).mappings().one_or_none()
        return _request(row) if row else None

    async def count_open(self) -> Mapping[RequestState, int]:
        """Count the open requests of every state that has any."""
        query = (
            select(REQUEST.c.state, func.count())
            .where(REQUEST.c.closed_at.is_(None))
            .group_by(REQUEST.c.state)
        )
        async with self._engine.connect() as connection:
            rows = (await connection.execute(query)).all()
        return {RequestState(state): count for state, count in rows}

    async def watermark(self, every: timedelta) -> Ticked | None:
        """Write a round of watermarks, unless one was written within `every`, by whom ever.

        Rounds follow each other under the lock of one row, which serialises the writers of their
        keys; the outbox's own locks would stop submissions meanwhile.
        """
        due = (
            update(CONTROL_TICK)
            .where(
                or_(
                    CONTROL_TICK.c.written_at <= func.now() - literal(every),
                    # The clock was ahead and was set back: waiting for that moment is silence.
                    CONTROL_TICK.c.written_at > func.clock_timestamp(),
                )
            )
            .values(sequence=CONTROL_TICK.c.sequence + 1, written_at=func.now())
            .returning(CONTROL_TICK.c.sequence, CONTROL_TICK.c.written_at)
        )
        async with self._engine.begin() as connection:
            tick = (await connection.execute(due)).one_or_none()
            if tick is None:
                return None
            settled = await settled_until(connection, REQUESTS, schema=SCHEMA)
            events = watermarks(
                settled, tick.sequence, tick.written_at, keys=_WATERMARK_KEYS, new_id=uuid7
            )
            await self._unlocked.append_async(connection, *map(_message, events))
        return Ticked(at=tick.written_at, unsettled_buckets=BUCKETS - len(settled))

    async def _seen(self, connection: AsyncConnection, submission: Submission) -> Outcome | None:
        """Take the idempotency key's lock and see what the key was used for."""
        if submission.idempotency_key is None:
            return None
        await _lock(connection, "idempotency", submission.team, submission.idempotency_key)
        query = (
            select(IDEMPOTENCY.c.fingerprint, IDEMPOTENCY.c.joined, REQUEST)
            .join(REQUEST, REQUEST.c.request_id == IDEMPOTENCY.c.request_id)
            .where(
                IDEMPOTENCY.c.team == submission.team,
                IDEMPOTENCY.c.key == submission.idempotency_key,
            )
        )
        used = (await connection.execute(query)).mappings().one_or_none()
        if used is None:
            return None
        if bytes(used["fingerprint"]) not in submission.fingerprints():
            return KeyReused()
        return Replayed(_request(used), used["joined"])

    def _made(self, submission: Submission, now: datetime) -> Request:
        requested_at = submission.requested_at or now
        return Request(
            request_id=uuid7(),
            team=submission.team,
            state=RequestState.REQUESTED,
            reason=submission.reason,
            regulation=submission.regulation,
            metadata=submission.metadata,
            requested_at=requested_at,
            accepted_at=now,
            deadline=deadline(requested_at, self._zone),
        )

    async def _write(
        self, connection: AsyncConnection, submission: Submission, request: Request, now: datetime
    ) -> None:
        await connection.execute(
            insert(REQUEST).values(
                request_id=request.request_id,
                team=request.team,
                subject_ref=submission.subject.ref,
                subject_ciphertext=submission.subject.token,
                reason=request.reason,
                regulation=request.regulation,
                metadata=request.metadata,
                requested_at=request.requested_at,
                accepted_at=request.accepted_at,
                deadline=request.deadline,
                state=request.state,
                attempt=1,
            )
        )
        event = requested(submission, request, event_id=uuid7(), at=now)
        await self._outbox.append_async(connection, _message(event))


async def apply_moves(connection: AsyncConnection, moves: Sequence[Move]) -> None:
    """Apply what the eraser said, in this order, in the caller's transaction.

    An event that names no state does not count as the newest either: an earlier one may still
    arrive, as a replayed dead letter does.
    """
    parameters = [
        {
            "of_request": move.request_id,
            "of_job": move.job_id,
            "to_sequence": move.sequence,
            "to_state": move.state,
            "at": move.closed_at,
            "forget": move.forgets_subject,
        }
        for move in moves
        if move.state is not None
    ]
    if parameters:
        await connection.execute(_MOVE, parameters)


def _message(envelope: Envelope[Event]) -> Message:
    encoded = encode(envelope)
    return Message(
        topic=encoded.topic,
        key=encoded.key,
        payload=encoded.value,
        headers=encoded.headers,
        event_id=envelope.id,
    )


async def _joinable(
    connection: AsyncConnection, submission: Submission, by: datetime
) -> Request | None:
    """Find the team's request for this person, under whatever key version, that does for this one.

    It must end no later than `by`, and the eraser must not have gone through everything already:
    what the person did since is for a request of its own.
    """
    query = (
        select(REQUEST)
        .where(
            REQUEST.c.team == submission.team,
            REQUEST.c.subject_ref.in_(submission.subject.refs),
            REQUEST.c.closed_at.is_(None),
            REQUEST.c.state != RequestState.ERASED,
            REQUEST.c.deadline <= by,
        )
        .order_by(REQUEST.c.request_id)
        .limit(1)
    )
    row = (await connection.execute(query)).mappings().one_or_none()
    return _request(row) if row else None


async def _lock(connection: AsyncConnection, *what: str) -> datetime:
    """Hold `what` to the end of the transaction; returns the database's time once it is held."""
    key = func.hashtextextended("lethe intake " + " ".join(what), 0)
    await connection.execute(select(func.pg_advisory_xact_lock(key)))
    now: datetime = (await connection.execute(select(func.clock_timestamp()))).scalar_one()
    return now


def _request(row: RowMapping) -> Request:
    return Request(
        request_id=row["request_id"],
        team=row["team"],
        state=RequestState(row["state"]),
        reason=row["reason"],
        regulation=row["regulation"],
        metadata=row["metadata"],
        requested_at=row["requested_at"],
        accepted_at=row["accepted_at"],
        deadline=row["deadline"],
        closed_at=row["closed_at"],
    )

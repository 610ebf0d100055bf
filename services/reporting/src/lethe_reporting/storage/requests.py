"""Reading: requests in pages, one request with its timeline, and what the metrics show."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy import ColumnElement, and_, desc, func, literal_column, not_, or_, select
from sqlalchemy.ext.asyncio import AsyncEngine

from lethe_contracts.codec import type_of
from lethe_contracts.events import Held, Released
from lethe_contracts.states import RequestState
from lethe_reporting.domain import DONE, RequestView
from lethe_reporting.storage.projection import view_of
from lethe_reporting.storage.tables import EVENT_LOG, REQUEST

LONGEST_TIMELINE: Final = 1000
"""Events of one request that are shown, the newest; a heavy person has hundreds of batches."""

_OWED: Final = REQUEST.c.state.not_in(sorted(DONE))
_OPEN: Final = REQUEST.c.state.not_in([state for state in RequestState if state.is_final])
_OVERDUE: Final = and_(_OWED, func.coalesce(REQUEST.c.deadline < func.now(), False))
_SEEN: Final = select(REQUEST, _OVERDUE.label("overdue"))
_NONE: Final[ColumnElement[Any]] = literal_column("'{}'::uuid[]")
"""Written out, so that the index on events about no request is found."""
_ABOUT_PERSON: Final = (type_of(Held), type_of(Released))


@dataclass(frozen=True, slots=True)
class Asked:
    """Which requests are wanted; None and empty mean all."""

    states: Sequence[RequestState] = ()
    team: str | None = None
    overdue: bool | None = None
    due_before: datetime | None = None
    after: UUID | None = None
    """Only older requests than this one."""
    limit: int = 50


@dataclass(frozen=True, slots=True)
class Seen:
    """A request, and whether it is late on the database's clock."""

    view: RequestView
    overdue: bool


@dataclass(frozen=True, slots=True)
class Logged:
    """One event of a timeline."""

    time: datetime
    source: str
    type: str
    sequence: int
    data: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Figures:
    """What the read model looks like now."""

    by_state: Mapping[RequestState, int]
    slack_seconds: float | None
    """Until the earliest deadline of an open request; None if none is open."""


class Requests:
    """The requests of the read model.

    Args:
        engine: the database `reporting`.
    """

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def page(self, asked: Asked) -> list[Seen]:
        """List up to `limit` requests, the newest first (request ids are time-ordered)."""
        newest_first = _SEEN.order_by(desc(REQUEST.c.request_id))
        query = newest_first.where(*_conditions(asked)).limit(asked.limit)
        async with self._engine.connect() as connection:
            rows = (await connection.execute(query)).mappings().all()
        return [Seen(view_of(row), row["overdue"]) for row in rows]

    async def find(self, request_id: UUID) -> tuple[Seen, list[Logged]] | None:
        """Look up one request and its events, the newest first, one more than are shown at most."""
        async with self._engine.connect() as connection:
            found = await connection.execute(_SEEN.where(REQUEST.c.request_id == request_id))
            row = found.mappings().one_or_none()
            if row is None:
                return None
            events = await connection.execute(_timeline(request_id, row["subject_ref"]))
            logged = [Logged(**event) for event in events.mappings()]
        return Seen(view_of(row), row["overdue"]), logged

    async def figures(self) -> Figures:
        """Count requests by state and find the smallest slack among the open ones."""
        slack = func.extract("epoch", func.min(REQUEST.c.deadline) - func.now())
        async with self._engine.connect() as connection:
            counted = await connection.execute(
                select(REQUEST.c.state, func.count()).group_by(REQUEST.c.state)
            )
            by_state = {RequestState(state): count for state, count in counted}
            smallest = (await connection.execute(select(slack).where(_OPEN, _OWED))).scalar_one()
        return Figures(by_state, None if smallest is None else float(smallest))


def _conditions(asked: Asked) -> list[ColumnElement[bool]]:
    conditions: list[ColumnElement[bool]] = []
    if asked.states:
        conditions.append(REQUEST.c.state.in_(asked.states))
    if asked.team is not None:
        conditions.append(REQUEST.c.team == asked.team)
    if asked.overdue is not None:
        conditions.append(_OVERDUE if asked.overdue else not_(_OVERDUE))
    if asked.due_before is not None:
        conditions.append(REQUEST.c.deadline < asked.due_before)
    if asked.after is not None:
        conditions.append(REQUEST.c.request_id < asked.after)
    return conditions


def _timeline(request_id: UUID, subject_ref: str) -> Any:
    """Select the events that name the request, and the holds on its person."""
    log = EVENT_LOG.c
    return (
        select(log.time, log.source, log.type, log.sequence, log.data)
        .where(
            or_(
                log.request_ids.contains([request_id]),
                and_(
                    log.request_ids == _NONE,
                    log.subject_ref == subject_ref,
                    log.type.in_(_ABOUT_PERSON),
                ),
            )
        )
        .order_by(desc(log.time), desc(log.source), desc(log.sequence))
        .limit(LONGEST_TIMELINE + 1)
    )

"""Writing: a batch of events goes into the log and the read model, in the caller's transaction."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from typing import Any, Final
from uuid import UUID

from sqlalchemy import bindparam, func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from lethe_contracts.codec import Envelope, type_of
from lethe_contracts.events import Event, TypeTotals
from lethe_contracts.states import RequestState
from lethe_reporting.domain import RequestView, apply, is_logged, request_ids, stripped
from lethe_reporting.storage.tables import EVENT_LOG, REQUEST

_FIELDS: Final = tuple(each.name for each in fields(RequestView))

_APPEND: Final = (
    insert(EVENT_LOG)
    .values(recorded_at=func.clock_timestamp())
    .on_conflict_do_nothing(index_elements=["event_id"])
)
_BEGIN: Final = insert(REQUEST).on_conflict_do_nothing(index_elements=["request_id"])
_WRITE: Final = (
    update(REQUEST)
    .where(REQUEST.c.request_id == bindparam("of_request"))
    .values({name: bindparam(name) for name in _FIELDS if name != "request_id"})
)


async def project(connection: AsyncConnection, envelopes: Sequence[Envelope[Event]]) -> None:
    """Append the events to the log and take them into the requests they speak of.

    Both can be repeated: an event that is there changes nothing.
    """
    await _append(connection, envelopes)
    spoken_of: dict[UUID, list[Envelope[Event]]] = {}
    for envelope in envelopes:
        for request_id in request_ids(envelope.event):
            spoken_of.setdefault(request_id, []).append(envelope)
    if not spoken_of:
        return
    changed: list[dict[str, Any]] = []
    for before in await _locked(connection, spoken_of):
        after = before
        for envelope in spoken_of[before.request_id]:
            after = apply(after, before.request_id, envelope)
        if after != before:
            changed.append({"of_request": after.request_id, **_row(after)})
    if changed:
        await connection.execute(_WRITE, changed)


async def _append(connection: AsyncConnection, envelopes: Iterable[Envelope[Event]]) -> None:
    rows = [
        {
            "event_id": envelope.id,
            "source": envelope.source,
            "aggregate": envelope.aggregate,
            "sequence": envelope.sequence,
            "type": type_of(type(envelope.event)),
            "time": envelope.time,
            "subject_ref": envelope.subject_ref,
            "request_ids": list(request_ids(envelope.event)),
            "data": stripped(envelope.event),
            "traceparent": envelope.traceparent,
        }
        for envelope in envelopes
        if is_logged(envelope.event)
    ]
    if rows:
        await connection.execute(_APPEND, rows)


async def _locked(
    connection: AsyncConnection, spoken_of: Mapping[UUID, Sequence[Envelope[Event]]]
) -> list[RequestView]:
    """Lock the requests, those not seen yet included, and read them.

    Always in order of their ids, so that two consumers never wait for each other in a circle.
    """
    wanted = sorted(spoken_of)
    new = [
        _row(RequestView(request_id, spoken_of[request_id][0].subject_ref)) for request_id in wanted
    ]
    await connection.execute(_BEGIN, new)
    rows = await connection.execute(
        select(REQUEST)
        .where(REQUEST.c.request_id.in_(wanted))
        .order_by(REQUEST.c.request_id)
        .with_for_update()
    )
    return [view_of(row) for row in rows.mappings()]


def view_of(row: Mapping[Any, Any]) -> RequestView:
    """Read a row of `REQUEST`."""
    values = {name: row[name] for name in _FIELDS}
    values["state"] = RequestState(values["state"])
    values["totals"] = {
        name: TypeTotals.model_validate(totals) for name, totals in values["totals"].items()
    }
    return RequestView(**values)


def _row(view: RequestView) -> dict[str, Any]:
    row = {name: getattr(view, name) for name in _FIELDS}
    row["blockers"] = dict(view.blockers)
    row["totals"] = {name: totals.model_dump() for name, totals in view.totals.items()}
    return row

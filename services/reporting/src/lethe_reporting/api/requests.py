"""`/v1/requests`: where every erasure request stands."""

import re
from collections.abc import Sequence
from datetime import datetime
from http import HTTPStatus
from typing import Annotated, Any, Final, Self
from uuid import UUID

from fastapi import APIRouter, Query
from pydantic import AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError

from lethe_contracts.codec import TYPE_PREFIX
from lethe_contracts.events import TypeTotals
from lethe_contracts.states import RequestState
from lethe_reporting.api import cursors
from lethe_reporting.domain import summed
from lethe_reporting.storage.requests import LONGEST_TIMELINE, Asked, Logged, Requests, Seen
from lethe_runtime.problems import Problem, responses

PATH: Final = "/v1/requests"

_UNSHOWN: Final = frozenset({"job_id", "request_id", "request_ids", "totals"})
"""What an event repeats of its request, or would make a timeline of a thousand events large."""


def _no_number(value: object) -> object:
    """Refuse what pydantic would take for seconds since 1970, such as a year."""
    if isinstance(value, str) and re.fullmatch(r"[+-]?[0-9.]+", value):
        raise PydanticCustomError("datetime_parsing", "a time is written as 2026-11-20T09:00:00Z")
    return value


class ListQuery(BaseModel):
    """Which requests are listed. An unknown parameter is refused, not ignored."""

    model_config = ConfigDict(extra="forbid")

    status: list[RequestState] = Field(
        default_factory=list, description="In one of these states; repeat it for several."
    )
    team: str | None = Field(
        default=None,
        pattern=r"^[a-z0-9][a-z0-9-]{0,62}$",
        description="Asked for by this team.",
    )
    overdue: bool | None = Field(
        default=None,
        description="true: the deadline has passed and the request is neither verified nor "
        "cancelled. false: the others.",
    )
    due_before: Annotated[AwareDatetime, BeforeValidator(_no_number)] | None = Field(
        default=None, description="With a deadline before this time, done or not."
    )
    cursor: str | None = Field(
        default=None, max_length=64, description="`next_cursor` of the page before."
    )
    limit: int = Field(default=50, ge=1, le=200, description="Requests per page.")


class RequestDocument(BaseModel):
    """One erasure request. What no event has said yet is null."""

    id: UUID
    state: RequestState
    state_since: datetime | None = Field(description="When the eraser said so; null: not a word.")
    overdue: bool = Field(
        description="The deadline has passed, and it is neither verified nor cancelled."
    )
    deadline: datetime | None
    team: str | None
    subject_ref: str = Field(description="The person, as everybody but intake knows them.")
    reason: str | None
    regulation: str | None
    requested_at: datetime | None
    attempt: int | None = Field(description="Above 1, intake asked the eraser again.")
    cancel_requested_at: datetime | None
    job_id: UUID | None
    not_before: datetime | None = Field(description="While accepted: it does not start earlier.")
    hold_id: UUID | None = Field(description="While held: the legal hold.")
    blockers: dict[str, int] = Field(description="While blocked: rows left, by reason code.")
    error: str | None = Field(description="If failed: the class of the error.")
    totals: TypeTotals = Field(description="What its job has done so far, over all types.")
    closed_at: datetime | None
    updated_at: datetime | None = Field(description="The newest event that speaks of it.")

    @classmethod
    def of(cls, seen: Seen) -> Self:
        """Show a request."""
        view = seen.view
        return cls(
            id=view.request_id,
            state=view.state,
            state_since=view.state_since,
            overdue=seen.overdue,
            deadline=view.deadline,
            team=view.team,
            subject_ref=view.subject_ref,
            reason=view.reason,
            regulation=view.regulation,
            requested_at=view.requested_at,
            attempt=view.attempt,
            cancel_requested_at=view.cancel_requested_at,
            job_id=view.job_id,
            not_before=view.not_before,
            hold_id=view.hold_id,
            blockers=dict(view.blockers),
            error=view.error,
            totals=summed(view.totals),
            closed_at=view.closed_at,
            updated_at=view.updated_at,
        )


class TimelineEntry(BaseModel):
    """One event that speaks of the request, or a legal hold on its person."""

    at: datetime
    event: str = Field(description="Its name, e.g. `batch_erased`.")
    source: str = Field(description="Who said it: `lethe/intake` or `lethe/eraser`.")
    sequence: int = Field(description="Grows per source and aggregate, whatever the clocks say.")
    details: dict[str, Any] = Field(description="What else the event says.")


class RequestDetail(RequestDocument):
    """One erasure request with its counts and its timeline."""

    counts: dict[str, TypeTotals] = Field(description="What its job has done, per request type.")
    timeline: list[TimelineEntry] = Field(description="Oldest first.")
    timeline_complete: bool = Field(
        description=f"false: only the newest {LONGEST_TIMELINE} events are shown."
    )


class RequestPage(BaseModel):
    """Requests, the newest first."""

    items: list[RequestDocument]
    next_cursor: str | None = Field(description="For the next page; null: this is the last one.")


def routes(requests: Requests) -> APIRouter:
    """Make the routes."""
    router = APIRouter(tags=["requests"])

    @router.get(
        PATH,
        summary="List erasure requests of all teams",
        responses=responses(401, 403, 422, 503),
    )
    async def listed(query: Annotated[ListQuery, Query()]) -> RequestPage:
        seen = await requests.page(
            Asked(
                states=query.status,
                team=query.team,
                overdue=query.overdue,
                due_before=query.due_before,
                after=None if query.cursor is None else cursors.request_of(query.cursor),
                # One more than is shown tells whether there is another page.
                limit=query.limit + 1,
            )
        )
        shown = seen[: query.limit]
        more = len(seen) > len(shown)
        return RequestPage(
            items=[RequestDocument.of(each) for each in shown],
            next_cursor=cursors.after_request(shown[-1].view.request_id) if more else None,
        )

    @router.get(
        PATH + "/{request_id}",
        summary="Look at one erasure request",
        responses=responses(401, 403, 404, 422, 503),
    )
    async def look(request_id: UUID) -> RequestDetail:
        found = await requests.find(request_id)
        if found is None:
            raise Problem(
                HTTPStatus.NOT_FOUND,
                "unknown-request",
                "No event has spoken of such an erasure request",
            )
        seen, events = found
        return RequestDetail(
            **RequestDocument.of(seen).model_dump(),
            counts=dict(seen.view.totals),
            timeline=_timeline(events[:LONGEST_TIMELINE]),
            timeline_complete=len(events) <= LONGEST_TIMELINE,
        )

    return router


def _timeline(newest_first: Sequence[Logged]) -> list[TimelineEntry]:
    return [
        TimelineEntry(
            at=event.time,
            event=event.type.removeprefix(TYPE_PREFIX).rpartition(".")[0],
            source=event.source,
            sequence=event.sequence,
            details={name: value for name, value in event.data.items() if name not in _UNSHOWN},
        )
        for event in reversed(newest_first)
    ]

"""What the events make of a request: a fold whose result does not depend on the order of arrival.

Intake and the eraser publish on two topics, so the events of a request arrive in any order and more
than once. Each part of a request is therefore taken from the newest event that carries it:

- what was asked for: the newest `requested` of intake, by its sequence;
- its state: the newest event of the eraser that names a state, by the job's sequence. As soon as
  there is one it decides, whatever intake published and whichever arrived first;
- what was done: the totals of the newest event of the eraser.

Should two jobs ever name one request, the events of the younger job decide (job ids are
time-ordered).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from lethe_contracts.codec import Envelope
from lethe_contracts.events import (
    STATE_AFTER,
    Accepted,
    Blocked,
    CancelRequested,
    Event,
    Failed,
    HoldApplied,
    JobEvent,
    Requested,
    TypeTotals,
    Watermark,
)
from lethe_contracts.states import BlockReason, RequestState

DONE: Final = frozenset({RequestState.VERIFIED, RequestState.CANCELLED})
"""Nothing is owed to anybody any more; in every other state a deadline can be missed."""


@dataclass(frozen=True, slots=True)
class RequestView:
    """One erasure request as reporting knows it; what no event has said yet is None."""

    request_id: UUID
    subject_ref: str

    requested_sequence: int = 0
    """Intake's sequence behind the fields below, 0 if only the eraser spoke of the request."""
    attempt: int | None = None
    team: str | None = None
    reason: str | None = None
    regulation: str | None = None
    requested_at: datetime | None = None
    deadline: datetime | None = None

    cancel_requested_at: datetime | None = None

    job_id: UUID | None = None
    state_sequence: int = 0
    """The job's sequence behind the fields below."""
    state: RequestState = RequestState.REQUESTED
    state_since: datetime | None = None
    """The time of the event that named the state; of a running job, when its last batch ended."""
    not_before: datetime | None = None
    hold_id: UUID | None = None
    blockers: Mapping[str, int] = field(default_factory=dict)
    """Why it is blocked: rows per reason code."""
    error: str | None = None
    """The class of the error with which it failed."""
    closed_at: datetime | None = None

    totals_sequence: int = 0
    """The job's sequence behind `totals`."""
    totals: Mapping[str, TypeTotals] = field(default_factory=dict)

    updated_at: datetime | None = None
    """The time of the newest event that speaks of the request."""


def request_ids(event: Event) -> tuple[UUID, ...]:
    """Name the requests an event speaks of; holds and watermarks speak of none."""
    if isinstance(event, JobEvent):
        return event.request_ids
    if isinstance(event, Requested | CancelRequested):
        return (event.request_id,)
    return ()


def is_logged(event: Event) -> bool:
    """Say whether the event belongs into the log; a watermark says nothing of any person."""
    return not isinstance(event, Watermark)


def stripped(event: Event) -> dict[str, Any]:
    """Give an event's data as JSON without the subject's ciphertext, which nobody here needs."""
    return event.model_dump(mode="json", exclude={"subject"})


def apply(view: RequestView | None, request_id: UUID, envelope: Envelope[Event]) -> RequestView:
    """Take one event that speaks of `request_id` into its view; None is a request not seen yet.

    Applying an event again, or in another order, gives the same view.
    """
    known = view or RequestView(request_id=request_id, subject_ref=envelope.subject_ref)
    event = envelope.event
    if isinstance(event, Requested):
        known = _requested(known, envelope, event)
    elif isinstance(event, CancelRequested):
        known = replace(known, cancel_requested_at=_first(known.cancel_requested_at, envelope.time))
    elif isinstance(event, JobEvent):
        known = _of_job(known, envelope, event)
    return replace(known, updated_at=_last(known.updated_at, envelope.time))


def _requested(known: RequestView, envelope: Envelope[Event], event: Requested) -> RequestView:
    if envelope.sequence <= known.requested_sequence:
        return known
    return replace(
        known,
        requested_sequence=envelope.sequence,
        subject_ref=envelope.subject_ref,
        attempt=event.attempt,
        team=event.team,
        reason=event.reason,
        regulation=event.regulation,
        requested_at=event.requested_at,
        deadline=event.deadline,
    )


def _of_job(known: RequestView, envelope: Envelope[Event], event: JobEvent) -> RequestView:
    if known.job_id is not None and event.job_id < known.job_id:
        return known
    if event.job_id != known.job_id:
        known = _without_job(known, event.job_id)
    if envelope.sequence > known.totals_sequence:
        known = replace(known, totals_sequence=envelope.sequence, totals=event.totals)
    state = STATE_AFTER.get(type(event))
    if state is None or envelope.sequence <= known.state_sequence:
        return known
    return replace(
        known,
        state_sequence=envelope.sequence,
        state=state,
        state_since=envelope.time,
        not_before=event.not_before if isinstance(event, Accepted) else None,
        hold_id=event.hold_id if isinstance(event, HoldApplied) else None,
        blockers=_codes(event.reasons) if isinstance(event, Blocked) else {},
        error=event.error if isinstance(event, Failed) else None,
        closed_at=envelope.time if state.is_final else None,
    )


def _without_job(known: RequestView, job_id: UUID) -> RequestView:
    """Forget what an older job said."""
    fresh = RequestView(request_id=known.request_id, subject_ref=known.subject_ref)
    return replace(
        known,
        job_id=job_id,
        state_sequence=fresh.state_sequence,
        state=fresh.state,
        state_since=fresh.state_since,
        not_before=fresh.not_before,
        hold_id=fresh.hold_id,
        blockers=fresh.blockers,
        error=fresh.error,
        closed_at=fresh.closed_at,
        totals_sequence=fresh.totals_sequence,
        totals=fresh.totals,
    )


def _codes(reasons: Mapping[BlockReason, int]) -> dict[str, int]:
    return {reason.value: rows for reason, rows in reasons.items()}


def _first(known: datetime | None, new: datetime) -> datetime:
    return new if known is None else min(known, new)


def _last(known: datetime | None, new: datetime) -> datetime:
    return new if known is None else max(known, new)


def summed(totals: Mapping[str, TypeTotals]) -> TypeTotals:
    """Add up the totals of every type."""
    parts = [each.model_dump() for each in totals.values()]
    return TypeTotals(
        **{name: sum(part[name] for part in parts) for name in TypeTotals.model_fields}
    )

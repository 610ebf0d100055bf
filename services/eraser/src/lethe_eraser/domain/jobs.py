"""A job: the erasure of one person, its states, and what it says of itself."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from types import MappingProxyType
from typing import Final
from uuid import UUID

from lethe_contracts.events import (
    Accepted,
    Blocked,
    Cancelled,
    Erased,
    Failed,
    HoldApplied,
    JobEvent,
    Started,
    TypeTotals,
    Verified,
)
from lethe_contracts.states import BlockReason

MAX_ATTEMPTS: Final = 5
"""Errors in a row, none of them a server that is away, after which a job is given up."""

MAX_ROUNDS: Final = 5
"""Passes over a person's rows before what still changes is blocked as `still_writing`."""

TURN_BATCHES: Final = 32
"""Batches after which a job lets those go first that had none of theirs: an ordinary person is
erased within them, and nobody waits for the whole of somebody heavy."""

Totals = Mapping[str, TypeTotals]
Urgency = tuple[bool, datetime, datetime, UUID]
"""Orders jobs; the smallest goes first."""


class TransitionError(Exception):
    """A job was to go from one state to another that the table of transitions does not know."""


class JobState(StrEnum):
    """Where a job stands."""

    ACCEPTED = "accepted"
    RUNNING = "running"
    HELD = "held"
    ERASED = "erased"
    VERIFIED = "verified"
    BLOCKED = "blocked"
    CANCELLED = "cancelled"
    FAILED = "failed"

    @property
    def is_final(self) -> bool:
        """Whether nothing will happen to the job by itself any more."""
        return self in _FINAL


_S = JobState
TRANSITIONS: Final[Mapping[JobState, frozenset[JobState]]] = MappingProxyType(
    {
        # Blocked before the end only as a whole: the person is a customer again.
        _S.ACCEPTED: frozenset({_S.RUNNING, _S.HELD, _S.CANCELLED, _S.BLOCKED, _S.FAILED}),
        _S.RUNNING: frozenset({_S.ERASED, _S.HELD, _S.BLOCKED, _S.FAILED}),
        # Back to where it was held from; withdrawn only if nothing had begun.
        _S.HELD: frozenset({_S.ACCEPTED, _S.RUNNING, _S.ERASED, _S.CANCELLED}),
        # Running again when the verification scan found something left.
        _S.ERASED: frozenset({_S.RUNNING, _S.VERIFIED, _S.BLOCKED, _S.HELD, _S.FAILED}),
        _S.VERIFIED: frozenset(),
        # Only when somebody retries it, what stopped it being out of the way.
        _S.BLOCKED: frozenset({_S.RUNNING}),
        _S.CANCELLED: frozenset(),
        _S.FAILED: frozenset({_S.RUNNING}),
    }
)

_FINAL: Final = frozenset({_S.VERIFIED, _S.BLOCKED, _S.CANCELLED, _S.FAILED})

RUNNABLE: Final = (JobState.ACCEPTED, JobState.RUNNING, JobState.ERASED)
"""States in which an executor may take a job."""

UNFINISHED: Final = tuple(state for state in JobState if not state.is_final)


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One request of a job; a withdrawn one stays on record."""

    request_id: UUID
    attempt: int
    deadline: datetime
    requested_at: datetime
    cancelled: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """The erasure of one person on behalf of one or more requests."""

    job_id: UUID
    subject_ref: str
    state: JobState
    subject: str | None
    """The person as ciphertext; gone once the job is verified or withdrawn."""
    not_before: datetime
    """When the window was to open next as the job was accepted. It runs whenever that is open."""
    created_at: datetime
    held_from: JobState | None = None
    scanning: bool = False
    """The verification scan has begun: a later request opens the next job."""
    generation: int = 0
    """Grows whenever an executor takes the job; writes of an earlier one are refused."""
    sequence: int = 0
    round: int = 1
    batches: int = 0
    """The number of the last batch whose intent was committed."""
    attempts: int = 0
    paused: bool = False
    """An operator wants nothing more to begin."""
    run_now: bool = False
    """An operator wants it to run at any hour."""
    totals: Totals = field(default_factory=dict)
    reasons: Mapping[BlockReason, int] = field(default_factory=dict)
    locked_until: datetime | None = None
    """If blocked by locks that end: when the last of them does."""
    error: str | None = None
    retried_at: datetime | None = None
    """When somebody last looked at why it was blocked, and let it begin anew."""
    traceparent: str | None = None
    requests: Mapping[UUID, Request] = field(default_factory=dict)

    @property
    def is_joinable(self) -> bool:
        """Whether a new request of the person becomes one of this job's."""
        return not self.state.is_final and not self.scanning

    @property
    def active(self) -> tuple[UUID, ...]:
        """The requests that were not withdrawn, in a stable order."""
        return tuple(sorted(id_ for id_, request in self.requests.items() if not request.cancelled))

    @property
    def spoken_of(self) -> tuple[UUID, ...]:
        """The requests that an event of the whole job names."""
        return self.active or tuple(sorted(self.requests))

    @property
    def deadline(self) -> datetime:
        """The earliest deadline of the requests it works for."""
        working_for = [request for request in self.requests.values() if not request.cancelled]
        return min(request.deadline for request in working_for or self.requests.values())

    @property
    def requested_at(self) -> datetime:
        """Since when the person wants to be erased: the earliest of the requests it works for."""
        working_for = [request for request in self.requests.values() if not request.cancelled]
        return min(request.requested_at for request in working_for or self.requests.values())

    @property
    def looked_at(self) -> datetime:
        """The last moment somebody decided on the person; an account opened later is news."""
        return max(self.requested_at, self.retried_at or self.requested_at)

    @property
    def urgency(self) -> Urgency:
        """Its place among those that wait: who had no turn yet, then the earliest deadline."""
        return (self.batches >= TURN_BATCHES, self.deadline, self.created_at, self.job_id)

    def to(self, state: JobState) -> "Job":
        """Move to `state`; the subject is forgotten with the states that need it no more.

        Raises:
            TransitionError: the table of transitions has no such move.
        """
        if state not in TRANSITIONS[self.state]:
            raise TransitionError(f"a job cannot go from {self.state} to {state}")
        forget = state in {JobState.VERIFIED, JobState.CANCELLED}
        return replace(
            self,
            state=state,
            held_from=self.state if state is JobState.HELD else None,
            subject=None if forget else self.subject,
        )

    def again(self, now: datetime) -> "Job":
        """Begin anew what ended blocked or failed; what was done stays done.

        Raises:
            TransitionError: it did not end so.
        """
        return replace(
            self.to(JobState.RUNNING),
            scanning=False,
            # That was said for until it ended.
            run_now=False,
            round=1,
            attempts=0,
            reasons={},
            locked_until=None,
            error=None,
            retried_at=now,
        )

    def subject_active(self, others: Mapping[BlockReason, int]) -> "Job":
        """End it because the person is a customer; `others` are the reasons of rows left so far.

        Raises:
            TransitionError: it has ended already, or is held.
        """
        reasons = {**others, BlockReason.SUBJECT_ACTIVE: 1}
        return replace(self.to(JobState.BLOCKED), reasons=reasons, locked_until=None)

    def with_request(self, request: Request) -> "Job":
        """Add or replace one request."""
        return replace(self, requests={**self.requests, request.request_id: request})

    def adding(self, request_type: str, delta: TypeTotals) -> "Job":
        """Add `delta` to the totals of `request_type`."""
        return replace(self, totals=add(self.totals, request_type, delta))

    def snapshot(
        self, holds: Collection[UUID] = (), request_ids: tuple[UUID, ...] = ()
    ) -> JobEvent:
        """Tell the whole of where the job stands, as the event that says so.

        Args:
            holds: the person's holds; a held job names the first of them.
            request_ids: the requests to speak of; all that were not withdrawn by default.
        """
        job_id, totals = self.job_id, dict(self.totals)
        named = request_ids or self.spoken_of
        match self.state:
            case JobState.ACCEPTED:
                return Accepted(
                    job_id=job_id, request_ids=named, totals=totals, not_before=self.not_before
                )
            case JobState.HELD:
                return HoldApplied(
                    job_id=job_id, request_ids=named, totals=totals, hold_id=min(holds)
                )
            case JobState.BLOCKED:
                return Blocked(
                    job_id=job_id,
                    request_ids=named,
                    totals=totals,
                    reasons=dict(self.reasons),
                    locked_until=self.locked_until,
                )
            case JobState.FAILED:
                return Failed(
                    job_id=job_id, request_ids=named, totals=totals, error=self.error or "unknown"
                )
            case JobState.RUNNING | JobState.ERASED | JobState.VERIFIED | JobState.CANCELLED:
                return _PLAIN[self.state](job_id=job_id, request_ids=named, totals=totals)


_PLAIN: Final[Mapping[JobState, type[JobEvent]]] = MappingProxyType(
    {
        JobState.RUNNING: Started,
        JobState.ERASED: Erased,
        JobState.VERIFIED: Verified,
        JobState.CANCELLED: Cancelled,
    }
)


@dataclass(frozen=True, slots=True)
class Said:
    """An event of a job with its place in the job's order."""

    subject_ref: str
    sequence: int
    event: JobEvent
    traceparent: str | None


def say(job: Job, event: JobEvent) -> tuple[Job, Said]:
    """Give `event` the job's next sequence."""
    job = replace(job, sequence=job.sequence + 1)
    return job, Said(job.subject_ref, job.sequence, event, job.traceparent)


def add(totals: Totals, request_type: str, delta: TypeTotals) -> dict[str, TypeTotals]:
    """Sum `delta` into the totals of one type; a delta of nothing changes nothing."""
    if delta == TypeTotals():
        return dict(totals)
    before = totals.get(request_type, TypeTotals())
    summed = {
        name: getattr(before, name) + getattr(delta, name) for name in TypeTotals.model_fields
    }
    return {**totals, request_type: TypeTotals(**summed)}


def with_blocked(
    totals: Totals, blocked: Mapping[str, int], *, final: bool
) -> dict[str, TypeTotals]:
    """Set the rows blocked per type.

    While a job runs the figure only grows, although a later round may unblock a row; `final` sets
    it to what is blocked in the end.
    """
    result = dict(totals)
    for request_type in {*totals, *blocked}:
        before = result.get(request_type, TypeTotals())
        now = blocked.get(request_type, 0)
        rows = now if final else max(now, before.rows_blocked)
        if rows != before.rows_blocked:
            result[request_type] = before.model_copy(update={"rows_blocked": rows})
    return result

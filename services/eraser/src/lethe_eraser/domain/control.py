"""What the events of intake do to a person's jobs, in any order and any repetition.

`decide` is pure: a person's jobs, holds and tombstones before, and after, and what the jobs say.
Ids of withdrawn requests and of released holds are remembered for ever (tombstones), so that an
event that arrives late, twice, or before the one it answers ends the same.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from datetime import datetime
from uuid import UUID

from lethe_contracts.events import (
    Accepted,
    Cancelled,
    CancelRefused,
    CancelRequested,
    Held,
    HoldApplied,
    JobEvent,
    Released,
    Requested,
)
from lethe_eraser.domain.jobs import Job, JobState, Request, Said, say

ControlEvent = Requested | CancelRequested | Held | Released


@dataclass(frozen=True, slots=True, kw_only=True)
class Person:
    """All the eraser knows of one person."""

    subject_ref: str
    jobs: tuple[Job, ...] = ()
    holds: frozenset[UUID] = field(default_factory=frozenset)
    cancelled: frozenset[UUID] = field(default_factory=frozenset)
    released: frozenset[UUID] = field(default_factory=frozenset)

    def job_of(self, request_id: UUID) -> Job | None:
        """Find the job that a request belongs to."""
        return next((job for job in self.jobs if request_id in job.requests), None)

    @property
    def joinable(self) -> Job | None:
        """The job that a new request joins; there is at most one."""
        return next((job for job in self.jobs if job.is_joinable), None)

    @property
    def unfinished(self) -> tuple[Job, ...]:
        """Jobs that still have something to do."""
        return tuple(job for job in self.jobs if not job.state.is_final)

    def keeping(self, job: Job) -> "Person":
        """Add or replace one job."""
        others = tuple(other for other in self.jobs if other.job_id != job.job_id)
        return replace(self, jobs=(*others, job))


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """What a decision needs from outside: the time, the window, and a name for a new job."""

    now: datetime
    not_before: datetime
    new_job_id: Callable[[], UUID]
    traceparent: str | None = None


@dataclass(frozen=True, slots=True)
class Decision:
    """A person after an event, and what was said, in order."""

    person: Person
    said: tuple[Said, ...] = ()


def decide(person: Person, event: ControlEvent, moment: Moment) -> Decision:
    """Apply one event of intake."""
    match event:
        case Requested():
            return _requested(person, event, moment)
        case CancelRequested():
            return _cancel_requested(person, event)
        case Held():
            return _held(person, event)
        case Released():
            return _released(person, event)


def _requested(person: Person, event: Requested, moment: Moment) -> Decision:
    known = person.job_of(event.request_id)
    if known is not None:
        return _answer(person, known, event)
    cancelled = event.request_id in person.cancelled
    request = Request(
        request_id=event.request_id,
        attempt=event.attempt,
        deadline=event.deadline,
        requested_at=event.requested_at,
        cancelled=cancelled,
    )
    joined = person.joinable
    job = (joined or _new_job(person, event, moment)).with_request(request)
    if cancelled:
        if joined is None:
            job = job.to(JobState.CANCELLED)
        return _saying(person, job, [_about(Cancelled, job, event.request_id)])
    accepted = Accepted(
        job_id=job.job_id,
        request_ids=(event.request_id,),
        totals=dict(job.totals),
        not_before=job.not_before,
    )
    said: list[JobEvent] = [accepted]
    if joined is None and person.holds:
        job = job.to(JobState.HELD)
    if job.state is not JobState.ACCEPTED:
        said.append(job.snapshot(person.holds, (event.request_id,)))
    return _saying(person, job, said)


def _new_job(person: Person, event: Requested, moment: Moment) -> Job:
    return Job(
        job_id=moment.new_job_id(),
        subject_ref=person.subject_ref,
        state=JobState.ACCEPTED,
        subject=event.subject,
        not_before=moment.not_before,
        created_at=moment.now,
        traceparent=moment.traceparent,
    )


def _answer(person: Person, job: Job, event: Requested) -> Decision:
    """Answer a request that is known already with where it stands."""
    request = job.requests[event.request_id]
    job = job.with_request(replace(request, attempt=max(request.attempt, event.attempt)))
    if request.cancelled:
        return _saying(person, job, [_about(Cancelled, job, event.request_id)])
    return _saying(person, job, [job.snapshot(person.holds)])


def _cancel_requested(person: Person, event: CancelRequested) -> Decision:
    job = person.job_of(event.request_id)
    if job is None:
        return Decision(replace(person, cancelled=person.cancelled | {event.request_id}))
    request = job.requests[event.request_id]
    if request.cancelled:
        return _saying(person, job, [_about(Cancelled, job, event.request_id)])
    if JobState.ACCEPTED not in {job.state, job.held_from}:
        return _saying(person, job, [_about(CancelRefused, job, event.request_id)])
    job = job.with_request(replace(request, cancelled=True))
    if not job.active:
        job = job.to(JobState.CANCELLED)
    person = replace(person, cancelled=person.cancelled | {event.request_id})
    return _saying(person, job, [_about(Cancelled, job, event.request_id)])


def _held(person: Person, event: Held) -> Decision:
    if event.hold_id in person.released | person.holds:
        return Decision(person)
    decision = Decision(replace(person, holds=person.holds | {event.hold_id}))
    for job in person.unfinished:
        held = job if job.state is JobState.HELD else job.to(JobState.HELD)
        applied = HoldApplied(
            job_id=held.job_id,
            request_ids=held.spoken_of,
            totals=dict(held.totals),
            hold_id=event.hold_id,
        )
        decision = _then(decision, held, [applied])
    return decision


def _released(person: Person, event: Released) -> Decision:
    person = replace(
        person,
        holds=person.holds - {event.hold_id},
        released=person.released | {event.hold_id},
    )
    decision = Decision(person)
    if person.holds:
        return decision
    for job in person.unfinished:
        if job.held_from is not None:
            resumed = job.to(job.held_from)
            decision = _then(decision, resumed, [resumed.snapshot()])
    return decision


def _about(kind: type[JobEvent], job: Job, request_id: UUID) -> JobEvent:
    return kind(job_id=job.job_id, request_ids=(request_id,), totals=dict(job.totals))


def _saying(person: Person, job: Job, events: Iterable[JobEvent]) -> Decision:
    return _then(Decision(person), job, events)


def _then(decision: Decision, job: Job, events: Iterable[JobEvent]) -> Decision:
    said = list(decision.said)
    for event in events:
        job, numbered = say(job, event)
        said.append(numbered)
    return Decision(decision.person.keeping(job), tuple(said))

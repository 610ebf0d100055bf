"""Intake's events in any order and any repetition end the same."""

from datetime import UTC, datetime, timedelta
from itertools import count
from uuid import UUID

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from lethe_contracts.events import (
    Accepted,
    BatchErased,
    Cancelled,
    CancelRefused,
    CancelRequested,
    Held,
    HoldApplied,
    Released,
    Requested,
    Started,
)
from lethe_contracts.states import BlockReason
from lethe_eraser.domain import (
    ControlEvent,
    Decision,
    Job,
    JobState,
    Moment,
    Person,
    decide,
    say,
)

NOW = datetime(2026, 11, 20, 3, tzinfo=UTC)
REF = "1.ab"


def uuid(number: int) -> UUID:
    return UUID(int=number)


def requested(number: int, *, attempt: int = 1, days: int = 5) -> Requested:
    return Requested(
        request_id=uuid(number),
        attempt=attempt,
        team="support",
        reason="withdrawal",
        regulation="pipa",
        requested_at=NOW,
        deadline=NOW + timedelta(days=days),
        subject="1.ciphertext",
    )


def cancel(number: int) -> CancelRequested:
    return CancelRequested(request_id=uuid(number))


def held(number: int) -> Held:
    return Held(hold_id=uuid(number))


def released(number: int) -> Released:
    return Released(hold_id=uuid(number))


_JOB_NUMBERS = count(1000)


def moment() -> Moment:
    return Moment(
        now=NOW, not_before=NOW + timedelta(hours=13), new_job_id=lambda: uuid(next(_JOB_NUMBERS))
    )


def apply(*events: ControlEvent, person: Person | None = None) -> Person:
    return told(*events, person=person).person


def told(*events: ControlEvent, person: Person | None = None) -> Decision:
    """Apply all; the decision carries the whole of what was said."""
    decision = Decision(person or Person(subject_ref=REF))
    at = moment()
    for event in events:
        step = decide(decision.person, event, at)
        decision = Decision(step.person, (*decision.said, *step.said))
    return decision


def outcome(person: Person) -> tuple[dict[UUID, str], frozenset[UUID]]:
    """What became of each request, and which holds stand."""
    requests = {
        id_: "cancelled" if request.cancelled else str(job.state)
        for job in person.jobs
        for id_, request in job.requests.items()
    }
    return requests, person.holds


def started(person: Person) -> Person:
    [job] = person.jobs
    return person.keeping(job.to(JobState.RUNNING))


def test_a_request_opens_a_job_and_is_answered_with_its_window() -> None:
    decision = told(requested(1))
    [job] = decision.person.jobs
    [said] = decision.said
    assert job.state is JobState.ACCEPTED
    assert said.event == Accepted(
        job_id=job.job_id, request_ids=(uuid(1),), totals={}, not_before=job.not_before
    )
    assert (said.sequence, said.subject_ref) == (1, REF)


def test_a_later_request_joins_the_open_job_and_the_earliest_deadline_wins() -> None:
    [job] = apply(requested(1, days=5), requested(2, days=3)).jobs
    assert job.active == (uuid(1), uuid(2))
    assert job.deadline == NOW + timedelta(days=3)


def test_a_request_that_joins_a_running_job_is_told_that_it_runs() -> None:
    decision = told(requested(2), person=started(apply(requested(1))))
    assert [said.event.name for said in decision.said] == [Accepted.name, Started.name]
    assert all(said.event.request_ids == (uuid(2),) for said in decision.said)


def test_a_request_after_the_scan_began_opens_the_next_job() -> None:
    person = started(apply(requested(1)))
    [job] = person.jobs
    scanning = person.keeping(Job(**{**_fields(job), "scanning": True}).to(JobState.ERASED))
    after = apply(requested(2), person=scanning)
    assert len(after.jobs) == 2


def test_a_redrive_is_answered_with_a_snapshot_and_changes_nothing_else() -> None:
    person = started(apply(requested(1), requested(2)))
    decision = told(requested(1, attempt=3), person=person)
    [said] = decision.said
    assert isinstance(said.event, Started)
    assert said.event.request_ids == (uuid(1), uuid(2))
    assert decision.person.jobs[0].requests[uuid(1)].attempt == 3


def test_an_attempt_that_comes_late_does_not_bring_back_an_earlier_one() -> None:
    person = apply(requested(1), requested(1, attempt=3), requested(1, attempt=2))
    [job] = person.jobs
    assert job.requests[uuid(1)].attempt == 3


def test_a_redrive_of_a_blocked_job_names_its_reasons() -> None:
    [job] = started(apply(requested(1))).jobs
    ended = Job(**{**_fields(job.to(JobState.ERASED)), "reasons": {BlockReason.UNCOVERED: 2}})
    person = Person(subject_ref=REF, jobs=(ended.to(JobState.BLOCKED),))
    [said] = told(requested(1, attempt=2), person=person).said
    assert said.event.model_dump()["reasons"] == {BlockReason.UNCOVERED: 2}


def test_a_cancel_before_anything_began_withdraws_one_request() -> None:
    decision = told(requested(1), requested(2, days=2), cancel(2))
    [job] = decision.person.jobs
    assert job.state is JobState.ACCEPTED
    assert job.active == (uuid(1),)
    assert job.deadline == NOW + timedelta(days=5)
    assert isinstance(decision.said[-1].event, Cancelled)


def test_the_last_cancel_ends_the_job_and_forgets_the_person() -> None:
    [job] = apply(requested(1), cancel(1)).jobs
    assert (job.state, job.subject) == (JobState.CANCELLED, None)


def test_a_cancel_comes_too_late_once_the_job_runs() -> None:
    decision = told(cancel(1), person=started(apply(requested(1))))
    assert isinstance(decision.said[-1].event, CancelRefused)
    assert decision.person.jobs[0].active == (uuid(1),)


def test_a_cancel_is_refused_also_while_a_running_job_is_held() -> None:
    person = apply(held(9), person=started(apply(requested(1))))
    assert isinstance(told(cancel(1), person=person).said[-1].event, CancelRefused)


def test_a_hold_stops_a_job_and_the_last_release_lets_it_go_on_where_it_was() -> None:
    person = apply(held(8), held(9), person=started(apply(requested(1))))
    assert person.jobs[0].state is JobState.HELD
    person = apply(released(9), person=person)
    assert person.jobs[0].state is JobState.HELD
    person = apply(released(8), person=person)
    assert person.jobs[0].state is JobState.RUNNING


def test_a_hold_that_comes_twice_is_said_once() -> None:
    person = apply(requested(1), held(1))
    assert told(held(1), person=person) == Decision(person)


def test_a_hold_covers_requests_that_come_later() -> None:
    decision = told(held(9), requested(1))
    assert decision.person.jobs[0].state is JobState.HELD
    assert [said.event.name for said in decision.said] == [Accepted.name, HoldApplied.name]


def test_a_released_hold_that_arrives_late_holds_nobody() -> None:
    person = apply(released(9), held(9), requested(1))
    assert person.jobs[0].state is JobState.ACCEPTED


EVENTS: tuple[ControlEvent, ...] = (
    requested(1),
    requested(2, days=2),
    requested(1, attempt=2),
    cancel(1),
    held(8),
    held(9),
    released(9),
)


@settings(max_examples=400)
@given(st.permutations(EVENTS * 2), st.sets(st.sampled_from(EVENTS), min_size=1))
def test_any_order_and_repetition_ends_the_same(
    order: list[ControlEvent], kept: set[ControlEvent]
) -> None:
    mixed = apply(*(event for event in order if event in kept))
    straight = apply(*(event for event in EVENTS if event in kept))
    assert outcome(mixed) == outcome(straight)


class Life(RuleBasedStateMachine):
    """Intake's events and the executor's moves, interleaved."""

    def __init__(self) -> None:
        super().__init__()
        self.person = Person(subject_ref=REF)
        self.at = moment()
        self.sequences: dict[UUID, int] = {}
        self.begun: set[UUID] = set()

    def tell(self, event: ControlEvent) -> None:
        decision = decide(self.person, event, self.at)
        for said in decision.said:
            job_id = said.event.job_id
            assert said.sequence == self.sequences.get(job_id, 0) + 1
            self.sequences[job_id] = said.sequence
        self.person = decision.person

    @rule(number=st.integers(1, 4), attempt=st.integers(1, 3))
    def request(self, number: int, attempt: int) -> None:
        self.tell(requested(number, attempt=attempt))

    @rule(number=st.integers(1, 4))
    def withdraw(self, number: int) -> None:
        self.tell(cancel(number))

    @rule(number=st.integers(5, 7))
    def hold(self, number: int) -> None:
        self.tell(held(number))

    @rule(number=st.integers(5, 7))
    def release(self, number: int) -> None:
        self.tell(released(number))

    def runnable(self, state: JobState) -> Job | None:
        return next((job for job in self.person.jobs if job.state is state), None)

    def move(self, job: Job, state: JobState, *, scanning: bool) -> None:
        moved = Job(**{**_fields(job.to(state)), "scanning": scanning})
        moved, _ = say(moved, moved.snapshot())
        self.sequences[job.job_id] = moved.sequence
        self.person = self.person.keeping(moved)

    @precondition(lambda self: self.runnable(JobState.ACCEPTED))
    @rule()
    def start(self) -> None:
        job = self.runnable(JobState.ACCEPTED)
        assert job is not None
        self.begun.update(job.active)
        self.move(job, JobState.RUNNING, scanning=False)

    @precondition(lambda self: self.runnable(JobState.RUNNING))
    @rule()
    def finish_round(self) -> None:
        job = self.runnable(JobState.RUNNING)
        assert job is not None
        self.move(job, JobState.ERASED, scanning=True)

    @precondition(lambda self: self.runnable(JobState.ERASED))
    @rule(clean=st.booleans())
    def scan(self, *, clean: bool) -> None:
        job = self.runnable(JobState.ERASED)
        assert job is not None
        self.move(job, JobState.VERIFIED if clean else JobState.RUNNING, scanning=True)

    @invariant()
    def at_most_one_job_can_be_joined(self) -> None:
        assert sum(job.is_joinable for job in self.person.jobs) <= 1

    @invariant()
    def each_request_has_one_job(self) -> None:
        ids = [id_ for job in self.person.jobs for id_ in job.requests]
        assert len(ids) == len(set(ids))

    @invariant()
    def a_held_person_has_nothing_that_may_run(self) -> None:
        if self.person.holds:
            assert all(job.state is JobState.HELD or job.state.is_final for job in self.person.jobs)
        else:
            assert all(job.state is not JobState.HELD for job in self.person.jobs)

    @invariant()
    def what_began_is_not_withdrawn(self) -> None:
        for job in self.person.jobs:
            for id_ in self.begun & job.requests.keys():
                assert not job.requests[id_].cancelled

    @invariant()
    def an_ended_job_that_needs_nobody_forgot_the_person(self) -> None:
        for job in self.person.jobs:
            if job.state in {JobState.VERIFIED, JobState.CANCELLED}:
                assert job.subject is None


TestLife = Life.TestCase


def _fields(job: Job) -> dict:  # type: ignore[type-arg]  # names of a dataclass with values of all kinds
    return {name: getattr(job, name) for name in Job.__dataclass_fields__}


def test_batch_erased_is_no_state_of_its_own() -> None:
    # A held job says so after the batch that was begun before the hold.
    [job] = apply(held(9), person=started(apply(requested(1)))).jobs
    batch = BatchErased(
        job_id=job.job_id, request_ids=job.spoken_of, totals={}, request_type="x", batch=1
    )
    job, said = say(job, batch)
    job, last = say(job, job.snapshot({uuid(9)}))
    assert (said.sequence + 1, type(last.event)) == (last.sequence, HoldApplied)

"""Who goes first, simulated: nobody waits for the whole of somebody heavy, and deadlines count."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from lethe_eraser.domain import TURN_BATCHES, Job, JobState, Request

TONIGHT = datetime(2026, 11, 20, 16, tzinfo=UTC)
WINDOW_BATCHES = 2880
"""Batches of five seconds in a window of four hours."""


@dataclass(frozen=True, slots=True)
class Person:
    batches: int
    deadline: datetime


def queue(people: Sequence[Person]) -> list[Job]:
    return [
        Job(
            job_id=UUID(int=number),
            subject_ref=f"1.{number}",
            state=JobState.ACCEPTED,
            subject="token",
            not_before=TONIGHT,
            created_at=TONIGHT,
            requests={
                UUID(int=number): Request(
                    request_id=UUID(int=number),
                    attempt=1,
                    deadline=person.deadline,
                    requested_at=TONIGHT,
                )
            },
        )
        for number, person in enumerate(people)
    ]


def finished_after(people: Sequence[Person]) -> list[int]:
    """Run one worker as the executor does; gives how many batches had run when each was done."""
    waiting = {job.job_id: job for job in queue(people)}
    done: dict[UUID, int] = {}
    ran = 0
    while waiting:
        job = min(waiting.values(), key=lambda one: one.urgency)
        del waiting[job.job_id]
        total = people[job.job_id.int].batches
        while job.batches < total:
            if any(other.urgency < job.urgency for other in waiting.values()):
                break
            job = replace(job, batches=job.batches + 1)
            ran += 1
        if job.batches < total:
            waiting[job.job_id] = job
        else:
            done[job.job_id] = ran
    return [done[UUID(int=number)] for number in range(len(people))]


def test_two_hundred_ordinary_people_do_not_wait_for_one_who_needs_more_than_the_night() -> None:
    heavy = Person(WINDOW_BATCHES + 100, TONIGHT + timedelta(hours=4))
    ordinary = Person(10, TONIGHT + timedelta(hours=4, seconds=1))
    heavy_done, *others = finished_after([heavy] + [ordinary] * 200)
    assert max(others) <= WINDOW_BATCHES
    assert max(others) == TURN_BATCHES + 200 * ordinary.batches
    assert heavy_done == heavy.batches + 200 * ordinary.batches, "and it is not starved either"


def test_among_ordinary_people_the_earliest_deadline_goes_first() -> None:
    people = [Person(3, TONIGHT + timedelta(hours=hours)) for hours in (5, 1, 3)]
    assert finished_after(people) == [9, 3, 6]


def test_among_heavy_people_the_earliest_deadline_is_finished_first() -> None:
    later, sooner = (Person(500, TONIGHT + timedelta(hours=hours)) for hours in (6, 3))
    done_later, done_sooner = finished_after([later, sooner])
    assert done_sooner == 500 + TURN_BATCHES
    assert done_later == 1000


people = st.builds(
    Person, st.integers(1, 200), st.integers(0, 100).map(lambda h: TONIGHT + timedelta(hours=h))
)


@given(st.lists(people, min_size=1, max_size=20))
def test_everybody_is_finished_and_an_ordinary_one_after_first_turns_at_the_latest(
    crowd: list[Person],
) -> None:
    done = finished_after(crowd)
    assert max(done) == sum(person.batches for person in crowd)
    first_turns = sum(min(person.batches, TURN_BATCHES) for person in crowd)
    for person, finished in zip(crowd, done, strict=True):
        if person.batches <= TURN_BATCHES:
            assert finished <= first_turns

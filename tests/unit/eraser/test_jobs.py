from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import product
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lethe_contracts.events import HoldApplied, TypeTotals
from lethe_contracts.states import BlockReason
from lethe_eraser.domain import (
    TRANSITIONS,
    UNFINISHED,
    Job,
    JobState,
    Request,
    TransitionError,
    add,
    with_blocked,
)

NOW = datetime(2026, 11, 20, tzinfo=UTC)

counts = st.integers(0, 10**9)
deltas = st.builds(
    TypeTotals,
    feature_rows=counts,
    task_rows=counts,
    client_rows=counts,
    objects_gone=counts,
    objects_missing=counts,
    objects_scheduled=counts,
    objects_kept=counts,
)
types = st.sampled_from(["upscale", "avatar", "pdf-extraction"])


def job(state: JobState) -> Job:
    return Job(
        job_id=UUID(int=1),
        subject_ref="1.ab",
        state=state,
        subject="1.ciphertext",
        not_before=NOW,
        created_at=NOW,
        held_from=JobState.RUNNING if state is JobState.HELD else None,
        requests={
            UUID(int=2): Request(request_id=UUID(int=2), attempt=1, deadline=NOW, requested_at=NOW)
        },
    )


@pytest.mark.parametrize(("before", "after"), list(product(JobState, JobState)))
def test_only_the_transitions_of_the_table_are_possible(before: JobState, after: JobState) -> None:
    if after in TRANSITIONS[before]:
        assert job(before).to(after).state is after
    else:
        with pytest.raises(TransitionError):
            job(before).to(after)


@pytest.mark.parametrize("state", JobState)
def test_every_state_that_can_be_reached_is_in_the_table(state: JobState) -> None:
    assert state is JobState.ACCEPTED or any(state in to for to in TRANSITIONS.values())
    assert state.is_final is (state not in UNFINISHED)


@pytest.mark.parametrize("state", [state for state in UNFINISHED if state is not JobState.HELD])
def test_a_held_job_remembers_where_it_was(state: JobState) -> None:
    held = job(state).to(JobState.HELD)
    assert held.held_from is state
    assert held.to(state).held_from is None


@pytest.mark.parametrize("state", JobState)
def test_every_state_can_be_told(state: JobState) -> None:
    ended = Job(
        **{
            **{name: getattr(job(state), name) for name in Job.__dataclass_fields__},
            "reasons": {"uncovered": 1},
        }
    )
    event = ended.snapshot([UUID(int=9)])
    assert event.request_ids == (UUID(int=2),)
    assert event.name == {"running": "started", "held": "hold_applied"}.get(state, str(state))


@pytest.mark.parametrize("state", JobState)
def test_only_who_is_verified_or_withdrawn_is_forgotten(state: JobState) -> None:
    """A job that ended otherwise may be begun anew, and is this person's still."""
    [before] = [one for one in JobState if state in TRANSITIONS[one]][:1]
    forgotten = state in {JobState.VERIFIED, JobState.CANCELLED}
    assert (job(before).to(state).subject is None) is forgotten


@pytest.mark.parametrize("state", [JobState.BLOCKED, JobState.FAILED])
def test_what_begins_anew_keeps_what_was_done_and_nothing_of_how_it_ended(state: JobState) -> None:
    done = {"upscale": TypeTotals(feature_rows=3, rows_blocked=1)}
    begun = replace(job(state), generation=7, sequence=9, batches=4, totals=done)
    ended = replace(
        begun,
        scanning=True,
        run_now=True,
        round=5,
        attempts=5,
        reasons={BlockReason.OBJECT_LOCKED: 1},
        locked_until=NOW,
        error="OSError",
        retried_at=NOW,
    )
    later = NOW + timedelta(days=1)
    assert ended.again(later) == replace(begun, state=JobState.RUNNING, retried_at=later)


def test_a_customer_is_blocked_beside_what_was_left_and_no_lock_ends_that() -> None:
    running = replace(job(JobState.RUNNING), locked_until=NOW)
    blocked = running.subject_active({BlockReason.OBJECT_LOCKED: 2})
    assert blocked.reasons == {BlockReason.OBJECT_LOCKED: 2, BlockReason.SUBJECT_ACTIVE: 1}
    assert blocked.locked_until is None


def test_requests_that_were_withdrawn_count_only_if_all_were() -> None:
    hours = [timedelta(hours=hour) for hour in range(3)]
    first, second, third = (
        Request(
            request_id=UUID(int=number),
            attempt=1,
            deadline=NOW + hour,
            requested_at=NOW + hour,
            cancelled=number == 0,
        )
        for number, hour in enumerate(hours)
    )
    of_three = replace(job(JobState.RUNNING), requests={}).with_request(third)
    of_three = of_three.with_request(second).with_request(first)
    assert (of_three.deadline, of_three.requested_at) == (NOW + hours[1], NOW + hours[1])
    assert of_three.spoken_of == (second.request_id, third.request_id)
    withdrawn = replace(job(JobState.CANCELLED), requests={}).with_request(first)
    assert (withdrawn.deadline, withdrawn.requested_at) == (NOW, NOW)
    assert withdrawn.spoken_of == (first.request_id,)


def test_an_account_is_news_if_it_was_opened_after_the_later_of_request_and_retry() -> None:
    accepted = job(JobState.ACCEPTED)
    assert accepted.looked_at == NOW
    assert replace(accepted, retried_at=NOW - timedelta(hours=1)).looked_at == NOW
    later = NOW + timedelta(hours=1)
    assert replace(accepted, retried_at=later).looked_at == later


def test_a_held_job_names_the_first_of_its_holds() -> None:
    told = job(JobState.HELD).snapshot({UUID(int=number) for number in (9, 4, 7)})
    assert isinstance(told, HoldApplied)
    assert told.hold_id == UUID(int=4)


@given(st.lists(st.tuples(types, deltas)))
def test_totals_are_sums_whatever_the_order(steps: list[tuple[str, TypeTotals]]) -> None:
    forward: dict[str, TypeTotals] = {}
    backward: dict[str, TypeTotals] = {}
    for request_type, delta in steps:
        grown = add(forward, request_type, delta)
        for name in TypeTotals.model_fields:
            before = getattr(forward.get(request_type, TypeTotals()), name)
            assert getattr(grown.get(request_type, TypeTotals()), name) >= before
        forward = grown
    for request_type, delta in reversed(steps):
        backward = add(backward, request_type, delta)
    assert forward == backward


@given(
    st.dictionaries(types, deltas),
    st.dictionaries(types, st.integers(0, 100)),
    st.dictionaries(types, st.integers(0, 100)),
)
def test_blocked_only_grows_until_the_end_tells_the_truth(
    totals: dict[str, TypeTotals], first: dict[str, int], second: dict[str, int]
) -> None:
    one = with_blocked(totals, first, final=False)
    two = with_blocked(one, second, final=False)
    end = with_blocked(two, second, final=True)
    for name in {*totals, *first, *second}:
        blocked = [t.get(name, TypeTotals()).rows_blocked for t in (one, two, end)]
        assert blocked[0] <= blocked[1]
        assert blocked[2] == second.get(name, 0)

from datetime import UTC, datetime
from itertools import product
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lethe_contracts.events import TypeTotals
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

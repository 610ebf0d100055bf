"""The projection as a pure fold: any order, any repetition, one result."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lethe_contracts.codec import Envelope
from lethe_contracts.events import (
    ALL,
    Accepted,
    BatchErased,
    Blocked,
    CancelRefused,
    CancelRequested,
    Erased,
    Event,
    Failed,
    HoldApplied,
    JobEvent,
    Requested,
    Started,
    TypeTotals,
    Verified,
    Watermark,
)
from lethe_contracts.sources import ERASER, INTAKE
from lethe_contracts.states import BlockReason, RequestState
from lethe_reporting.domain import (
    DONE,
    RequestView,
    apply,
    is_logged,
    request_ids,
    stripped,
    summed,
)

NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)
REQUEST = UUID("01920000-0000-7000-8000-000000000001")
JOB = UUID("01920000-0000-7000-8000-000000000010")
LATER_JOB = UUID("01930000-0000-7000-8000-000000000010")
REF = f"1.{'ab' * 32}"


def at(minutes: int) -> datetime:
    return NOON + timedelta(minutes=minutes)


def intake(sequence: int, event: Event) -> Envelope[Event]:
    return Envelope(UUID(int=sequence), INTAKE, REQUEST, sequence, at(sequence), REF, event)


def eraser(sequence: int, event: JobEvent) -> Envelope[Event]:
    return Envelope(
        UUID(int=1000 + sequence), ERASER, event.job_id, sequence, at(10 + sequence), REF, event
    )


def requested(attempt: int = 1) -> Requested:
    return Requested(
        request_id=REQUEST,
        attempt=attempt,
        team="support",
        reason=f"withdrawn {attempt}",
        regulation="pipa",
        requested_at=NOON,
        deadline=NOON + timedelta(days=5),
        subject="1.ciphertext",
    )


def job(model: type[JobEvent], rows: int = 0, job_id: UUID = JOB, **more: Any) -> JobEvent:
    totals = {"upscale": TypeTotals(feature_rows=rows)}
    return model.model_validate(
        {"job_id": job_id, "request_ids": (REQUEST,), "totals": totals, **more}
    )


def fold(envelopes: Sequence[Envelope[Event]]) -> RequestView:
    view = None
    for envelope in envelopes:
        view = apply(view, REQUEST, envelope)
    assert view is not None
    return view


LIFE = (
    intake(1, requested()),
    eraser(1, job(Accepted, not_before=at(60))),
    eraser(2, job(Started)),
    eraser(3, job(BatchErased, 500, request_type="upscale", batch=1)),
    eraser(4, job(HoldApplied, 500, hold_id=UUID(int=7))),
    intake(2, CancelRequested(request_id=REQUEST)),
    eraser(5, job(CancelRefused, 500)),
    intake(3, requested(attempt=2)),
    eraser(6, job(BatchErased, 900, request_type="upscale", batch=2)),
    eraser(7, job(Erased, 900)),
    eraser(8, job(Blocked, 900, reasons={BlockReason.UNCOVERED: 3})),
)


@given(st.permutations(LIFE), st.lists(st.sampled_from(LIFE), max_size=8))
def test_any_order_with_any_repetition_gives_the_same_request(
    order: list[Envelope[Event]], again: list[Envelope[Event]]
) -> None:
    assert fold([*order, *again]) == fold(LIFE)


@st.composite
def lives(draw: st.DrawFn) -> list[Envelope[Event]]:
    """Events of intake and of up to two jobs, each sequence used once."""
    said: list[Envelope[Event]] = []
    for sequence in range(1, draw(st.integers(0, 3)) + 1):
        event = draw(st.sampled_from([requested(sequence), CancelRequested(request_id=REQUEST)]))
        said.append(intake(sequence, event))
    more: dict[type[Event], dict[str, Any]] = {
        Accepted: {"not_before": NOON},
        BatchErased: {"request_type": "upscale", "batch": 1},
        Blocked: {"reasons": {BlockReason.UNCOVERED: 1}},
        HoldApplied: {"hold_id": UUID(int=7)},
        Failed: {"error": "OSError"},
    }
    models = [model for model in ALL if issubclass(model, JobEvent)]
    for job_id in draw(st.sampled_from([(JOB,), (JOB, LATER_JOB)])):
        for sequence in range(1, draw(st.integers(1, 5)) + 1):
            model = draw(st.sampled_from(models))
            rows = draw(st.integers(0, 3))
            said.append(eraser(sequence, job(model, rows, job_id, **more.get(model, {}))))
    return said


@given(lives().flatmap(lambda life: st.tuples(st.just(life), st.permutations(life))))
@settings(max_examples=300)
def test_every_permutation_of_every_life_projects_to_the_same(
    lives_: tuple[list[Envelope[Event]], list[Envelope[Event]]],
) -> None:
    life, order = lives_
    assert fold(order) == fold(life)


@given(lives(), st.data())
def test_a_batch_at_a_time_is_the_same_as_all_at_once(
    life: list[Envelope[Event]], data: st.DataObject
) -> None:
    cut = data.draw(st.integers(0, len(life) - 1))
    first = fold(life[:cut]) if cut else None
    view = first
    for envelope in life[cut:]:
        view = apply(view, REQUEST, envelope)
    assert view == fold(life)


def test_the_whole_life_ends_where_its_last_word_says() -> None:
    view = fold(LIFE)
    assert view.state is RequestState.BLOCKED
    assert view.blockers == {"uncovered": 3}
    assert view.state_since == view.closed_at == at(18)
    assert view.totals["upscale"].feature_rows == 900
    assert view.attempt == 2
    assert view.team == "support"
    assert view.cancel_requested_at == at(2)
    assert view.hold_id is None
    assert view.not_before is None
    assert view.updated_at == at(18)


def test_the_eraser_speaking_first_makes_a_request_that_intake_completes() -> None:
    before = fold([eraser(1, job(Accepted, not_before=at(60)))])
    assert before.state is RequestState.ACCEPTED
    assert before.not_before == at(60)
    assert before.team is None
    assert before.deadline is None
    assert before.subject_ref == REF
    after = apply(before, REQUEST, intake(1, requested()))
    assert after.state is RequestState.ACCEPTED
    assert after.team == "support"
    assert after.deadline == NOON + timedelta(days=5)


@pytest.mark.parametrize(
    ("model", "more"),
    [(Verified, {}), (Blocked, {"reasons": {BlockReason.UNCOVERED: 1}}), (Failed, {"error": "X"})],
)
def test_asking_again_does_not_open_what_the_eraser_has_closed(
    model: type[JobEvent], more: dict[str, Any]
) -> None:
    closed = fold([intake(1, requested()), eraser(1, job(model, **more))])
    again = apply(closed, REQUEST, intake(2, requested(attempt=2)))
    assert (again.state, again.closed_at, again.attempt) == (closed.state, closed.closed_at, 2)


def test_a_request_the_eraser_takes_up_again_is_open_again() -> None:
    view = fold([eraser(1, job(Failed, error="OSError")), eraser(2, job(Started))])
    assert view.state is RequestState.RUNNING
    assert view.closed_at is None
    assert view.error is None


def test_a_refused_cancellation_leaves_the_state_and_takes_the_totals() -> None:
    view = fold([eraser(1, job(Started)), eraser(2, job(CancelRefused, 7))])
    assert view.state is RequestState.RUNNING
    assert view.totals["upscale"].feature_rows == 7


def test_blocked_and_failed_are_not_done() -> None:
    assert {RequestState.VERIFIED, RequestState.CANCELLED} == DONE


def test_the_ciphertext_is_stripped_and_nothing_else() -> None:
    plain = requested().model_dump(mode="json")
    kept = stripped(requested())
    assert plain.pop("subject") == "1.ciphertext"
    assert kept == plain


def test_holds_and_watermarks_speak_of_no_request_and_only_watermarks_are_not_logged() -> None:
    watermark = Watermark(settled_until={1: NOON})
    assert request_ids(watermark) == ()
    assert not is_logged(watermark)
    assert is_logged(requested())


def test_totals_are_summed_over_types() -> None:
    totals = {"a": TypeTotals(feature_rows=1, objects_gone=2), "b": TypeTotals(feature_rows=3)}
    assert summed(totals) == TypeTotals(feature_rows=4, objects_gone=2)
    assert summed({}) == TypeTotals()

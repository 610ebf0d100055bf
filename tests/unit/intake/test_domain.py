import dataclasses
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lethe_contracts import events
from lethe_contracts.cipher import Cipher
from lethe_contracts.codec import Envelope
from lethe_contracts.keyring import KeyRing
from lethe_contracts.sources import WRITERS
from lethe_contracts.states import BlockReason, RequestState
from lethe_contracts.subject import SubjectRefs
from lethe_intake.domain import (
    Request,
    Seal,
    SealedSubject,
    Submission,
    SubmissionError,
    check_requested_at,
    check_unnamed,
    deadline,
    moves,
    requested,
)

SEOUL = ZoneInfo("Asia/Seoul")
BERLIN = ZoneInfo("Europe/Berlin")
NOW = datetime(2026, 11, 20, 9, tzinfo=UTC)
REQUEST = UUID(int=1)
JOB = UUID(int=2)


def submission(**changes: object) -> Submission:
    base = Submission(
        team="crm",
        subject=SealedSubject(("2.bb", "1.aa"), "1.token"),
        reason="withdrawn",
        regulation="pipa",
        requested_at=NOW,
        metadata={"ticket": "A-1", "vip": True},
        idempotency_key=None,
        traceparent="00-" + "1" * 32 + "-" + "2" * 16 + "-01",
    )
    return dataclasses.replace(base, **changes)  # type: ignore[arg-type] # the tests name the fields


@pytest.mark.parametrize(
    ("requested_at", "zone", "due"),
    [
        ("2026-11-20T09:00+09:00", SEOUL, "2026-11-25T09:00+09:00"),
        ("2026-02-27T23:30+09:00", SEOUL, "2026-03-04T23:30+09:00"),
        # Five calendar days, not 120 hours: the clocks go forward, and back.
        ("2026-03-27T12:00+01:00", BERLIN, "2026-04-01T12:00+02:00"),
        ("2026-10-23T12:00+02:00", BERLIN, "2026-10-28T12:00+01:00"),
        # Due at a local time that does not exist: the hour after.
        ("2026-03-24T02:30+01:00", BERLIN, "2026-03-29T03:30+02:00"),
    ],
)
def test_the_deadline_is_the_same_local_time_five_days_later(
    requested_at: str, zone: ZoneInfo, due: str
) -> None:
    assert deadline(datetime.fromisoformat(requested_at), zone) == datetime.fromisoformat(due)


@settings(deadline=None)
@given(
    st.datetimes(datetime(2020, 1, 1), datetime(2035, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001 - hypothesis adds the zone
    st.sampled_from([SEOUL, BERLIN, ZoneInfo("America/New_York"), ZoneInfo("Australia/Lord_Howe")]),
)
def test_a_deadline_is_always_about_five_days_away(when: datetime, zone: ZoneInfo) -> None:
    assert abs(deadline(when, zone) - when - timedelta(days=5)) <= timedelta(hours=1)


@pytest.mark.parametrize(
    ("offset", "code"),
    [
        (timedelta(minutes=6), "in_the_future"),
        (timedelta(days=-367), "too_old"),
        (timedelta(days=-366 * 5), "too_old"),
    ],
)
def test_a_withdrawal_in_the_future_or_long_ago_is_refused(offset: timedelta, code: str) -> None:
    with pytest.raises(SubmissionError) as caught:
        check_requested_at(NOW + offset, NOW)
    assert (caught.value.field, caught.value.code) == ("requested_at", code)


@pytest.mark.parametrize("offset", [timedelta(), timedelta(minutes=4), timedelta(days=-300)])
def test_a_withdrawal_of_now_or_of_this_year_is_taken(offset: timedelta) -> None:
    check_requested_at(NOW + offset, NOW)


@pytest.mark.parametrize("text", ["acct-000017", "of ACCT-000017.", "acct-000017acct"])
def test_a_text_that_names_the_person_is_refused(text: str) -> None:
    with pytest.raises(SubmissionError) as caught:
        check_unnamed(" acct-000017 ", reason="fine", metadata=text)
    assert (caught.value.field, caught.value.code) == ("metadata", "names_the_subject")
    assert "acct" not in str(caught.value)


def test_a_subject_is_looked_for_from_six_characters_on() -> None:
    check_unnamed("users", reason="the users left")
    with pytest.raises(SubmissionError):
        check_unnamed("users1", reason="the users1 left")


def test_a_seal_keeps_every_reference_and_opens_with_the_current_one() -> None:
    ring = KeyRing({1: b"1" * 32, 2: b"2" * 32})
    sealed = Seal(SubjectRefs(ring), Cipher(ring)).close("  acct-000017 ")

    assert [ref.partition(".")[0] for ref in sealed.refs] == ["2", "1"]
    assert sealed.ref == sealed.refs[0]
    assert Cipher(ring).decrypt(sealed.token, context=sealed.ref) == b"acct-000017"


def test_the_same_submission_has_the_same_fingerprint() -> None:
    same = submission(
        metadata={"vip": True, "ticket": "A-1"},
        requested_at=NOW.astimezone(SEOUL),
        subject=SealedSubject(("2.bb", "1.aa"), "1.another-token"),
        idempotency_key="k",
    )
    assert same.fingerprints() == submission().fingerprints()


def test_a_fingerprint_survives_a_new_key_version() -> None:
    before = submission(subject=SealedSubject(("1.aa",), "1.token"))

    assert before.fingerprints()[0] in submission().fingerprints()


@pytest.mark.parametrize(
    "changes",
    [
        {"subject": SealedSubject(("2.cc", "1.dd"), "1.token")},
        {"reason": "withdrawn "},
        {"regulation": "gdpr"},
        {"requested_at": None},
        {"requested_at": NOW + timedelta(microseconds=1)},
        {"metadata": None},
        {"metadata": {"ticket": "A-1", "vip": 1}},
    ],
)
def test_another_submission_has_another_fingerprint(changes: dict[str, object]) -> None:
    assert not set(submission(**changes).fingerprints()) & set(submission().fingerprints())


def test_the_promise_carries_the_person_sealed() -> None:
    request = Request(
        request_id=REQUEST,
        team="crm",
        state=RequestState.REQUESTED,
        reason="withdrawn",
        regulation="pipa",
        metadata=None,
        requested_at=NOW,
        accepted_at=NOW,
        deadline=NOW + timedelta(days=5),
    )
    envelope = requested(submission(), request, event_id=UUID(int=9), at=NOW)

    assert (envelope.source, envelope.aggregate, envelope.sequence) == ("lethe/intake", REQUEST, 1)
    assert envelope.subject_ref == "2.bb"
    assert envelope.event.subject == "1.token"
    assert envelope.event.attempt == 1
    assert envelope.traceparent == submission().traceparent


COMMON: dict[str, Any] = {"job_id": JOB, "request_ids": (REQUEST,), "totals": {}}


@pytest.mark.parametrize(
    ("event", "state", "closes", "forgets"),
    [
        (events.Accepted(**COMMON, not_before=NOW), RequestState.ACCEPTED, False, False),
        (events.Started(**COMMON), RequestState.RUNNING, False, False),
        (
            events.BatchErased(**COMMON, request_type="upscale", batch=1),
            RequestState.RUNNING,
            False,
            False,
        ),
        (events.Erased(**COMMON), RequestState.ERASED, False, False),
        (events.Verified(**COMMON), RequestState.VERIFIED, True, True),
        (
            events.Blocked(**COMMON, reasons={BlockReason.UNCOVERED: 1}),
            RequestState.BLOCKED,
            True,
            False,
        ),
        (events.Cancelled(**COMMON), RequestState.CANCELLED, True, True),
        (events.CancelRefused(**COMMON), None, False, False),
        (events.HoldApplied(**COMMON, hold_id=UUID(int=3)), RequestState.HELD, False, False),
        (events.Failed(**COMMON, error="OSError"), RequestState.FAILED, True, False),
    ],
)
def test_what_the_eraser_says_moves_the_requests_it_names(
    *, event: events.JobEvent, state: RequestState | None, closes: bool, forgets: bool
) -> None:
    (move,) = moves(envelope(event))

    assert (move.request_id, move.job_id, move.sequence) == (REQUEST, JOB, 7)
    assert move.state == state
    assert move.closed_at == (NOW if closes else None)
    assert move.forgets_subject is forgets


def test_an_event_that_names_no_request_moves_nothing() -> None:
    assert moves(envelope(events.Held(hold_id=UUID(int=3)))) == []


def envelope(event: events.Event) -> Envelope[events.Event]:
    return Envelope(
        id=UUID(int=9),
        source=WRITERS[event.topic],
        aggregate=JOB,
        sequence=7,
        time=NOW,
        subject_ref="1.aa",
        event=event,
    )

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import text

from lethe_contracts.cipher import Cipher
from lethe_contracts.codec import decode
from lethe_contracts.events import Requested
from lethe_contracts.subject import SubjectRefs
from lethe_outbox.message import unpack_headers
from tests.integration.intake.conftest import Intake, make_key

SUBJECT = "acct-000017"
BODY = {"subject": SUBJECT, "reason": "account_withdrawn"}

ONE_REQUEST = "select count(*) from lethe.erasure_request"
ONE_EVENT = "select count(*) from lethe.outbox"


async def test_a_202_is_a_row_and_its_event(intake: Intake, key: str) -> None:
    asked = datetime.now(UTC) - timedelta(hours=3)
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    body = {**BODY, "requested_at": asked.isoformat(), "metadata": {"ticket": "A-1", "vip": True}}

    response = await intake.post(body, key, traceparent=trace)

    assert response.status_code == 202
    document = response.json()
    assert response.headers["location"] == f"/v1/erasure-requests/{document['id']}"
    assert document["state"] == "requested"
    assert document["metadata"] == {"ticket": "A-1", "vip": True}
    assert datetime.fromisoformat(document["deadline"]) == asked + timedelta(days=5)
    assert SUBJECT not in response.text

    (row,) = await intake.rows("select * from lethe.erasure_request")
    refs = SubjectRefs(intake.ring)
    assert str(row.request_id) == document["id"]
    assert row.subject_ref == refs.of(SUBJECT)
    assert row.team == "crm"
    cipher = Cipher(intake.ring)
    assert cipher.decrypt(row.subject_ciphertext, context=row.subject_ref) == SUBJECT.encode()

    (sent,) = await intake.rows("select * from lethe.outbox")
    assert (sent.topic, sent.key) == ("erasure.requests.v1", row.subject_ref)
    envelope = decode(unpack_headers(sent.headers), sent.payload)
    assert isinstance(envelope.event, Requested)
    assert envelope.id == sent.event_id
    assert envelope.traceparent == trace
    assert (envelope.aggregate, envelope.sequence) == (row.request_id, 1)
    assert envelope.event.deadline == row.deadline
    assert SUBJECT.encode() not in bytes(sent.payload)
    assert cipher.decrypt(envelope.event.subject, context=row.subject_ref) == SUBJECT.encode()
    assert intake.counted("accepted") == 1


async def test_a_team_sees_its_own_requests_only(intake: Intake, intake_url: str, key: str) -> None:
    location = (await intake.post(BODY, key)).headers["location"]

    mine = await intake.get(location, key)
    theirs = await intake.get(location, make_key(intake_url, "support"))

    assert mine.status_code == 200
    assert mine.json()["state"] == "requested"
    assert SUBJECT not in mine.text
    assert theirs.status_code == 404
    assert theirs.json()["type"] == "urn:lethe:problem:unknown-request"


async def test_the_same_key_and_body_is_answered_the_same_way(intake: Intake, key: str) -> None:
    first = await intake.post(BODY, key, **{"Idempotency-Key": "k-1"})
    again = await intake.post(BODY, key, **{"Idempotency-Key": "k-1"})

    assert (first.status_code, again.status_code) == (202, 202)
    assert again.json() == first.json()
    assert again.headers["location"] == first.headers["location"]
    assert again.headers["idempotency-replayed"] == "true"
    assert (await intake.rows(ONE_EVENT))[0][0] == 1
    assert intake.counted("replayed") == 1


async def test_the_same_key_with_another_body_is_refused(intake: Intake, key: str) -> None:
    await intake.post(BODY, key, **{"Idempotency-Key": "k-1"})

    for other in ({**BODY, "subject": "acct-000018"}, {**BODY, "reason": "another"}):
        refused = await intake.post(other, key, **{"Idempotency-Key": "k-1"})
        assert refused.status_code == 422
        assert refused.json()["type"] == "urn:lethe:problem:idempotency-key-reused"
    assert (await intake.rows(ONE_REQUEST))[0][0] == 1
    assert intake.counted("refused") == 2


async def test_a_key_belongs_to_its_team(intake: Intake, intake_url: str, key: str) -> None:
    mine = await intake.post(BODY, key, **{"Idempotency-Key": "k-1"})
    other = make_key(intake_url, "support")
    theirs = await intake.post(BODY, other, **{"Idempotency-Key": "k-1"})

    assert theirs.status_code == 202
    assert theirs.json()["id"] != mine.json()["id"]


async def test_an_open_request_for_the_same_person_is_joined(intake: Intake, key: str) -> None:
    first = await intake.post(BODY, key)
    joined = await intake.post({**BODY, "subject": f" {SUBJECT} ", "reason": "again"}, key)
    with_key = await intake.post(BODY, key, **{"Idempotency-Key": "k-1"})
    replayed = await intake.post(BODY, key, **{"Idempotency-Key": "k-1"})

    assert [r.status_code for r in (first, joined, with_key, replayed)] == [202, 200, 200, 200]
    assert len({r.json()["id"] for r in (first, joined, with_key, replayed)}) == 1
    assert joined.headers["location"] == first.headers["location"]
    assert (await intake.rows(ONE_EVENT))[0][0] == 1
    assert intake.counted("joined") == 2


async def test_an_open_request_made_under_an_older_key_is_joined(intake: Intake, key: str) -> None:
    first = await intake.post(BODY, key, **{"Idempotency-Key": "k-1"})
    old_ref = SubjectRefs(intake.ring).all_of(SUBJECT)[1]
    async with intake.engine.begin() as connection:
        update = text("update lethe.erasure_request set subject_ref = :ref")
        await connection.execute(update, {"ref": old_ref})

    joined = await intake.post(BODY, key)

    assert (joined.status_code, joined.json()["id"]) == (200, first.json()["id"])


async def test_a_closed_request_is_not_joined(intake: Intake, key: str) -> None:
    first = await intake.post(BODY, key)
    async with intake.engine.begin() as connection:
        await connection.execute(
            text("update lethe.erasure_request set state = 'verified', closed_at = now()")
        )

    second = await intake.post(BODY, key)

    assert second.status_code == 202
    assert second.json()["id"] != first.json()["id"]


async def test_a_person_who_is_erased_already_and_asks_again_is_not_forgotten(
    intake: Intake, key: str
) -> None:
    """The eraser has read everything: what the person did since needs a request of its own."""
    first = await intake.post(BODY, key)
    async with intake.engine.begin() as connection:
        await connection.execute(text("update lethe.erasure_request set state = 'erased'"))
    second = await intake.post(BODY, key)
    joined = await intake.post(BODY, key)
    assert [r.status_code for r in (second, joined)] == [202, 200]
    assert first.json()["id"] != second.json()["id"] == joined.json()["id"]
    assert (await intake.rows(ONE_EVENT))[0][0] == 2


async def test_an_earlier_deadline_is_never_lost_by_joining(intake: Intake, key: str) -> None:
    now = datetime.now(UTC)
    late = await intake.post(BODY, key)
    early = await intake.post({**BODY, "requested_at": (now - timedelta(days=4)).isoformat()}, key)
    between = await intake.post(
        {**BODY, "requested_at": (now - timedelta(days=2)).isoformat()}, key
    )
    assert [r.status_code for r in (late, early, between)] == [202, 202, 200]
    assert early.json()["deadline"] < late.json()["deadline"]
    assert between.json()["id"] == early.json()["id"]
    move = text("update lethe.erasure_request set subject_ref = :ref where request_id = :id")
    async with intake.engine.begin() as connection:
        # The first one is behind the other, be they read as they lie or by the person's references.
        refs = sorted(SubjectRefs(intake.ring).all_of(SUBJECT))
        for ref, one in zip(refs, (early, late), strict=True):
            await connection.execute(move, {"ref": ref, "id": one.json()["id"]})
    again = await intake.post(BODY, key)
    assert again.json()["id"] == late.json()["id"]
    assert (await intake.rows(ONE_EVENT))[0][0] == 2


@pytest.mark.parametrize("idempotency_key", ["k-1", None])
async def test_identical_submissions_at_once_make_one_request(
    intake: Intake, key: str, idempotency_key: str | None
) -> None:
    headers = {"Idempotency-Key": idempotency_key} if idempotency_key else {}

    answers = await asyncio.gather(*(intake.post(BODY, key, **headers) for _ in range(8)))

    repeated = 202 if idempotency_key else 200
    assert sorted(r.status_code for r in answers) == sorted([202, *[repeated] * 7])
    assert len({r.json()["id"] for r in answers}) == 1
    assert (await intake.rows(ONE_REQUEST))[0][0] == 1
    assert (await intake.rows(ONE_EVENT))[0][0] == 1


async def test_different_persons_at_once_do_not_wait_for_ever(intake: Intake, key: str) -> None:
    bodies = [{**BODY, "subject": f"acct-{n:06}"} for n in range(40)]

    answers = await asyncio.gather(*(intake.post(body, key) for body in bodies))

    assert {r.status_code for r in answers} == {202}
    assert (await intake.rows(ONE_EVENT))[0][0] == 40


async def test_exotic_subjects_are_taken(intake: Intake, key: str) -> None:
    for subject in ("user+tag@example.com", "한글-사용자", "with a space", "1", "é" * 512):
        response = await intake.post({**BODY, "subject": subject}, key)
        assert response.status_code == 202
        assert subject not in response.text or subject == "1"


async def test_nobody_who_reads_the_log_learns_who_it_was(intake: Intake, key: str) -> None:
    await intake.post(BODY, key, **{"Idempotency-Key": "k-1"})
    await intake.post({**BODY, "extra": SUBJECT}, key)
    await intake.get(f"/v1/erasure-requests/{SUBJECT}", key)

    assert SUBJECT not in intake.log.getvalue()
    assert key not in intake.log.getvalue()

"""Instances of one intake amid a rotation of the reference keys: they answer as one.

First every instance is given the new key, with the old one current; then it is made current on one
after the other. At each moment two kinds run beside each other.
"""

import asyncio
from zoneinfo import ZoneInfo

import pytest

from lethe_contracts.cipher import Cipher
from lethe_contracts.keyring import KeyRing
from lethe_contracts.subject import SubjectRefs
from lethe_intake.domain import Joined, Outcome, Replayed, Seal, Submission, Taken
from lethe_intake.storage import IntakeStorage
from lethe_outbox import Outbox
from tests.integration.intake.conftest import Intake

OLD = KeyRing({1: b"1" * 32})
BOTH = KeyRing({1: b"1" * 32, 2: b"2" * 32})
BEFORE = SubjectRefs(OLD)
KNOWN = SubjectRefs(BOTH, current=1)
CURRENT = SubjectRefs(BOTH)
STEPS = [(BEFORE, KNOWN), (KNOWN, CURRENT)]
NAMES = ["made known", "made current"]


@pytest.fixture
def storage(intake: Intake) -> IntakeStorage:
    return IntakeStorage(intake.engine, Outbox("lethe"), ZoneInfo("Asia/Seoul"))


def asked(refs: SubjectRefs, subject: str, key: str | None) -> Submission:
    """Give what an instance with these keys makes of the same submission."""
    return Submission(
        team="crm",
        subject=Seal(refs, Cipher(BOTH)).close(subject),
        reason="account_withdrawn",
        regulation="pipa",
        requested_at=None,
        metadata=None,
        idempotency_key=key,
        traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    )


@pytest.mark.parametrize("step", STEPS, ids=NAMES)
@pytest.mark.parametrize("newer_first", [True, False])
async def test_a_retry_on_another_instance_is_the_same_submission(
    storage: IntakeStorage, step: tuple[SubjectRefs, SubjectRefs], *, newer_first: bool
) -> None:
    first, second = reversed(step) if newer_first else step

    taken = await storage.submit(asked(first, "acct-000017", "k-1"))
    again = await storage.submit(asked(second, "acct-000017", "k-1"))
    other = await storage.submit(asked(second, "acct-000017", None))

    assert isinstance(taken, Taken)
    assert again == Replayed(taken.request, joined=False)
    assert other == Joined(taken.request)


@pytest.mark.parametrize("step", STEPS, ids=NAMES)
async def test_one_person_asked_for_at_once_on_both_is_one_request(
    storage: IntakeStorage, step: tuple[SubjectRefs, SubjectRefs]
) -> None:
    subjects = [f"acct-{number:06}" for number in range(8)]

    answers: list[Outcome] = await asyncio.gather(
        *(storage.submit(asked(refs, subject, None)) for subject in subjects for refs in step)
    )

    assert [type(one) for one in answers].count(Taken) == len(subjects)
    assert [type(one) for one in answers].count(Joined) == len(subjects)

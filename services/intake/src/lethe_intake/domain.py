"""What intake decides: who is meant, when it is due, whether it is asked again, where it stands.

A subject is sealed at the door: from here on there are only its references (a keyed digest per key
version) and one ciphertext. Everything below works on those.
"""

import hashlib
import json
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import NAMESPACE_URL, UUID, uuid5
from zoneinfo import ZoneInfo

from lethe_contracts.cipher import Cipher
from lethe_contracts.codec import Envelope
from lethe_contracts.events import (
    STATE_AFTER,
    Event,
    JobEvent,
    Regulation,
    Requested,
    Watermark,
)
from lethe_contracts.sources import INTAKE
from lethe_contracts.states import RequestState
from lethe_contracts.subject import SubjectRefs, normalise
from lethe_contracts.topics import PARTITIONS

Scalar = str | int | float | bool | None

DEADLINE_DAYS: Final = 5
"""Calendar days to erase a person, counted in the subject's zone."""

CLOCK_SKEW: Final = timedelta(minutes=5)
"""How far in the future a team's clock may put a withdrawal."""

_SHORTEST_NAME: Final = 6

OLDEST: Final = timedelta(days=366)
"""How long ago a withdrawal may lie; further back it is a mistake in a date."""


class SubmissionError(ValueError):
    """A submission that cannot be accepted; `field` and `code` say which part and why."""

    def __init__(self, field: str, code: str, detail: str) -> None:
        super().__init__(detail)
        self.field = field
        self.code = code
        self.detail = detail


@dataclass(frozen=True, slots=True)
class SealedSubject:
    """A person, unreadable: the current reference, then those of older keys; the ciphertext."""

    refs: tuple[str, ...]
    token: str

    @property
    def ref(self) -> str:
        """The current reference."""
        return self.refs[0]


class Seal:
    """Turns a subject into its references and its ciphertext.

    Args:
        refs: makes references.
        cipher: encrypts; the reference is the context.
    """

    def __init__(self, refs: SubjectRefs, cipher: Cipher) -> None:
        self._refs = refs
        self._cipher = cipher

    def close(self, subject: str) -> SealedSubject:
        """Seal `subject`.

        Raises:
            ValueError: it is no subject (empty, too long); the text does not quote it.
        """
        plain = normalise(subject)
        refs = tuple(self._refs.all_of(plain))
        return SealedSubject(refs, self._cipher.encrypt(plain.encode(), context=refs[0]))


@dataclass(frozen=True, slots=True)
class Submission:
    """What a team asked for."""

    team: str
    subject: SealedSubject
    reason: str
    regulation: Regulation
    requested_at: datetime | None
    metadata: Mapping[str, Scalar] | None
    idempotency_key: str | None
    traceparent: str

    def fingerprints(self) -> list[bytes]:
        """Digest what was asked, once per key version, the current first.

        Two submissions are the same if any digests are equal. The subject goes in as its reference:
        a plain digest of it could be guessed back.
        """
        when = self.requested_at.astimezone(UTC).isoformat() if self.requested_at else None
        asked = [self.reason, self.regulation, when, dict(self.metadata or {})]
        return [
            hashlib.sha256(
                json.dumps([ref, *asked], sort_keys=True, ensure_ascii=False).encode()
            ).digest()
            for ref in self.subject.refs
        ]


@dataclass(frozen=True, slots=True)
class Request:
    """One erasure request as intake keeps it, without the person."""

    request_id: UUID
    team: str
    state: RequestState
    reason: str
    regulation: Regulation
    metadata: Mapping[str, Scalar] | None
    requested_at: datetime
    accepted_at: datetime
    deadline: datetime
    closed_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Taken:
    """A new request was written, with its event."""

    request: Request


@dataclass(frozen=True, slots=True)
class Joined:
    """The team already has an open request for this person; nothing was written but the key."""

    request: Request


@dataclass(frozen=True, slots=True)
class Replayed:
    """The same submission under the same key; `joined` says how it was answered first."""

    request: Request
    joined: bool


@dataclass(frozen=True, slots=True)
class KeyReused:
    """The idempotency key was used for another submission."""


Outcome = Taken | Joined | Replayed | KeyReused


def check_unnamed(subject: str, **texts: str) -> None:
    """Refuse free text that names the person: it is kept and sent on in clear.

    Subjects of less than 6 characters are not looked for; they occur in ordinary words.

    Raises:
        SubmissionError: a text contains the subject.
    """
    name = normalise(subject).casefold()
    for field_name, value in texts.items():
        if len(name) >= _SHORTEST_NAME and name in unicodedata.normalize("NFC", value).casefold():
            raise SubmissionError(field_name, "names_the_subject", "must not name the subject")


def check_requested_at(requested_at: datetime, now: datetime) -> None:
    """Refuse a withdrawal that lies in the future or too far back.

    Raises:
        SubmissionError: it does.
    """
    if requested_at > now + CLOCK_SKEW:
        raise SubmissionError("requested_at", "in_the_future", "lies in the future")
    if requested_at < now - OLDEST:
        raise SubmissionError(
            "requested_at", "too_old", f"lies more than {OLDEST.days} days in the past"
        )


def deadline(requested_at: datetime, zone: ZoneInfo) -> datetime:
    """Say until when the person must be erased: the same local time, `DEADLINE_DAYS` later."""
    local = requested_at.astimezone(zone)
    return (local + timedelta(days=DEADLINE_DAYS)).astimezone(UTC)


def requested(
    submission: Submission, request: Request, *, event_id: UUID, at: datetime
) -> Envelope[Requested]:
    """Make the event that promises a new request."""
    return Envelope(
        id=event_id,
        source=INTAKE,
        aggregate=request.request_id,
        sequence=1,
        time=at,
        subject_ref=submission.subject.ref,
        event=Requested(
            request_id=request.request_id,
            attempt=1,
            team=request.team,
            reason=request.reason,
            regulation=request.regulation,
            requested_at=request.requested_at,
            deadline=request.deadline,
            subject=submission.subject.token,
        ),
        traceparent=submission.traceparent,
    )


@dataclass(frozen=True, slots=True)
class Move:
    """What one event of the eraser does to one request, if it is the newest event.

    Newest is the highest (job, sequence): jobs have time-ordered ids, and within a job the sequence
    only grows. `state` None leaves everything as it is.
    """

    request_id: UUID
    job_id: UUID
    sequence: int
    state: RequestState | None
    closed_at: datetime | None = None

    @property
    def forgets_subject(self) -> bool:
        """Whether nobody needs intake's copy of the person any more."""
        return self.state in (RequestState.VERIFIED, RequestState.CANCELLED)


def moves(envelope: Envelope[Event]) -> list[Move]:
    """Say what an event of the eraser does to the requests it names; nothing, if it names none."""
    event = envelope.event
    if not isinstance(event, JobEvent):
        return []
    state = STATE_AFTER.get(type(event))
    closed_at = envelope.time if state is not None and state.is_final else None
    return [
        Move(request_id, event.job_id, envelope.sequence, state, closed_at)
        for request_id in event.request_ids
    ]


def watermarks(
    settled_until: Mapping[int, datetime],
    sequence: int,
    at: datetime,
    *,
    keys: Sequence[str],
    new_id: Callable[[], UUID],
) -> list[Envelope[Watermark]]:
    """Tell the eraser how fresh what it knows is, in one event per partition with settled buckets.

    Args:
        settled_until: by bucket, up to when everything intake decided is in Kafka.
        sequence: of this round of watermarks.
        at: when they are written.
        keys: a key of each partition.
        new_id: names an event.
    """
    of_partition: defaultdict[int, dict[int, datetime]] = defaultdict(dict)
    for bucket, moment in sorted(settled_until.items()):
        of_partition[bucket % PARTITIONS][bucket] = moment.astimezone(UTC)
    return [
        Envelope(
            id=new_id(),
            source=INTAKE,
            aggregate=uuid5(NAMESPACE_URL, f"urn:lethe:watermark:{partition}"),
            sequence=sequence,
            time=at,
            subject_ref=keys[partition],
            event=Watermark(settled_until=settled),
        )
        for partition, settled in sorted(of_partition.items())
    ]

"""Every event of Lethe, as frozen pydantic models; one JSON Schema file each in `schemas/`.

The CloudEvents type is `lethe.erasure.<name>.v<version>`. Order is per (source, aggregate):
`sequence` only grows there. Intake's aggregate is the request (or the hold); the eraser's is its
job, and a job event names the requests it speaks of, each of which belongs to exactly one job.
"""

from collections.abc import Mapping
from typing import Annotated, ClassVar, Final, Literal
from uuid import UUID

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from lethe_contracts.states import BlockReason, RequestState
from lethe_contracts.topics import EVENTS, REQUESTS

Regulation = Literal["pipa", "gdpr", "ccpa"]


class Event(BaseModel):
    """What every event's data has: a name, a version, and the topic it is published on."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: ClassVar[str]
    version: ClassVar[int] = 1
    topic: ClassVar[str]


class Requested(Event):
    """A team asked for a person's erasure; with attempt > 1, intake asks again for the same one."""

    name: ClassVar[str] = "requested"
    topic: ClassVar[str] = REQUESTS

    request_id: UUID
    attempt: Annotated[int, Field(ge=1)]
    team: str
    reason: str
    regulation: Regulation
    requested_at: AwareDatetime
    deadline: AwareDatetime
    subject: str
    """The subject as a ciphertext token (`cipher.Cipher`, context = the subject_ref)."""


class CancelRequested(Event):
    """A team withdrew one request; the eraser's job row decides whether it is too late."""

    name: ClassVar[str] = "cancel_requested"
    topic: ClassVar[str] = REQUESTS

    request_id: UUID


class Held(Event):
    """A legal hold on a person: no new batch starts, for requests of today and of later."""

    name: ClassVar[str] = "held"
    topic: ClassVar[str] = REQUESTS

    hold_id: UUID


class Released(Event):
    """A legal hold ended. A released `hold_id` stays released, in whatever order the two arrive."""

    name: ClassVar[str] = "released"
    topic: ClassVar[str] = REQUESTS

    hold_id: UUID


class Watermark(Event):
    """What intake decided for these buckets before the time of each stands before this record.

    It speaks only of buckets of the partition that it is written to, because order is per
    partition; one with an unresolved dead letter is left out.
    """

    name: ClassVar[str] = "watermark"
    topic: ClassVar[str] = REQUESTS

    settled_until: Annotated[
        dict[Annotated[int, Field(ge=0, le=255)], AwareDatetime], Field(min_length=1)
    ]
    """By bucket, on the clock of intake's database."""


class TypeTotals(BaseModel):
    """What was done so far for one request type of one job: rows and objects, cumulative."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    feature_rows: int = 0
    task_rows: int = 0
    client_rows: int = 0
    objects_gone: int = 0
    objects_missing: int = 0
    """Named by a row and not there before anything was deleted, in buckets that count this."""
    objects_scheduled: int = 0
    """Tagged for a lifecycle rule to remove; counted once, also after they are gone."""
    objects_kept: int = 0
    """Shared, or another person's: named by a row and left where it is."""
    rows_blocked: int = 0


class JobEvent(Event):
    """What every event of the eraser says: its job, the requests spoken of, the job's totals."""

    topic: ClassVar[str] = EVENTS

    job_id: UUID
    request_ids: Annotated[tuple[UUID, ...], Field(min_length=1)]
    totals: dict[str, TypeTotals]


class Accepted(JobEvent):
    """The job knows these requests and will not start before `not_before`."""

    name: ClassVar[str] = "accepted"

    not_before: AwareDatetime


class Started(JobEvent):
    """The job's first batch is about to begin."""

    name: ClassVar[str] = "started"


class BatchErased(JobEvent):
    """One more batch is gone from S3 and masked in the product's tables."""

    name: ClassVar[str] = "batch_erased"

    request_type: str
    batch: Annotated[int, Field(ge=1)]


class Erased(JobEvent):
    """Every batch is done; the verification scan has not spoken yet."""

    name: ClassVar[str] = "erased"


class Verified(JobEvent):
    """The second scan found nothing left; the job's copy of the subject is gone."""

    name: ClassVar[str] = "verified"


class Blocked(JobEvent):
    """The job ended with something left behind, and why: rows per reason."""

    name: ClassVar[str] = "blocked"

    reasons: Annotated[dict[BlockReason, int], Field(min_length=1)]
    locked_until: AwareDatetime | None = None
    """When the last lock of the objects left ends; none under a legal hold, or without locks."""


class Cancelled(JobEvent):
    """These requests were withdrawn in time."""

    name: ClassVar[str] = "cancelled"


class CancelRefused(JobEvent):
    """These requests could not be withdrawn any more."""

    name: ClassVar[str] = "cancel_refused"


class HoldApplied(JobEvent):
    """A hold stopped the job; a batch whose intent was committed before may have finished."""

    name: ClassVar[str] = "hold_applied"

    hold_id: UUID


class Failed(JobEvent):
    """The job gave up; `error` is a class of error, never a driver's text."""

    name: ClassVar[str] = "failed"

    error: str


ALL: Final[tuple[type[Event], ...]] = (
    Requested,
    CancelRequested,
    Held,
    Released,
    Watermark,
    Accepted,
    Started,
    BatchErased,
    Erased,
    Verified,
    Blocked,
    Cancelled,
    CancelRefused,
    HoldApplied,
    Failed,
)
"""Every event type of the contract, in the order a request meets them."""

STATE_AFTER: Final[Mapping[type[JobEvent], RequestState]] = {
    Accepted: RequestState.ACCEPTED,
    Started: RequestState.RUNNING,
    BatchErased: RequestState.RUNNING,
    Erased: RequestState.ERASED,
    Verified: RequestState.VERIFIED,
    Blocked: RequestState.BLOCKED,
    Cancelled: RequestState.CANCELLED,
    HoldApplied: RequestState.HELD,
    Failed: RequestState.FAILED,
}
"""The state that each event of the eraser puts a request into. `cancel_refused` changes none."""

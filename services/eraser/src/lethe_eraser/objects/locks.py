"""Whether a version that S3 refused to delete is locked, and until when.

Servers answer a delete of a locked version with different codes, so the code proves nothing: the
version is asked for its retention and its legal hold.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from lethe_eraser.objects.calls import RefusedError, S3Calls
from lethe_eraser.objects.deleting import Item

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client


@dataclass(frozen=True, slots=True)
class Lock:
    """A lock; `until` is None under a legal hold, which has no end of its own."""

    until: datetime | None


def lock_of(calls: S3Calls, bucket: str, item: Item) -> Lock | None:
    """Ask for the lock of one version; None if it has none, or S3 will not tell.

    Raises:
        ObjectStoreUnavailableError: S3 is away.
    """

    def hold(client: "S3Client", arguments: dict[str, Any]) -> bool:
        answer = client.get_object_legal_hold(**arguments, **item.entry())
        return answer.get("LegalHold", {}).get("Status") == "ON"

    def retention(client: "S3Client", arguments: dict[str, Any]) -> datetime | None:
        answer = client.get_object_retention(**arguments, **item.entry())
        until = answer.get("Retention", {}).get("RetainUntilDate")
        return None if until is None else until.astimezone(UTC)

    try:
        if calls.call(bucket, hold):
            return Lock(None)
    except RefusedError:
        pass  # Most often: this version, or this bucket, never had one.
    try:
        until = calls.call(bucket, retention)
    except RefusedError:
        return None
    return None if until is None or until <= datetime.now(UTC) else Lock(until)

"""What became of objects, and what can go wrong with a store of them."""

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from lethe_eraser.domain import ObjectRef

UNKNOWN_BUCKET: Final = "UnknownBucket"
VERSIONS_REMAIN: Final = "VersionsRemain"
OBJECT_LOCKED: Final = "ObjectLocked"
"""Not S3's own code (each server has another): refused, and under retention or a legal hold."""
MFA_DELETE: Final = "MfaDelete"
"""The bucket lets no version go without a second factor, which a service has not."""
REWRITTEN: Final = "Rewritten"
"""It holds what it did not when it was read: nobody knows what could be found through that."""
TAG_LIMIT: Final = "TagLimit"
"""The object has ten tags of others, and S3 keeps no eleventh."""


class ObjectStoreError(Exception):
    """Root of what the object store raises; the message never holds a key."""


class ObjectStoreUnavailableError(ObjectStoreError):
    """S3 cannot be reached, throttles, or knows our credentials no more: try again later.

    `code` is S3's error code or the class of the driver's error.
    """

    def __init__(self, code: str) -> None:
        super().__init__(f"the object store is not available: {code}")
        self.code = code


class CircuitOpenError(ObjectStoreUnavailableError):
    """It failed too often in a row and is left alone for a while; nothing was sent."""

    def __init__(self) -> None:
        super().__init__("CircuitOpen")


class ObjectMissingError(ObjectStoreError):
    """There is no such object, in no version that holds data."""


class ObjectTooLargeError(ObjectStoreError):
    """The object holds more bytes than were allowed for."""


class ObjectRefusedError(ObjectStoreError):
    """S3 refuses to give the object, and will again; `code` is its error code."""

    def __init__(self, code: str) -> None:
        super().__init__(f"the object store refused: {code}")
        self.code = code


class BucketsUnfitError(ObjectStoreError):
    """A bucket is not as the eraser needs it; `problems` says of each what to change."""

    def __init__(self, problems: tuple[str, ...]) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


@dataclass(frozen=True, slots=True)
class Content:
    """What an object holds, while it is read."""

    chunks: AsyncIterator[bytes]
    name: str
    """As S3 tells it from what was or will be in the object: its version, or without one its ETag.

    `null` is no version's own name: it comes back with another content.
    """


Held = Mapping[ObjectRef, tuple[str, ...]]
"""By object, the names (as in `Content`) of what may be deleted of it and nothing else."""


@dataclass(frozen=True, slots=True)
class Deletion:
    """What became of objects that were to be deleted: each is in exactly one of the first three.

    On a bucket without versions S3 does not tell whether an object was there: `gone` says that it
    is not there now, by S3's word.
    """

    gone: frozenset[ObjectRef]
    failed: Mapping[ObjectRef, str]
    """S3's error code, or one of this module; a lock or a permission, which no retry mends."""
    scheduled: frozenset[ObjectRef] = frozenset()
    """Tagged in every version, for a lifecycle rule to remove; still there, and refused to all."""
    locked_until: Mapping[ObjectRef, datetime | None] = field(default_factory=dict)
    """Those of `failed` that are locked: until when, or None under a legal hold."""

    @property
    def done(self) -> frozenset[ObjectRef]:
        """What needs to be traced no more through the row that names it."""
        return self.gone | self.scheduled

    def __or__(self, other: "Deletion") -> "Deletion":
        """Both together."""
        return Deletion(
            self.gone | other.gone,
            {**self.failed, **other.failed},
            self.scheduled | other.scheduled,
            {**self.locked_until, **other.locked_until},
        )


NOTHING: Final = Deletion(gone=frozenset(), failed={})
"""Nothing was to be deleted."""

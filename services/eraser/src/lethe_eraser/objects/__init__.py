"""Objects in S3: deleted or tagged, looked for again, read; and the CDN before them."""

from lethe_eraser.objects.calls import S3Options
from lethe_eraser.objects.outcomes import (
    MFA_DELETE,
    OBJECT_LOCKED,
    TAG_LIMIT,
    BucketsUnfitError,
    CircuitOpenError,
    Deletion,
    ObjectMissingError,
    ObjectRefusedError,
    ObjectStoreError,
    ObjectStoreUnavailableError,
    ObjectTooLargeError,
)
from lethe_eraser.objects.store import ObjectStore

__all__ = [
    "MFA_DELETE",
    "OBJECT_LOCKED",
    "TAG_LIMIT",
    "BucketsUnfitError",
    "CircuitOpenError",
    "Deletion",
    "ObjectMissingError",
    "ObjectRefusedError",
    "ObjectStore",
    "ObjectStoreError",
    "ObjectStoreUnavailableError",
    "ObjectTooLargeError",
    "S3Options",
]

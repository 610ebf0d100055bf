"""Objects in S3: deleted or tagged, looked for again, read; and the CDN before them."""

from lethe_eraser.objects.calls import S3Options
from lethe_eraser.objects.cdn import Cdn, CdnError, CdnOptions
from lethe_eraser.objects.checking import PROBE_KEY
from lethe_eraser.objects.company import Company
from lethe_eraser.objects.outcomes import (
    MFA_DELETE,
    NOTHING,
    OBJECT_LOCKED,
    REWRITTEN,
    TAG_LIMIT,
    BucketsUnfitError,
    CircuitOpenError,
    Content,
    Deletion,
    Held,
    ObjectMissingError,
    ObjectRefusedError,
    ObjectStoreError,
    ObjectStoreUnavailableError,
    ObjectTooLargeError,
)
from lethe_eraser.objects.store import ObjectStore

__all__ = [
    "MFA_DELETE",
    "NOTHING",
    "OBJECT_LOCKED",
    "PROBE_KEY",
    "REWRITTEN",
    "TAG_LIMIT",
    "BucketsUnfitError",
    "Cdn",
    "CdnError",
    "CdnOptions",
    "CircuitOpenError",
    "Company",
    "Content",
    "Deletion",
    "Held",
    "ObjectMissingError",
    "ObjectRefusedError",
    "ObjectStore",
    "ObjectStoreError",
    "ObjectStoreUnavailableError",
    "ObjectTooLargeError",
    "S3Options",
]

"""Objects in S3: deleted, looked for again, read."""

from lethe_eraser.objects.calls import S3Options
from lethe_eraser.objects.outcomes import (
    Deletion,
    ObjectMissingError,
    ObjectRefusedError,
    ObjectStoreError,
    ObjectStoreUnavailableError,
    ObjectTooLargeError,
)
from lethe_eraser.objects.store import ObjectStore

__all__ = [
    "Deletion",
    "ObjectMissingError",
    "ObjectRefusedError",
    "ObjectStore",
    "ObjectStoreError",
    "ObjectStoreUnavailableError",
    "ObjectTooLargeError",
    "S3Options",
]

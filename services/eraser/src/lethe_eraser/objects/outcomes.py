"""What became of objects, and what can go wrong with a store of them."""

from collections.abc import Mapping
from dataclasses import dataclass

from lethe_eraser.domain import ObjectRef


class ObjectStoreError(Exception):
    """Root of what the object store raises; the message never holds a key."""


class ObjectStoreUnavailableError(ObjectStoreError):
    """S3 cannot be reached, throttles, or knows our credentials no more: try again later.

    `code` is S3's error code or the class of the driver's error.
    """

    def __init__(self, code: str) -> None:
        super().__init__(f"the object store is not available: {code}")
        self.code = code


class ObjectMissingError(ObjectStoreError):
    """There is no such object, in no version that holds data."""


class ObjectTooLargeError(ObjectStoreError):
    """The object holds more bytes than were allowed for."""


class ObjectRefusedError(ObjectStoreError):
    """S3 refuses to give the object, and will again; `code` is its error code."""

    def __init__(self, code: str) -> None:
        super().__init__(f"the object store refused: {code}")
        self.code = code


@dataclass(frozen=True, slots=True)
class Deletion:
    """What became of objects that were to be deleted: each is in exactly one of the two."""

    gone: frozenset[ObjectRef]
    failed: Mapping[ObjectRef, str]
    """S3's error code; a lock or a missing permission, which no retry mends."""

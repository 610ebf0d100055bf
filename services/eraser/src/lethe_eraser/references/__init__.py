"""What a stored value refers to, and whose it is; pure."""

from lethe_eraser.references.documents import UNTAGGED, RowReader, Sorted, Tagged
from lethe_eraser.references.reading import Found
from lethe_eraser.references.urls import (
    Ambiguous,
    Conflict,
    Nothing,
    Resolution,
    Resolved,
    Resolver,
    Unresolved,
)

__all__ = [
    "UNTAGGED",
    "Ambiguous",
    "Conflict",
    "Found",
    "Nothing",
    "Resolution",
    "Resolved",
    "Resolver",
    "RowReader",
    "Sorted",
    "Tagged",
    "Unresolved",
]

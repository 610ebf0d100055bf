"""What a stored value refers to, and whose it is; pure."""

from lethe_eraser.references.documents import Found, RowReader, Sorted
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
    "Ambiguous",
    "Conflict",
    "Found",
    "Nothing",
    "Resolution",
    "Resolved",
    "Resolver",
    "RowReader",
    "Sorted",
    "Unresolved",
]

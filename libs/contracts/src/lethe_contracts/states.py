"""The states of a request, and whose event decides when two services name one."""

from enum import StrEnum


class RequestState(StrEnum):
    """Where one erasure request stands.

    Two services publish events about a request: intake (it was asked for) and the eraser (what
    became of it). As soon as there is an event of the eraser it decides, whichever arrived first;
    among the eraser's events the one with the highest sequence decides.
    """

    REQUESTED = "requested"
    ACCEPTED = "accepted"
    RUNNING = "running"
    HELD = "held"
    ERASED = "erased"
    VERIFIED = "verified"
    BLOCKED = "blocked"
    CANCELLED = "cancelled"
    FAILED = "failed"

    @property
    def is_final(self) -> bool:
        """Whether the eraser will do nothing more for this request by itself."""
        return self in _FINAL


_FINAL = frozenset(
    {
        RequestState.VERIFIED,
        RequestState.BLOCKED,
        RequestState.CANCELLED,
        RequestState.FAILED,
    }
)


class BlockReason(StrEnum):
    """Why something of a person was left; a contract, shown to compliance as it stands."""

    UNKNOWN_TYPE = "unknown_type"
    """A client row names a request type that no catalog entry claims."""
    UNCOVERED = "uncovered"
    """A JSON shape, table or column that no catalog entry claims."""
    UNRESOLVED_REFERENCE = "unresolved_reference"
    """A URL whose host or bucket the catalog does not know; a bucket is never guessed."""
    REFERENCE_CONFLICT = "reference_conflict"
    """Parts of one reference contradict each other (a bucket beside the URL of another one)."""
    AMBIGUOUS_REFERENCE = "ambiguous_reference"
    """One reference may mean several objects (a raw `+`, a Unicode form), and more than one is
    there."""
    MALFORMED_JSON = "malformed_json"
    """A value that should be JSON and is not, or is not of any claimed shape."""
    MANIFEST_MISSING = "manifest_missing"
    """The manifest of a PDF extraction is gone, so its files are unknown."""
    MANIFEST_INVALID = "manifest_invalid"
    """The manifest of a PDF extraction cannot be read as one."""
    OBJECT_NOT_DELETED = "object_not_deleted"
    """S3 refused to delete an object (a missing permission); its row stays as it was."""
    OBJECT_LOCKED = "object_locked"
    """An object is under a retention period or a legal hold of S3; its row stays as it was."""
    MFA_DELETE = "mfa_delete"
    """The bucket lets no version go without a second factor; somebody has to delete by hand."""
    TOO_MANY_MISSING = "too_many_missing"
    """Of the objects named in one bucket more than 2 % were not there: the catalog may be wrong."""
    SUBJECT_ACTIVE = "subject_active"
    """The person's account is active, or was opened again after they asked to be erased."""
    STILL_WRITING = "still_writing"
    """The product kept changing a row in every round, or a request of the person is unfinished."""

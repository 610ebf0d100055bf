"""What can be wrong with a key, a token or a record. Nothing here ever quotes what it was given."""

from typing import ClassVar


class ContractError(Exception):
    """The root of this library's errors."""


class SubjectError(ContractError, ValueError):
    """A subject is not an account id we can take."""


class KeyRingError(ContractError, ValueError):
    """A key ring cannot be read."""


class RecordError(ContractError):
    """A record cannot be taken; `reason` is the code that goes with it to the dead letters."""

    reason: ClassVar[str] = "invalid_record"


class NotOursError(RecordError):
    """The record carries no CloudEvent of ours."""

    reason = "not_ours"


class UnknownTypeError(RecordError):
    """The record is a CloudEvent of a type this contract does not have."""

    reason = "unknown_type"


class UnknownVersionError(RecordError):
    """The record is of a version this program does not know; deploy a newer one."""

    reason = "unknown_version"


class InvalidEventError(RecordError):
    """The record's attributes or data are not what its schema says."""

    reason = "invalid_event"


class UndecryptableError(RecordError):
    """A ciphertext cannot be opened: wrong key, wrong context, or damaged."""

    reason = "undecryptable_subject"

"""Where a page ended, as an opaque cursor: callers hand it back and never look inside."""

import base64
import binascii
from http import HTTPStatus
from typing import Final
from uuid import UUID

from lethe_runtime.problems import FieldError, Problem

_REQUEST: Final = b"r"
_DEAD_LETTER: Final = b"d"
_ID_BYTES: Final = 8


def after_request(request_id: UUID) -> str:
    """Make the cursor of a page that ended with `request_id`."""
    return _written(_REQUEST + request_id.bytes)


def request_of(cursor: str) -> UUID:
    """Read a cursor made by `after_request`; raises a 422 problem for anything else."""
    return UUID(bytes=_read(cursor, _REQUEST, 16))


def after_dead_letter(letter_id: int) -> str:
    """Make the cursor of a page that ended with the dead letter `letter_id`."""
    return _written(_DEAD_LETTER + letter_id.to_bytes(_ID_BYTES))


def dead_letter_of(cursor: str) -> int:
    """Read a cursor made by `after_dead_letter`; raises a 422 problem for anything else."""
    found = int.from_bytes(_read(cursor, _DEAD_LETTER, _ID_BYTES))
    if found >= 2**63:
        raise _refused()
    return found


def _written(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).decode().rstrip("=")


def _read(cursor: str, kind: bytes, length: int) -> bytes:
    try:
        padded = cursor + "=" * (-len(cursor) % 4)
        content = base64.b64decode(padded, altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise _refused() from None
    if not content.startswith(kind) or len(content) != length + 1:
        raise _refused()
    return content[1:]


def _refused() -> Problem:
    return Problem(
        HTTPStatus.UNPROCESSABLE_ENTITY,
        "invalid-request",
        "The request is not valid",
        "See errors for what to change.",
        errors=[
            FieldError(
                pointer="/query/cursor",
                code="unknown_cursor",
                detail="is not a cursor of this list; begin again without one",
            )
        ],
    )

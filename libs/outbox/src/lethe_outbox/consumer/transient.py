"""Which errors are transient: worth a retry, and not the fault of the record being handled.

Of a database's error its SQLSTATE decides where it carries one: SQLAlchemy's classes mix a server
that shuts down with a value too long for an index, and drivers differ in which they raise.
"""

import errno
import socket
import ssl
from typing import Final

from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

_ELSEWHERE: Final = (
    *(PoolTimeoutError, ConnectionError, TimeoutError),
    *(socket.gaierror, socket.herror, ssl.SSLError),
)
_NUMBERS: Final = frozenset(
    {
        # The network,
        *(errno.ENETDOWN, errno.ENETUNREACH, errno.ENETRESET, errno.EHOSTDOWN, errno.EHOSTUNREACH),
        *(errno.ECONNREFUSED, errno.ECONNRESET, errno.ECONNABORTED, errno.ETIMEDOUT, errno.EPIPE),
        *(errno.EADDRNOTAVAIL, errno.ENOTCONN),
        # and what this machine is short of.
        *(errno.EMFILE, errno.ENFILE, errno.ENOSPC, errno.EDQUOT, errno.ENOMEM, errno.ENOBUFS),
        *(errno.EAGAIN, errno.EIO),
    }
)
_CLASSES: Final = frozenset(
    {
        "08",  # the connection broke
        "26",  # a pooler's other connection does not know the statement
        "28",  # not let in
        "3D",  # no such database
        "3F",  # or schema, as the next
        "40",  # deadlock, not serialisable
        "42",  # a table or right that a migration is about to bring
        "53",  # no room, memory or connection left
        "55",  # a lock was not to be had
        "57",  # cancelled, or shut down
        "58",  # the server's own disk
    }
)
_STATES: Final = frozenset({"25006"})
"""A server that takes no writes: a standby, or one that somebody set so."""

_OF_ONE_RECORD: Final = frozenset({"55P03", "57014"})
"""A row that somebody locks, and a statement that takes too long."""


def is_transient(error: BaseException) -> bool:
    """Say whether what failed with `error` is worth trying again, however often."""
    if not isinstance(error, DBAPIError):
        return isinstance(error, _ELSEWHERE) or (
            isinstance(error, OSError) and _is_of_the_machine(error.errno)
        )
    if error.connection_invalidated:
        return True
    state = _state_of(error)
    if state is None:
        # The driver's own word: it has no connection, or was used wrongly.
        return isinstance(error, OperationalError | InterfaceError)
    return state[:2] in _CLASSES or state in _STATES


def meets_everybody(error: BaseException) -> bool:
    """Say whether every other use of the database would meet this transient error now, too."""
    if isinstance(error, DBAPIError):
        return error.connection_invalidated or _state_of(error) not in _OF_ONE_RECORD
    return isinstance(error, PoolTimeoutError)


def _state_of(error: DBAPIError) -> str | None:
    return getattr(error.orig, "sqlstate", None) or getattr(error.orig, "pgcode", None)


def _is_of_the_machine(number: int | None) -> bool:
    """Tell such an error from those of a file's name, which a record may have brought."""
    # None: asyncio reached none of several addresses. Below 0: a name was not resolved, and a
    # client made an error of its own of that.
    return number is None or number < 0 or number in _NUMBERS

"""Why a database does not answer, or does not let us in, and what to do about it.

A refused connection comes without an SQLSTATE: libpq gives the server's sentence alone, in the
server's language. An English one of PostgreSQL or pgbouncer is recognised; the sentence itself,
which quotes names, is never shown.
"""

import re
from dataclasses import dataclass
from typing import Final

import psycopg
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from lethe_runtime.logging import error_class


@dataclass(frozen=True, slots=True)
class Away:
    """Why a database cannot be worked with.

    Attributes:
        reason: a short word for logs and `/readyz`: an SQLSTATE, or what stands for one.
        says: what the database does, to be read after its name, and what to do next.
    """

    reason: str
    says: str

    def __str__(self) -> str:
        return f"{self.says} ({self.reason})"


_ACCESS: Final = Away(
    "28P01", "refuses the user or the password: look at both in the URL of the settings"
)
_NOT_ALLOWED: Final = Away(
    "28000",
    "lets nobody in who comes so: look at the user and `sslmode` in the URL, and at pg_hba.conf",
)
_NO_DATABASE: Final = Away(
    "3D000", "is not there, though its server answers: look at the name at the end of the URL"
)
_NO_CONNECT: Final = Away("42501", "does not let this role connect: grant it CONNECT")
_NO_RIGHT: Final = Away(
    "42501",
    "does not give this role the right to that: grant it CREATE on the database to migrate it, and "
    "USAGE on schema lethe with all rights on its tables to work with it",
)
_FULL: Final = Away(
    "53300", "has no connection left: end some, or raise max_connections (or the pooler's limit)"
)
_NO_SPACE: Final = Away("53100", "has no disk space left: make room, then say the same again")
_STARTING: Final = Away("57P03", "is starting or stopping: try again in a moment")
_STOPPED: Final = Away("57P01", "was stopped or restarted meanwhile: try again in a moment")
_CANCELLED: Final = Away("57014", "took too long, and the statement was ended: try again later")
_BUSY: Final = Away("40001", "is busy with the same rows: try again in a moment")
_TLS: Final = Away("tls", "does not agree on TLS: look at `sslmode` and `sslrootcert` in the URL")
_NO_HOST: Final = Away("no_such_host", "has a host that no name server knows: look at the URL")
_NOBODY: Final = Away(
    "refused", "does not answer, nobody listens there: is it running? Look at host and port too"
)
_SILENT: Final = Away(
    "timeout", "does not answer in time: is it running, and is there a way to its host and port?"
)
_OUR_POOL: Final = Away("pool", "is asked too much by this process: try again in a moment")

_BY_STATE: Final = {
    "28P01": _ACCESS,
    "28000": _NOT_ALLOWED,
    "3D000": _NO_DATABASE,
    "42501": _NO_RIGHT,
    "53300": _FULL,
    "53100": _NO_SPACE,
    "57P01": _STOPPED,
    "57P02": _STOPPED,
    "57P03": _STARTING,
    "57014": _CANCELLED,
    "40001": _BUSY,
    "40P01": _BUSY,
    "55P03": _BUSY,
}
# The first that fits; of several hosts of one URL the last one's refusal comes first.
_BY_SENTENCE: Final = tuple(
    (re.compile(pattern, re.IGNORECASE), why)
    for pattern, why in (
        (r"no pg_hba\.conf entry|pg_hba\.conf rejects|not permitted to log in", _NOT_ALLOWED),
        (r"authentication failed|no password supplied|wrong password|no such user", _ACCESS),
        (r"role \".*\" does not exist", _ACCESS),
        (r"database \".*\" does not exist|no such database", _NO_DATABASE),
        (r"permission denied for database", _NO_CONNECT),
        (r"too many (?:clients|connections)|connection slots are reserved", _FULL),
        (r"no more connections allowed", _FULL),
        (r"starting up|shutting down|not (?:yet )?accepting connections|recovery mode", _STARTING),
        (r"terminating connection|server closed the connection", _STOPPED),
        (r"\bSSL\b|certificate|\bTLS\b", _TLS),
        (r"failed to resolve host|could not translate host name|name or service not", _NO_HOST),
        (r"connection refused|no such file or directory", _NOBODY),
        (r"time(?:d )?out|no route to host|network is unreachable", _SILENT),
    )
)


def why_away(error: BaseException) -> Away:
    """Classify an error; an unknown one means "does not answer", with the error's class."""
    if isinstance(error, PoolTimeoutError):
        return _OUR_POOL
    cause = error.orig if isinstance(error, DBAPIError) else error
    state = cause.sqlstate if isinstance(cause, psycopg.Error) else None
    if state in _BY_STATE:
        return _BY_STATE[state]
    if state is None:
        sentence = str(cause)
        for pattern, why in _BY_SENTENCE:
            if pattern.search(sentence):
                return why
    name = error_class(error)
    return Away(name if state is None else f"{name} {state}", "does not answer")


def reason_of(error: BaseException) -> str:
    """Name an error in a log line or `/readyz`: its class, and why a database is away."""
    name = error_class(error)
    if not isinstance(error, DBAPIError | PoolTimeoutError | psycopg.Error):
        return name
    reason = why_away(error).reason
    return reason if reason.startswith(name) else f"{name} {reason}"

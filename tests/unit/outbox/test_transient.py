"""Which errors of a database are waited out, and which are a record's own."""

import errno
import socket
import ssl

import psycopg
import pytest
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from lethe_outbox.consumer.transient import is_transient, meets_everybody


class Refused(psycopg.Error):
    """An error with whatever SQLSTATE the server gave it."""

    def __init__(self, state: str | None) -> None:
        super().__init__()
        self.sqlstate = state


def of(state: str | None, kind: type[DBAPIError] = DBAPIError, *, lost: bool = False) -> DBAPIError:
    return kind("SELECT", None, Refused(state), connection_invalidated=lost)


def os_error(name: str) -> OSError:
    """As the system raises it: with the class that goes with its number."""
    return OSError(getattr(errno, name), name)


@pytest.mark.parametrize(
    "error",
    [
        *map(of, ("08006", "25006", "26000", "28P01", "3D000", "40001", "40P01", "42P01")),
        *map(of, ("53300", "55P03", "57P01", "57014", "58030")),
        # A session that the server ended, for whatever reason it gives.
        of("25P03", lost=True),
        of(None, OperationalError),
        of(None, InterfaceError),
        PoolTimeoutError(),
        ConnectionResetError(),
        TimeoutError(),
        ConnectionRefusedError(errno.ECONNREFUSED, ""),
        socket.gaierror(socket.EAI_AGAIN, ""),
        ssl.SSLError(1, ""),
        OSError("Multiple exceptions: of several addresses"),
        OSError(socket.EAI_AGAIN, "a client's own word for a name that is not resolved"),
        *map(os_error, ("ENETUNREACH", "EHOSTUNREACH", "EADDRNOTAVAIL", "ETIMEDOUT")),
        *map(os_error, ("EMFILE", "ENFILE", "ENOSPC", "ENOMEM", "EIO")),
    ],
    ids=repr,
)
def test_what_may_pass_is_waited_for(error: Exception) -> None:
    assert is_transient(error)


@pytest.mark.parametrize(
    "error",
    [
        *map(of, ("22P02", "22001", "23505", "25P02", "54000", "P0001", "XX000")),
        # What SQLAlchemy calls one that is away, too.
        of("54000", OperationalError),
        of(None),
        ValueError(),
        *map(os_error, ("ENOENT", "ENAMETOOLONG", "EACCES", "EISDIR", "ENOTDIR", "EEXIST")),
        *map(os_error, ("EPERM", "EINVAL", "ELOOP")),
    ],
    ids=repr,
)
def test_what_comes_back_with_the_record_is_not(error: Exception) -> None:
    assert not is_transient(error)


@pytest.mark.parametrize(
    ("error", "everybody"),
    [
        (of("57P01"), True),
        (PoolTimeoutError(), True),
        (of("55P03"), False),
        (of("57014"), False),
        (of("57014", lost=True), True),
        (ConnectionResetError(), False),
    ],
    ids=repr,
)
def test_what_one_record_waits_for_holds_no_other_one(error: Exception, *, everybody: bool) -> None:
    assert meets_everybody(error) is everybody

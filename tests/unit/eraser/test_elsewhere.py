"""Which errors are those of a server that is away, and which are a job's own."""

import psycopg
import pytest
from sqlalchemy.exc import DBAPIError, InternalError, OperationalError, ProgrammingError

from lethe_eraser.execute.worker import _is_elsewhere
from lethe_eraser.objects import ObjectStoreUnavailableError


class Refused(psycopg.Error):
    """An error with the SQLSTATE that the server gave it."""

    def __init__(self, state: str) -> None:
        super().__init__()
        self.sqlstate = state


def of(kind: type[DBAPIError], state: str) -> DBAPIError:
    return kind("SELECT", None, Refused(state))


@pytest.mark.parametrize(
    ("error", "is_elsewhere"),
    [
        (of(OperationalError, "57P01"), True),
        (of(OperationalError, "55P03"), True),
        (of(InternalError, "25006"), True),
        (ObjectStoreUnavailableError("EndpointConnectionError"), True),
        (ConnectionResetError(), True),
        # A value too long for an index comes back with its row, for ever.
        (of(OperationalError, "54000"), False),
        (of(InternalError, "25P02"), False),
        # A catalog that does not fit is nobody's outage.
        (of(ProgrammingError, "42P01"), False),
        (ValueError(), False),
    ],
    ids=repr,
)
def test_a_job_s_own_error_is_counted(error: Exception, *, is_elsewhere: bool) -> None:
    assert _is_elsewhere(error) is is_elsewhere

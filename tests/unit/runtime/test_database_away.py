"""Why a database is away: by its SQLSTATE where there is one, else by the server's sentence."""

import psycopg
import pytest
from psycopg import errors
from sqlalchemy.exc import OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from lethe_runtime.database_away import reason_of, why_away

AT = 'connection failed: connection to server at "10.0.0.7", port 5432 failed: '


def refused(sentence: str) -> OperationalError:
    return OperationalError(None, None, psycopg.OperationalError(sentence))


@pytest.mark.parametrize(
    ("sentence", "reason"),
    [
        (AT + 'FATAL:  password authentication failed for user "ssl_starting_up"', "28P01"),
        (AT + "fe_sendauth: no password supplied", "28P01"),
        (AT + 'FATAL:  role "kim" does not exist', "28P01"),
        (
            AT + 'FATAL:  no pg_hba.conf entry for host "10.0.0.9", user "kim", no encryption',
            "28000",
        ),
        (AT + 'FATAL:  database "kim" does not exist', "3D000"),
        (AT + 'FATAL:  permission denied for database "kim"', "42501"),
        (AT + "FATAL:  sorry, too many clients already", "53300"),
        (AT + "FATAL:  remaining connection slots are reserved for roles with SUPERUSER", "53300"),
        (AT + "FATAL:  the database system is starting up", "57P03"),
        (AT + "FATAL:  the database system is not yet accepting connections", "57P03"),
        (AT + "server does not support SSL, but SSL was required", "tls"),
        (AT + "SSL error: certificate verify failed", "tls"),
        (
            "failed to resolve host 'kim.example': [Errno -2] Name or service not known",
            "no_such_host",
        ),
        (AT + "Connection refused", "refused"),
        ("connection timeout expired", "timeout"),
        # pgbouncer's words.
        (AT + "FATAL:  no such database: kim", "3D000"),
        (AT + "FATAL:  no more connections allowed (max_client_conn)", "53300"),
    ],
)
def test_a_refused_connection_is_told_by_its_sentence(sentence: str, reason: str) -> None:
    error = refused(sentence)
    away = why_away(error)
    assert away.reason == reason
    assert "kim" not in str(away)
    assert "10.0.0" not in str(away)
    assert reason_of(error) == f"OperationalError {reason}"


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (errors.AdminShutdown("kim"), "57P01"),
        (errors.CannotConnectNow("kim"), "57P03"),
        (errors.TooManyConnections("kim"), "53300"),
        (errors.DiskFull("kim"), "53100"),
        (errors.QueryCanceled("password authentication failed"), "57014"),
    ],
)
def test_an_sqlstate_is_believed_before_any_sentence(error: psycopg.Error, reason: str) -> None:
    assert why_away(OperationalError("select 1", {}, error)).reason == reason
    assert why_away(error).reason == reason


def test_what_nobody_can_tell_apart_is_told_by_its_class() -> None:
    # A server that speaks another language, and a state of no meaning for us.
    foreign = refused("치명적오류: 사용자의 password 인증을 실패했습니다")
    assert str(why_away(foreign)) == "does not answer (OperationalError)"
    assert reason_of(foreign) == "OperationalError"
    odd = OperationalError("select 1", {}, errors.IoError("connection refused"))
    assert str(why_away(odd)) == "does not answer (OperationalError 58030)"
    assert reason_of(odd) == "OperationalError 58030"


def test_our_own_pool_is_no_server_that_is_away() -> None:
    assert why_away(PoolTimeoutError()).says.startswith("is asked too much by this process")
    # Errors of others are called by their class, whatever their text looks like.
    assert reason_of(ConnectionRefusedError("connection refused")) == "ConnectionRefusedError"

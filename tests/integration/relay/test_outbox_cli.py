"""`lethe outbox`: what an operator sees and does."""

import asyncio
import json

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine
from typer.testing import CliRunner, Result

from lethe_outbox import Message
from lethe_outbox.schema import Status
from lethe_relay.outbox_cli import app
from lethe_runtime.database import DatabaseAwayError, NotMigratedError
from tests.support.outbox_world import append, statuses


@pytest.fixture
def environment(database_url: str, kafka: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LETHE_RELAY_INTAKE_DATABASE_URL", database_url)
    monkeypatch.setenv("LETHE_RELAY_PRODUCT_DATABASE_URL", database_url)
    monkeypatch.setenv("LETHE_RELAY_KAFKA_BOOTSTRAP", kafka)
    monkeypatch.setenv("COLUMNS", "200")


async def lethe_outbox(*arguments: str) -> Result:
    # The command runs a loop of its own.
    return await asyncio.to_thread(CliRunner().invoke, app, list(arguments))


async def refuse(engine: AsyncEngine, number: int, status: Status) -> None:
    async with engine.begin() as connection:
        await connection.execute(
            text("update lethe.outbox set status = :status where id = :id"),
            {"status": int(status), "id": number},
        )
        await connection.execute(
            text(
                "insert into lethe.outbox_dead"
                " select id, created_at, event_id, bucket, topic, key, status, 'too_large', true"
                " from lethe.outbox where id = :id"
            ),
            {"id": number},
        )


@pytest.fixture
async def three_rows(engine: AsyncEngine, environment: None) -> AsyncEngine:
    """One waits, one is in its dead-letter topic, one is not even there."""
    del environment
    await append(engine, *(Message("t", "acct-000017", b"") for _ in range(3)))
    await refuse(engine, 2, Status.DEAD_LETTERED)
    await refuse(engine, 3, Status.DLT_FAILED)
    return engine


async def test_status_shows_counts_ages_and_what_was_refused_but_no_key(
    three_rows: AsyncEngine,
) -> None:
    del three_rows
    shown = await lethe_outbox("status")
    assert shown.exit_code == 0
    assert "DLT_FAILED" in shown.output
    assert "too_large" in shown.output
    assert "acct-000017" not in shown.output


async def test_status_for_programs(three_rows: AsyncEngine) -> None:
    del three_rows
    shown = await lethe_outbox("status", "--json")
    found = json.loads(shown.output)
    assert set(found) == {"intake", "product"}
    intake = found["intake"]
    assert (intake["pending"], intake["dead_lettered"], intake["dlt_failed"]) == (1, 1, 1)
    assert intake["oldest_pending_seconds"] >= 0
    assert [(row["id"], row["status"]) for row in intake["refused"]] == [
        (2, "DEAD_LETTERED"),
        (3, "DLT_FAILED"),
    ]


async def test_requeue_brings_back_what_failed_for_good_unless_told_which(
    three_rows: AsyncEngine,
) -> None:
    shown = await lethe_outbox("requeue", "--outbox", "intake")
    assert shown.output == "1 rows of intake are pending again\n"
    assert await statuses(three_rows) == [Status.PENDING, Status.DEAD_LETTERED, Status.PENDING]
    shown = await lethe_outbox("requeue", "--outbox", "intake", "--id", "2", "--id", "99")
    assert shown.output == "1 rows of intake are pending again\n"
    assert await statuses(three_rows) == [Status.PENDING] * 3


async def test_what_cannot_be_asked_is_one_sentence(
    database_url: str, environment: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    del environment
    shown = await lethe_outbox("status")
    assert isinstance(shown.exception, NotMigratedError)
    monkeypatch.setenv(
        "LETHE_RELAY_INTAKE_DATABASE_URL", "postgresql+psycopg://nobody:secret@127.0.0.1:1/none"
    )
    shown = await lethe_outbox("status")
    assert isinstance(shown.exception, DatabaseAwayError)
    assert "secret" not in str(shown.exception)
    del database_url

"""A hint after the commit spares the relay's pause, and nothing else depends on it."""

import asyncio
import logging
import threading
from collections.abc import Iterator

import pytest
from prometheus_client import CollectorRegistry
from sqlalchemy import Engine, create_engine, event, text
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.orm import Session

from lethe_outbox import Message, RelayMetrics, RelaySettings, WakeUp
from lethe_outbox.relay import listen
from tests.support.factories import TopicFactory
from tests.support.outbox_world import NAME, OUTBOX, append, drained, events, running
from tests.support.waiting import until, until_sync

AN_HOUR = 3600.0
PATIENT = RelaySettings(poll_min_seconds=AN_HOUR, poll_max_seconds=AN_HOUR, pause_max_seconds=0.5)
"""Polls once an hour, unless it is told something."""


@pytest.fixture
def writer(engine: AsyncEngine, database_url: str) -> Iterator[Engine]:
    del engine  # which laid the tables
    found = create_engine(database_url)
    yield found
    found.dispose()


async def backends(engine: AsyncEngine, name: str) -> set[int]:
    statement = "select pid from pg_stat_activity where application_name = :name"
    async with engine.connect() as connection:
        return set((await connection.scalars(text(statement), {"name": name})).all())


async def cut(engine: AsyncEngine, name: str) -> set[int]:
    statement = (
        "with them as materialized (select pid from pg_stat_activity"
        " where application_name = :name) select pid from them where pg_terminate_backend(pid)"
    )
    async with engine.connect() as connection:
        return set((await connection.scalars(text(statement), {"name": name})).all())


async def test_a_hint_ends_the_pause_of_a_relay(
    engine: AsyncEngine, database_url: str, kafka: str, topic: TopicFactory
) -> None:
    name = await topic()
    with WakeUp(engine):
        async with running(database_url, kafka, PATIENT) as relay:
            # What the first finds could be the work of the start; the others need their hints.
            for round_ in range(3):
                await append(engine, *events(name, [f"key-{round_}"], 1))
                await drained(engine)
            await relay.reach("relay_hints_total", 2)


async def test_listening_goes_on_after_its_connection_was_cut(
    engine: AsyncEngine, database_url: str, kafka: str, topic: TopicFactory
) -> None:
    name = await topic()
    listener = f"relay-{NAME}-listen"
    with WakeUp(engine):
        async with running(database_url, kafka, PATIENT) as relay:
            await append(engine, *events(name, ["a"], 1))
            await drained(engine)
            lost = await until(lambda: cut(engine, listener))

            async def again() -> bool:
                return bool(await backends(engine, listener) - lost)

            await until(again, what="another listening connection")
            for key in "bcd":
                await append(engine, *events(name, [key], 1))
                await drained(engine)
            await relay.reach("relay_hints_total", 2)


async def test_a_writer_does_not_notice_that_its_hints_connection_was_cut(
    engine: AsyncEngine, database_url: str, kafka: str, topic: TopicFactory
) -> None:
    name = await topic()
    with WakeUp(engine) as wake_up:
        async with running(database_url, kafka, PATIENT):
            await append(engine, *events(name, ["a"], 1))
            await drained(engine)
            await until(lambda: wake_up.sent > 0)
            assert await cut(engine, "outbox-wake-up")
            for key in "bcd":
                await append(engine, *events(name, [key], 1))
                await drained(engine)


async def test_without_listening_rows_are_found_by_polling(
    engine: AsyncEngine, database_url: str, kafka: str, topic: TopicFactory
) -> None:
    name = await topic()
    with WakeUp(engine):
        async with running(database_url, kafka, RelaySettings(listen=False)) as relay:
            for key in "ab":
                await append(engine, *events(name, [key], 1))
                await drained(engine)
            assert relay.value("relay_hints_total") is None
            assert await backends(engine, f"relay-{NAME}-listen") == set()


async def test_a_pooler_that_loses_hints_is_noticed_once(
    engine: AsyncEngine,
    database_url: str,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # What a pooler in transaction mode makes of LISTEN: it is accepted, and nothing comes.
    monkeypatch.setattr(listen, "listen", lambda _schema: "select 1")
    monkeypatch.setattr(listen, "_PROBE_SECONDS", 0.2)
    metrics = RelayMetrics(CollectorRegistry())
    listener = listen.Listener(
        NAME,
        database_url,
        "lethe",
        hint=asyncio.Event(),
        heard=metrics.hints.labels(NAME),
        pause_max_seconds=0.1,
    )
    with caplog.at_level(logging.WARNING):
        await asyncio.wait_for(listener.run(), 30)
    said = [record.message for record in caplog.records if "do not arrive" in record.message]
    assert len(said) == 1
    assert await backends(engine, f"relay-{NAME}-listen") == set()


def test_a_burst_of_commits_is_told_once_and_the_rest_later(writer: Engine) -> None:
    with WakeUp(writer, seconds=AN_HOUR) as wake_up:
        for number in range(1000):
            with writer.begin() as connection:
                OUTBOX.append(connection, Message("t", f"key-{number}", b"1"))
        until_sync(lambda: wake_up.sent > 0)
        assert wake_up.sent == 1


def test_what_is_committed_after_a_hint_gets_another_one(writer: Engine) -> None:
    with WakeUp(writer) as wake_up:
        for number in (1, 2):
            with Session(writer) as session, session.begin():
                OUTBOX.append(session, Message("t", "key", b"1"))
            until_sync(lambda expected=number: wake_up.sent >= expected)  # type: ignore[misc] # mypy infers no type of a default


def test_only_commits_that_wrote_the_outbox_are_told(writer: Engine) -> None:
    with WakeUp(writer):
        with writer.connect() as connection:
            OUTBOX.append(connection, Message("t", "key", b"1"))
            connection.rollback()
            connection.execute(text("create table other (id int)"))
            connection.commit()
        assert [one for one in threading.enumerate() if "wake-up" in one.name] == []


def test_a_connection_that_is_lost_raises_what_it_did_without_hints(writer: Engine) -> None:
    def work() -> None:
        with writer.begin() as connection:
            OUTBOX.append(connection, Message("t", "key", b"1"))
            connection.execute(text("select pg_terminate_backend(pg_backend_pid())"))

    with WakeUp(writer), pytest.raises(OperationalError):
        work()


def test_the_business_transaction_holds_no_notify(writer: Engine) -> None:
    said: list[str] = []

    def note(*arguments: object) -> None:
        said.append(str(arguments[2]).lower())

    event.listen(writer, "after_cursor_execute", note)
    with WakeUp(writer) as wake_up:
        with writer.begin() as connection:
            OUTBOX.append(connection, Message("t", "key", b"1"))
        until_sync(lambda: wake_up.sent == 1)
    assert [statement for statement in said if "notify" in statement] == []
    with writer.connect() as connection:
        triggers = connection.scalar(
            text("select count(*) from pg_trigger where tgrelid = 'lethe.outbox'::regclass")
        )
    assert triggers == 0

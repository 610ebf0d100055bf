"""The relay's connections are what its URL says, as any engine's are."""

import asyncio
import re
from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import pytest
from prometheus_client import CollectorRegistry
from sqlalchemy import make_url, text
from sqlalchemy.ext.asyncio import AsyncEngine

from lethe_outbox import Relay, RelayMetrics, UnsupportedDatabaseError
from lethe_outbox.relay.sample import engine_for
from lethe_outbox.relay.session import Session
from tests.support.factories import TopicFactory
from tests.support.outbox_world import append, drained, events, problems, running
from tests.support.topics import read_raw
from tests.support.waiting import until

SHOW = (
    "select current_setting('search_path'), current_setting('timezone'),"
    " current_setting('statement_timeout')"
)


async def told(url: str, show: str = SHOW) -> list[tuple[str, ...]]:
    """Give the settings of a relay's session and of its engines."""
    async with Session(url, "tested") as session:
        row = await (await session.reader.execute(show, prepare=False)).fetchone()
    assert row is not None
    async with engine_for(url, "tested", 5000).connect() as connection:
        return [tuple(row), tuple((await connection.execute(text(show))).one())]


@pytest.mark.parametrize(
    "options", ["-csearch_path=tenant1", ("-c search_path=tenant1", "-c timezone=Asia/Seoul")]
)
async def test_options_of_the_url_hold_beside_the_relays_own(
    engine: AsyncEngine, database_url: str, options: str | tuple[str, ...]
) -> None:
    del engine
    url = make_url(database_url).update_query_dict({"options": options})
    assert await told(url.render_as_string(hide_password=False)) == [
        ("tenant1", "UTC", "30s"),
        ("tenant1", "UTC", "5s"),
    ]


async def test_no_setting_of_the_role_ends_a_session(
    engine: AsyncEngine, database_url: str
) -> None:
    """They are made for people: a relay's sessions are idle, and meet each other's writes."""
    made = {
        "idle_session_timeout": "1s",
        "lock_timeout": "1s",
        "default_transaction_isolation": "serializable",
        "datestyle": "German",
    }
    role = f"alter role current_user in database {engine.url.database} set"
    async with engine.begin() as connection:
        for name, value in made.items():
            await connection.execute(text(f"{role} {name} = '{value}'"))
    show = "select " + ", ".join(f"current_setting('{name}')" for name in made)
    rows = await told(database_url, show)
    assert [(*row[:3], row[3][:3]) for row in rows] == 2 * [("0", "0", "read committed", "ISO")]


async def test_keys_are_utf_8_whatever_the_role_reads(
    engine: AsyncEngine, database_url: str, kafka: str, topic: TopicFactory
) -> None:
    name = await topic()
    role = f"alter role current_user in database {engine.url.database} set"
    async with engine.begin() as connection:
        await connection.execute(text(f"{role} client_encoding = 'LATIN1'"))
    async with running(database_url, kafka):
        await append(engine, *events(name, ["clé"], 1))
        await drained(engine)
    (record,) = await read_raw(kafka, [name])
    assert record.key == "clé".encode()


async def test_of_several_hosts_one_that_is_there_is_taken(
    engine: AsyncEngine, database_url: str
) -> None:
    del engine
    url = make_url(database_url)
    hosts = ("127.0.0.1:1", f"{url.host}:{url.port}")
    several = url.set(host=None, port=None).update_query_dict({"host": hosts})
    assert len(await told(several.render_as_string(hide_password=False))) == 2


@pytest.fixture
async def without_rights(engine: AsyncEngine) -> AsyncIterator[str]:
    """A role that may connect and see the schema, and nothing else."""
    role = f"relay_{uuid4().hex}"
    async with engine.begin() as connection:
        await connection.execute(text(f"create role {role} login password 'p'"))
        await connection.execute(text(f"grant usage on schema lethe to {role}"))
    yield role
    async with engine.begin() as connection:
        await connection.execute(text(f"drop owned by {role}"))
        await connection.execute(text(f"drop role {role}"))


async def test_a_right_that_is_missing_is_waited_for(
    engine: AsyncEngine, database_url: str, kafka: str, topic: TopicFactory, without_rights: str
) -> None:
    """Ended by it, a relay would take those of other outboxes with it, in the same process."""
    name = await topic()
    await append(engine, *events(name, ["key"], 2))
    url = make_url(database_url).set(username=without_rights, password="p")
    async with running(url.render_as_string(hide_password=False), kafka) as relay:
        await until(lambda: ("database", "away", "InsufficientPrivilege") in relay.states)
        async with engine.begin() as connection:
            for kind in ("tables", "sequences"):
                await connection.execute(
                    text(f"grant all on all {kind} in schema lethe to {without_rights}")
                )
        await drained(engine)
    assert await problems(engine, kafka, [name]) == []


async def test_another_driver_in_the_url_is_none_of_the_relays_business(
    engine: AsyncEngine, database_url: str, kafka: str, topic: TopicFactory
) -> None:
    name = await topic()
    await append(engine, *events(name, ["key"], 2))
    url = make_url(database_url).set(drivername="postgresql+asyncpg")
    async with running(url.render_as_string(hide_password=False), kafka):
        await drained(engine)
    assert await problems(engine, kafka, [name]) == []


def test_another_database_is_refused_before_anything_is_waited_for() -> None:
    with pytest.raises(UnsupportedDatabaseError, match="sqlite"):
        Relay("shop", "sqlite://", "kafka:9092", metrics=RelayMetrics(CollectorRegistry()))


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (
            {"password": "wrong"},
            "OperationalError: .*authentication failed",
        ),
        ({"database": "nowhere"}, 'OperationalError: .*"nowhere" does not exist'),
        ({"port": 1}, "OperationalError: .*Connection refused"),
        ({}, "InvalidSchemaName"),
    ],
)
async def test_the_log_says_why_a_database_cannot_be_worked_with(
    database_url: str,
    kafka: str,
    wrong: dict[str, Any],
    said: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    url = make_url(database_url).set(**wrong).render_as_string(hide_password=False)
    relay = Relay("shop", url, kafka, metrics=RelayMetrics(CollectorRegistry()))
    stop = asyncio.Event()
    running = asyncio.create_task(relay.run(stop))
    await until(lambda: "attempt 1" in caplog.text)
    stop.set()
    await running
    trouble = "database away" if wrong else "tables or rights are missing"
    assert re.search(rf"outbox shop: {trouble} \({said}", caplog.text)

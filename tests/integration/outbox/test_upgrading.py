"""Databases that are deployed already get the new tables, and lose them again."""

from pathlib import Path

import pytest
from alembic.config import Config
from alembic.runtime.environment import EnvironmentContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, create_engine, inspect, text

import lethe_eraser
import lethe_intake
from lethe_outbox import Message, Outbox

EARLIER = "create index outbox_dead_held on lethe.outbox_dead (bucket, key) where held"
UPKEEP = {"outbox_upkeep", "outbox_purged"}


@pytest.fixture(params=[lethe_intake, lethe_eraser], ids=["intake", "eraser"])
def script(request: pytest.FixtureRequest) -> ScriptDirectory:
    return ScriptDirectory(str(Path(request.param.__file__).parent / "migrations"))


def go(connection: Connection, script: ScriptDirectory, revision: str, *, up: bool = True) -> None:
    steps = script._upgrade_revs if up else script._downgrade_revs
    with EnvironmentContext(
        Config(), script, fn=lambda at, _context: steps(revision, at)
    ) as environment:
        environment.configure(
            connection=connection, version_table="version", version_table_schema="lethe"
        )
        environment.run_migrations()


def tables(connection: Connection) -> set[str]:
    return set(inspect(connection).get_table_names("lethe"))


def test_a_deployed_database_is_upgraded_with_its_rows_and_back(
    database_url: str, script: ScriptDirectory
) -> None:
    engine = create_engine(database_url)
    with engine.begin() as connection:
        connection.execute(text("create schema lethe"))
        go(connection, script, "0001")
        assert not UPKEEP & tables(connection)
        Outbox().append(connection, Message("t", "k", b"1"))
        go(connection, script, "0003")
        assert tables(connection) >= UPKEEP
        assert connection.scalar(text("select count(*) from lethe.outbox")) == 1
        assert connection.scalar(text("select count(*) from lethe.outbox_upkeep")) == 1
    for up in (False, True, False):
        with engine.begin() as connection:
            go(connection, script, "0003" if up else "0002", up=up)
            assert bool(UPKEEP & tables(connection)) is up
            assert connection.scalar(text("select count(*) from lethe.outbox")) == 1
    engine.dispose()


def test_a_deployed_list_of_the_dead_gets_the_index_that_takes_long_keys(
    database_url: str, script: ScriptDirectory
) -> None:
    head = script.get_current_head()
    assert head is not None
    engine = create_engine(database_url)
    for deployed in (False, True):
        with engine.begin() as connection:
            connection.execute(text("drop schema if exists lethe cascade"))
            connection.execute(text("create schema lethe"))
            go(connection, script, "0003")
            if deployed:
                connection.execute(text("drop index lethe.outbox_dead_key"))
                connection.execute(text(EARLIER))
            go(connection, script, head)
            found = {one["name"] for one in inspect(connection).get_indexes("outbox_dead", "lethe")}
            assert found == {"outbox_dead_key"}
    engine.dispose()

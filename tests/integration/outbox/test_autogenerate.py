"""A user whose own Alembic revisions are written by autogenerate keeps the outbox."""

from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.operations import Operations
from sqlalchemy import Column, Connection, Engine, Integer, MetaData, Table, create_engine

from lethe_outbox import OutboxTables
from lethe_outbox.migrations import PARTS, but_outboxes

SCHEMAS = ("shop", "billing", None)


@pytest.fixture
def engine(database_url: str) -> Any:
    engine = create_engine(database_url)
    with engine.begin() as connection:
        op = Operations(MigrationContext.configure(connection))
        for schema in SCHEMAS:
            for steps in PARTS.values():
                for create in steps:
                    create(op, schema)
        for name in ("outbox_2", "outbox_of_mail", "outbox_2026"):
            connection.exec_driver_sql(f"create table {name} (id int primary key)")
    yield engine
    engine.dispose()


def revision(connection: Connection, metadata: MetaData, *left: str | None) -> list[Any]:
    options: Any = {"include_schemas": True, "include_object": but_outboxes(*left)}
    context = MigrationContext.configure(connection, opts=options)
    steps: list[Any] = compare_metadata(context, metadata)
    return steps


@pytest.mark.parametrize("registered", [True, False])
def test_it_changes_nothing_of_ours_and_everything_of_theirs(
    engine: Engine, *, registered: bool
) -> None:
    metadata = MetaData()
    Table("orders", metadata, Column("id", Integer, primary_key=True))
    if registered:
        for schema in SCHEMAS:
            OutboxTables(schema, metadata)
    with engine.connect() as connection:
        found = revision(connection, metadata, *SCHEMAS)
    assert sorted((step[0], step[1].name) for step in found) == [
        ("add_table", "orders"),
        *(("remove_table", name) for name in ("outbox_2", "outbox_2026", "outbox_of_mail")),
    ]


def test_an_outbox_that_is_not_named_is_not_passed_over(engine: Engine) -> None:
    with engine.connect() as connection:
        found = revision(connection, MetaData(), "shop", None)
    tables = [step[1] for step in found if step[0] == "remove_table"]
    dropped = {table.name for table in tables if table.schema == "billing"}
    assert {"outbox", "inbox_default", "dead_letter"} <= dropped

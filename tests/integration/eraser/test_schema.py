"""The migration and the table definitions say the same."""

from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection

from lethe_eraser.storage.tables import SCHEMA, VERSION_TABLE, metadata
from tests.integration.eraser.world import World


async def test_the_migration_makes_exactly_the_tables_that_the_code_names(world: World) -> None:
    ours = {table.name for table in metadata.sorted_tables}

    def differences(connection: Connection) -> list[object]:
        # The user of the sandbox is called as the schema is, which makes it the default one.
        connection.dialect.default_schema_name = "public"
        context = MigrationContext.configure(
            connection,
            opts={
                "include_schemas": True,
                "include_name": lambda name, kind, parents: (
                    name == SCHEMA
                    if kind == "schema"
                    else name in ours
                    if kind == "table"
                    else parents.get("table_name") in ours
                ),
                "version_table": VERSION_TABLE,
                "version_table_schema": SCHEMA,
                "compare_type": True,
            },
        )
        return list(compare_metadata(context, metadata))

    async with world.engine.connect() as connection:
        assert await connection.run_sync(differences) == []
        assert len(ours) == 12

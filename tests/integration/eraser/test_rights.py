"""What the eraser's role may not see or write is said before anything is erased."""

from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from uuid import uuid4

import pytest
from sqlalchemy import text

from lethe_eraser.catalog import CatalogError, Finding
from lethe_eraser.check import check, unclaimed_tables_of
from tests.integration.eraser.world import SUBJECT, World, make_catalog

LOOKED_UP = """look_ups:
  elsewhere: {table: elsewhere, expression: key}
features:
"""


@pytest.fixture
async def role(world: World) -> AsyncIterator[str]:
    """A role that may read and write everything, and to which policies apply."""
    name = f"eraser_{uuid4().hex}"
    await world.write(f"create role {name} in role pg_read_all_data, pg_write_all_data")
    yield name
    await world.write(f"drop role {name}")


async def checked(world: World, role: str) -> Sequence[Finding]:
    async with world.engine.begin() as connection:
        await connection.execute(text(f"set local role {role}"))
        return await check(connection, world.catalog)


@pytest.mark.parametrize("table", ["client", "document", "sketch_task", "elsewhere"])
async def test_rows_that_a_policy_may_hide_refuse(
    world: World, role: str, tmp_path: Path, table: str
) -> None:
    """They would never be found, and their person be verified."""
    await world.write("create table public.elsewhere (key text primary key)")
    world.catalog = make_catalog(tmp_path, world.buckets, {"features:\n": LOOKED_UP})
    assert await checked(world, role) == ()
    await world.write(f"alter table {table} enable row level security")
    with pytest.raises(CatalogError, match=f"{table}: row-level security may hide rows"):
        await checked(world, role)
    await world.write(f"alter role {role} bypassrls")
    assert await checked(world, role) == ()


async def test_a_table_nobody_claims_whose_rows_may_be_hidden_is_not_taken_for_empty(
    world: World, role: str
) -> None:
    await world.write("create table public.client_v2 (client_key text primary key)")
    await world.write("alter table client_v2 enable row level security")
    async with world.engine.begin() as connection:
        assert await unclaimed_tables_of(connection, world.catalog, SUBJECT) == []
        await connection.execute(text(f"set local role {role}"))
        [met] = await unclaimed_tables_of(connection, world.catalog, SUBJECT)
    assert met.table == "client_v2"


@pytest.mark.parametrize(
    ("role", "says"),
    [
        ("pg_read_all_data", "document.title: this role may not mask it; `grant update`"),
        ("pg_write_all_data", "document.created_at: this role may not read it; `grant select`"),
    ],
)
async def test_what_the_role_may_not_read_or_mask_refuses(
    world: World, role: str, says: str
) -> None:
    """Its objects would be gone before the row that names them turned out to stay."""
    with pytest.raises(CatalogError, match=says):
        await checked(world, role)

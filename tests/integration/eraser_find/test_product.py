"""The statements on the product's tables: paging, masking by version, indexes, the live check."""

import json
from pathlib import Path
from typing import Any, Final

import pytest
from sqlalchemy import event, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from lethe_eraser.catalog import Catalog, CatalogError, load
from lethe_eraser.check import check_schema
from lethe_eraser.storage.client_rows import (
    ClientRow,
    NotMaskedError,
    mask_client_rows,
    page_client_rows,
    types_of,
)
from lethe_eraser.storage.request_rows import mask_rows, unmasked_rows

TABLES: Final = """
create schema shop;
create table shop.draw (
    id int primary key, option jsonb, tags json, "Prompt" text, note varchar(4) not null,
    level int, made_at timestamptz not null default '2024-01-01');
create table client (
    id bigint generated always as identity, owner text not null, type text, rid bigint,
    created_at timestamptz not null, primary key (id, created_at))
    partition by range (created_at);
create table client_2024 partition of client
    for values from ('2024-01-01') to ('2025-01-01');
create table client_rest partition of client default;
create index on client (owner, type, rid);
create table old_client (
    ref uuid primary key default gen_random_uuid(), owner text not null, type text, rid int);
create index on old_client (owner, type, rid)
"""

CATALOG: Final = """\
version: 1
buckets: {mine: {}}
client_tables:
  client:
    primary_key: [id, created_at]
    client_key: owner
    request_type: type
    request_id: rid
    created_at: created_at
    mask: {owner: erased}
  old_client:
    primary_key: ref
    client_key: owner
    request_type: type
    request_id: rid
    mask: {owner: erased}
features:
  draw:
    handler: ai_generate
    feature:
      table: shop.draw
      mask: {option: {}, tags: [], Prompt: null, note: gone, level: 0}
      keep: [made_at]
      references: {option: [], tags: []}
"""


def read_catalog(folder: Path, changed: str = CATALOG) -> Catalog:
    path = folder / "catalog.yaml"
    path.write_text(changed, encoding="utf-8")
    return load(path)


@pytest.fixture
async def tables(connection: AsyncConnection) -> AsyncConnection:
    for statement in TABLES.split(";"):
        await connection.execute(text(statement))
    return connection


async def pages(
    connection: AsyncConnection, catalog: Catalog, source: int, limit: int
) -> list[list[ClientRow]]:
    found: list[list[ClientRow]] = []
    after = None
    while page := await page_client_rows(
        connection, catalog.client_tables[source], "me", "draw", after=after, limit=limit
    ):
        found.append(page)
        after = page[-1].cursor
    return found


@pytest.mark.parametrize("source", [0, 1])
async def test_client_rows_come_in_pages_and_each_once(
    tables: AsyncConnection, tmp_path: Path, source: int
) -> None:
    catalog = read_catalog(tmp_path)
    rows: list[tuple[str, str | None, int | None]] = [
        ("me", "draw", rid) for rid in (5, 1, 5, 5, 3, None, None, 2, None)
    ]
    rows += [("you", "draw", 1), ("me", "other", 9), ("me", None, 4), ("me", "", None)]
    table = ("client", "old_client")[source]
    extra = ", created_at" if source == 0 else ""
    when = ", '2024-05-01 10:00:00.123456+09'" if source == 0 else ""
    for owner, type_, rid in rows:
        await tables.execute(
            text(f"insert into {table} (owner, type, rid{extra}) values (:o, :t, :r{when})"),  # noqa: S608  # names of this test
            {"o": owner, "t": type_, "r": rid},
        )
    assert await types_of(tables, catalog.client_tables[source], "me") == {
        "": 2,
        "draw": 9,
        "other": 1,
    }
    for limit in (1, 2, 4, 9, 100):
        found = await pages(tables, catalog, source, limit)
        assert all(len(page) == limit for page in found[:-1])
        flat = [row for page in found for row in page]
        assert [row.request_id for row in flat] == [1, 2, 3, 5, 5, 5, None, None, None]
        assert len({row.primary_key for row in flat}) == 9
    unnamed = await page_client_rows(
        tables, catalog.client_tables[source], "me", "", after=None, limit=9
    )
    assert [row.request_id for row in unnamed] == [4, None]
    keys = [row.primary_key for row in flat]
    client = catalog.client_tables[source]
    assert await mask_client_rows(tables, client, "me", []) == 0
    # Only what is the person's still: the product may give a row to somebody else meanwhile.
    with pytest.raises(NotMaskedError):
        await mask_client_rows(tables, client, "you", keys)
    assert await mask_client_rows(tables, client, "me", keys) == 9
    assert await pages(tables, catalog, source, 5) == []
    erased = await tables.scalar(text(f"select count(*) from {table} where owner = 'erased'"))  # noqa: S608  # likewise
    assert erased == 9


async def insert(connection: AsyncConnection, row_id: int, **values: Any) -> None:
    row = {"id": row_id, "option": '{"a": 1}', "tags": "[]", "p": "hello", "note": "n", "level": 1}
    await connection.execute(
        text(
            'insert into shop.draw (id, option, tags, "Prompt", note, level) values'
            " (:id, cast(:option as jsonb), cast(:tags as json), :p, :note, :level)"
        ),
        row | values,
    )


async def test_masked_rows_are_never_found_again(tables: AsyncConnection, tmp_path: Path) -> None:
    product = read_catalog(tmp_path).features["draw"].tables[0]
    await insert(tables, 1)
    await insert(tables, 2, option=None, tags=None, p=None, note="gone", level=None)
    await insert(tables, 3, option="{}", tags="[]", p=None, note="gone", level=0)
    found = await unmasked_rows(tables, product, [3, 2, 1, 9])
    assert [(row.row_id, row.request_id) for row in found] == [(1, 1), (2, 2)]
    assert [dict(row.values) for row in found] == [
        {"option": '{"a": 1}', "tags": "[]"},
        {"option": None, "tags": None},
    ]
    masked = await mask_rows(tables, product, {row.row_id: row.row_version for row in found})
    assert masked == {1, 2}
    assert await unmasked_rows(tables, product, [1, 2, 3]) == []
    rows = await tables.execute(
        text('select option::text, tags::text, "Prompt", note, level from shop.draw')
    )
    assert {tuple(row) for row in rows} == {("{}", "[]", None, "gone", 0)}
    assert await unmasked_rows(tables, product, []) == []
    assert await mask_rows(tables, product, {}) == frozenset()


async def test_the_statements_of_a_table_are_written_once(
    tables: AsyncConnection, tmp_path: Path
) -> None:
    products = [read_catalog(tmp_path).features["draw"].tables[0] for _ in range(2)]
    seen: list[object] = []

    def note(_connection: object, statement: object, *_: object) -> None:
        seen.append(statement)

    event.listen(tables.sync_connection, "before_execute", note)
    for product in (products[0], *products):
        await unmasked_rows(tables, product, [1, 2])
        await mask_rows(tables, product, {1: "1", 2: "2"})
    reading, masking = seen[:2]
    assert seen[2] is reading
    assert seen[3] is masking
    # Another catalog may have other masks for the same table.
    assert {id(reading), id(masking)}.isdisjoint({id(seen[4]), id(seen[5])})


async def test_a_row_that_changed_since_it_was_read_is_left(
    tables: AsyncConnection, engine: AsyncEngine, tmp_path: Path
) -> None:
    product = read_catalog(tmp_path).features["draw"].tables[0]
    for row_id in (1, 2, 3, 4):
        await insert(tables, row_id)
    versions = {r.row_id: r.row_version for r in await unmasked_rows(tables, product, [1, 2, 3, 4])}
    await tables.execute(text("update shop.draw set level = 7 where id = 1"))
    await tables.execute(text("delete from shop.draw where id = 2"))
    async with engine.begin() as locking:
        # A lock is no change.
        await locking.execute(text("select from shop.draw where id = 3 for update"))
    assert await mask_rows(tables, product, versions) == {3, 4}
    assert [r.row_id for r in await unmasked_rows(tables, product, [1, 2, 3, 4])] == [1]


async def test_a_change_under_way_is_waited_for_and_then_respected(
    tables: AsyncConnection, engine: AsyncEngine, tmp_path: Path
) -> None:
    product = read_catalog(tmp_path).features["draw"].tables[0]
    await insert(tables, 1)
    (row,) = await unmasked_rows(tables, product, [1])
    async with engine.connect() as writing:
        await writing.execute(text("update shop.draw set level = 7 where id = 1"))
        await tables.execute(text("set lock_timeout = '100ms'"))
        with pytest.raises(Exception, match="lock timeout"):
            await mask_rows(tables, product, {1: row.row_version})
        await writing.commit()
    assert await mask_rows(tables, product, {1: row.row_version}) == frozenset()


async def test_a_value_too_long_to_read_is_not_read(
    tables: AsyncConnection, tmp_path: Path
) -> None:
    product = read_catalog(tmp_path).features["draw"].tables[0]
    await insert(tables, 1, option=json.dumps({"a": "x" * 1_100_000}))
    (row,) = await unmasked_rows(tables, product, [1])
    assert row.is_cut


async def test_names_are_quoted_whatever_they_are(tables: AsyncConnection, tmp_path: Path) -> None:
    await tables.execute(text('create table "select" (id bigint primary key, "Option" text)'))
    await tables.execute(text("""insert into "select" values (1, '{"a": 1}')"""))
    changed = CATALOG.replace("shop.draw", "select").replace(
        "{option: {}, tags: [], Prompt: null, note: gone, level: 0}", "{Option: {}}"
    )
    changed = changed.replace("[made_at]", "[]").replace("{option: [], tags: []}", "{Option: []}")
    catalog = read_catalog(tmp_path, changed)
    assert await check_schema(tables, catalog) == ()
    product = catalog.features["draw"].tables[0]
    (row,) = await unmasked_rows(tables, product, [1])
    assert await mask_rows(tables, product, {1: row.row_version}) == {1}


async def test_every_statement_of_a_batch_uses_an_index(
    tables: AsyncConnection, tmp_path: Path
) -> None:
    catalog = read_catalog(tmp_path)
    product, source = catalog.features["draw"].tables[0], catalog.client_tables[0]
    await tables.execute(
        text(
            "insert into shop.draw (id, option, tags, note, level)"
            """ select i, '{"a": 1}', '[]', 'n', 1 from generate_series(1, 150000) i"""
        )
    )
    await tables.execute(
        text(
            "insert into client (owner, type, rid, created_at) select 'p' || i % 3000, 'draw', i,"
            " '2024-06-01' from generate_series(1, 150000) i"
        )
    )
    for table in ("shop.draw", "client"):
        await tables.execute(text(f"analyze {table}"))
    seen: list[tuple[str, Any]] = []
    listener = lambda *call: seen.append((call[2], call[3]))  # noqa: E731  # SQLAlchemy's signature
    event.listen(tables.sync_connection, "before_cursor_execute", listener)
    rows = await unmasked_rows(tables, product, list(range(1, 500)))
    await mask_rows(tables, product, {row.row_id: row.row_version for row in rows})
    page = await page_client_rows(tables, source, "p7", "draw", after=None, limit=20)
    more = await page_client_rows(tables, source, "p7", "draw", after=page[-1].cursor, limit=20)
    await mask_client_rows(tables, source, "p7", [row.primary_key for row in (*page, *more)])
    event.remove(tables.sync_connection, "before_cursor_execute", listener)
    assert len(seen) == 5
    for statement, parameters in seen:
        plan = await tables.exec_driver_sql(f"explain {statement}", parameters)
        lines = [line for (line,) in plan]
        assert not [line for line in lines if "Seq Scan on draw" in line or ("client_2024" in line
                    and "Seq Scan" in line)], lines  # fmt: skip


async def test_the_live_check_passes_a_true_catalog_and_tells_what_nobody_claims(
    tables: AsyncConnection, tmp_path: Path
) -> None:
    assert await check_schema(tables, read_catalog(tmp_path)) == ()
    fewer = read_catalog(tmp_path, CATALOG.replace("keep: [made_at]", "keep: []"))
    assert await check_schema(tables, fewer) == ("shop.draw.made_at",)


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ("shop.draw", "shop.drew", "shop.drew: the catalog claims this table"),
        ("shop.draw", "draw", "public.draw: the catalog claims this table"),
        (
            "[made_at]",
            "[made_on]",
            (
                "shop.draw.made_on: the catalog claims this column and the table has none;"
                " did you mean made_at?"
            ),
        ),
        (
            "note: gone",
            "note: null",
            "shop.draw.note: is NOT NULL, so the mask cannot be null; write a constant",
        ),
        (
            "note: gone",
            "note: erased",
            "shop.draw.note: its type character varying(4) does not take the mask 'erased'",
        ),
        (
            "level: 0",
            "level: none",
            "shop.draw.level: its type integer does not take the mask 'none'",
        ),
        ("client_key: owner\n", "client_key: ownr\n", "public.client.ownr: the catalog claims"),
    ],
)
async def test_the_live_check_refuses_what_masking_would_break(
    tables: AsyncConnection, tmp_path: Path, before: str, after: str, expected: str
) -> None:
    changed = CATALOG.replace(before, after)
    if before.startswith("client_key"):
        changed = changed.replace("{owner: erased}", "{ownr: erased}")
    with pytest.raises(CatalogError) as caught:
        await check_schema(tables, read_catalog(tmp_path, changed))
    assert any(problem.startswith(expected) for problem in caught.value.problems)


async def test_a_generated_column_cannot_be_masked(tables: AsyncConnection, tmp_path: Path) -> None:
    await tables.execute(
        text("alter table shop.draw add copy text generated always as (note) stored")
    )
    changed = CATALOG.replace("note: gone", "note: gone, copy: gone")
    with pytest.raises(CatalogError, match="is generated and cannot be masked"):
        await check_schema(tables, read_catalog(tmp_path, changed))

"""Tables as products have them: what `scaffold` prints of each loads and fits, or is refused."""

from pathlib import Path
from uuid import UUID

import pytest
import yaml

from lethe_eraser.catalog import Catalog, CatalogError, load
from lethe_eraser.check import check
from lethe_eraser.check.scaffold import scaffold
from tests.integration.eraser.world import NOTHING, SUBJECT, World, make_catalog, to_the_end

ODD = """
create schema "Shop";
create table "Shop"."DreamOrder" (
    "Id" bigint generated always as identity primary key, "clientNote" text not null, "Wish" jsonb);
create table dream_task (
    id bigint generated always as identity, feature_id bigint not null, made_at timestamptz,
    tags text[] not null, notes text[], code varchar(3) not null, seen inet, drawing jsonb[],
    shots json, words text not null, twice text generated always as (words || words) stored,
    primary key (id, made_at)) partition by range (made_at);
create table dream_task_default partition of dream_task default;
create table style (code text primary key, label text unique);
create table dream (
    nr int not null unique, id bigint primary key, style text not null references style, label text references style (label),
    pictures text[], said text, mood text);
create table client_keyed (
    client_key varchar(4) not null, nr int not null, type text, feature_id bigint,
    primary key (nr, client_key));
create table nothing_tells (words text);
create table by_text (id text primary key, words text);
create table "odd name" (id bigint primary key);
create view v_client as select * from client;
create materialized view m_client as select * from client;
"""  # noqa: E501 - as one would write it


@pytest.fixture
async def odd(world: World) -> World:
    """The world with these tables beside its own."""
    for statement in ODD.split(";"):
        if statement.strip():
            await world.write(f"set local search_path to public; {statement}")
    return world


async def printed(world: World, table: str) -> str:
    async with world.engine.connect() as connection:
        return await scaffold(connection, world.catalog, table)


async def problems(world: World, folder: Path, entry: str) -> str:
    """What is wrong with the catalog once `entry` stands in it, as one would paste it there."""
    path = folder / "catalog.yaml"
    make_catalog(folder, world.buckets)
    whole = yaml.safe_load(path.read_text())
    for group, entries in yaml.safe_load(entry).items():
        whole[group] |= entries
    # Those with a client key are told of as long as nobody claims them.
    whole["ignored_tables"] = {
        name: "not of this test"
        for name in ("client_keyed", "m_client")
        if name not in whole["client_tables"]
    }
    path.write_text(yaml.safe_dump(whole, sort_keys=False))
    try:
        async with world.engine.connect() as connection:
            findings = await check(connection, load(path))
    except CatalogError as error:
        return str(error)
    return "\n".join(f"{one.where}: {one.says}" for one in findings)


async def test_what_is_printed_loads_and_fits_once_everything_is_decided(
    odd: World, tmp_path: Path
) -> None:
    await odd.write(
        """insert into "Shop"."DreamOrder" ("clientNote", "Wish")"""
        """ values ('a', '{"url": "https://cdn.test.example/a.png"}')"""
    )
    await odd.write(
        "insert into dream_task (feature_id, made_at, tags, notes, code, shots, words) values"
        """ (1, now(), '{a}', '{b}', 'abc', '[{"url": "https://cdn.test.example/b.png"}]', 'hm')"""
    )
    order = await printed(odd, '"Shop"."DreamOrder"')
    assert order == await printed(odd, "Shop.DreamOrder")
    assert "DECIDE is yours to replace" not in await problems(odd, tmp_path, order)
    assert "unknown ownership" in await problems(odd, tmp_path, order)
    [entry] = yaml.safe_load(order)["features"].values()
    assert entry["feature"]["primary_key"] == "Id"
    assert await problems(odd, tmp_path, order.replace("DECIDE", "owned")) == ""

    task = yaml.safe_load(await printed(odd, "dream_task"))["features"]["dream"]["task"]
    assert task["mask"] == {
        "tags": "{}",
        "notes": None,
        "code": "era",
        "seen": None,
        "drawing": None,
        "shots": [],
        "words": "erased",
    }
    assert task["keep"] == ["id", "feature_id", "made_at", "twice"]
    assert "primary_key" not in task  # `id` is numbered: unique, though the key has two columns
    # A task stands beside the feature of its type.
    whole = yaml.safe_load(order)
    next(iter(whole["features"].values()))["task"] = task
    both = yaml.safe_dump(whole).replace("DECIDE", "owned")
    assert await problems(odd, tmp_path, both) == ""

    keyed = await printed(odd, "client_keyed")
    # What finds a row cannot be masked: the loader says so of a key that holds the person's.
    assert "column client_key is needed to find the row" in await problems(odd, tmp_path, keyed)


async def test_the_key_that_is_printed_is_the_tables_own(world: World) -> None:
    entry = await printed(world, "client")
    assert entry.startswith("# The catalog has this table: client_tables.client.\n")
    assert yaml.safe_load(entry)["client_tables"]["client"] == {
        "table": "public.client",
        "primary_key": ["id", "created_at"],
        "client_key": "client_key",
        "request_type": "request_type",
        "request_id": "request_id",
        "created_at": "created_at",
        "mask": {"client_key": "erased"},
    }


async def test_few_people_and_few_notes_are_no_status(world: World) -> None:
    await world.write(
        "create table public.wish"
        " (id int primary key, status text, owner_client_key text, note text)"
    )
    await world.write(
        "insert into wish select n, 'done', 'k', case when n < 6 then 'hm' end"
        " from generate_series(1, 20) n"
    )
    text = await printed(world, "wish")
    assert "# status is kept for its few different words: mask it if they tell" in text
    [entry] = yaml.safe_load(text)["features"].values()
    assert entry["feature"]["keep"] == ["id", "status"]
    assert entry["feature"]["mask"] == {"owner_client_key": None, "note": None}


async def test_what_only_a_person_can_decide_is_said_and_taken_by_nothing(
    odd: World, tmp_path: Path
) -> None:
    await odd.write("insert into style values ('s', 'l')")
    await odd.write(
        "insert into dream values"
        " (7, 1, 's', 'l', '{https://cdn.test.example/c.png}', 'a wish', 'ok')"
    )
    text = await printed(odd, "dream")
    assert "primary_key" not in text  # `nr` tells rows apart as well
    assert "# style refers to public.style: " in text
    assert "# pictures is an array that names objects, and no rule reads arrays" in text
    assert yaml.safe_load(text)["features"]["dream"]["feature"]["mask"] == {
        "style": "DECIDE",
        "label": None,
        "pictures": "DECIDE",
        "said": None,
        "mood": None,
    }
    said = await problems(odd, tmp_path, text)
    assert said.count("DECIDE is yours to replace: a mask is null") == 2
    # Whoever decides wrongly is told by the check, not by an erasure that fails.
    said = await problems(odd, tmp_path, text.replace("DECIDE", "'{}'"))
    assert "public.dream.style: is a foreign key to public.style; mask it to null" in said
    wrong = text.replace("style: DECIDE", "").replace("pictures: DECIDE", "pictures: null")
    wrong = wrong.replace("mask: {,", "mask: {").replace("keep: [nr, id]", "keep: [nr, id, style]")
    said = await problems(odd, tmp_path, wrong)
    assert said.startswith("public.dream.pictures: 1 of 1 sampled rows name objects, and no rule")

    assert "label is referred to by public.dream" in await printed(odd, "style")
    for table in ("nothing_tells", "by_text"):
        text = await printed(odd, table)
        assert text.count("# ") > 0
        assert await problems(odd, tmp_path, text)


REFUSED = {
    "lethe.job": "lethe.job: is Lethe's own; a catalog names tables of the product alone",
    "pg_catalog.pg_class": "pg_catalog.pg_class: is PostgreSQL's own; a catalog names",
    "information_schema.tables": "information_schema.tables: is PostgreSQL's own",
    "client_default": "is a partition; `lethe catalog scaffold public.client` prints",
    "v_client": "is a view, which holds no rows of its own; name the table that it reads",
    "m_client": "is a materialized view: refresh it once its tables are erased",
    "odd name": "a catalog takes letters, digits, _ and $ in names; rename the table",
    "clint": "there is no such table; did you mean client",
    "Shop.dreamorder": "there is no such table; did you mean DreamOrder?",
    "": "a table has a name",
}


async def test_what_is_no_table_of_the_product_is_refused_by_name(odd: World) -> None:
    for table, says in REFUSED.items():
        with pytest.raises(CatalogError) as caught:
            await printed(odd, table)
        assert says in str(caught.value)


async def test_what_erasing_would_fail_at_or_do_to_others_refuses(
    odd: World, tmp_path: Path
) -> None:
    catalog = make_catalog(
        tmp_path,
        odd.buckets,
        {"table: document\n": "table: lethe.job\n", "table: sketch_task\n": "table: v_client\n"},
    )
    assert await refused(odd, catalog) == [
        "lethe.job: is Lethe's own; a catalog names tables of the product alone",
        "public.v_client: is a view, which holds no rows of its own; name the table that it reads",
    ]
    for change in (
        "alter table public.document add level numeric(4, 2)",
        "alter table public.document add unique (title)",
        "create table public.paper (title text references public.document (title))",
        "alter table public.client_old alter feature_id type text",
    ):
        await odd.write(change)
    catalog = make_catalog(
        tmp_path,
        odd.buckets,
        {
            "primary_key: [id, created_at]": "primary_key: [id]",
            "title: null}": "title: null, level: 0}",
        },
    )
    says = await refused(odd, catalog)
    for one, expected in zip(says, FOUND_OUT, strict=True):
        assert one.startswith(expected)


async def test_a_client_key_and_a_request_type_that_are_no_text_refuse(
    world: World, tmp_path: Path
) -> None:
    """Every job would fail over them: PostgreSQL compares a uuid or an enum with no text."""
    for change in (
        "create type public.kind as enum ('sketch')",
        "alter table public.client_old alter client_key type uuid using gen_random_uuid()",
        "alter table public.client_old alter type type public.kind using 'sketch'",
    ):
        await world.write(change)
    nobody = str(UUID(int=0))
    feature = "request_id: feature_id\n    mask: {client_key: "
    catalog = make_catalog(tmp_path, world.buckets, {f"{feature}erased": f"{feature}{nobody}"})
    assert await refused(world, catalog) == [
        "public.client_old.client_key: is uuid; a client key is compared as text",
        "public.client_old.type: is kind; a request type is compared as text",
    ]
    for column, kind in (("client_key", "character(40)"), ("type", "name")):
        await world.write(f"alter table public.client_old alter {column} type {kind}")
    async with world.engine.connect() as connection:
        await check(connection, world.catalog)


FOUND_OUT = (
    "public.client: two rows may have the same [id], and one would be masked for the other;",
    "public.client_old.feature_id: is text; the id of a request is a whole number",
    "public.document.level: PostgreSQL writes the mask '0' as '0.00'; write it so",
    "public.document.title: public.paper refers to it by a foreign key; keep it",
)


async def refused(world: World, catalog: Catalog) -> list[str]:
    async with world.engine.connect() as connection:
        with pytest.raises(CatalogError) as caught:
            await check(connection, catalog)
    return sorted(caught.value.problems)


KEY = "seen, few, words, code, uid, at, plain, id"


async def test_keys_of_every_accepted_type_are_paged_and_masked(
    world: World, tmp_path: Path
) -> None:
    await world.write(
        "alter table public.client_old drop constraint client_old_pkey, add seen boolean,"
        " add few smallint, add words text, add code varchar(9), add uid uuid,"
        " add at timestamptz, add plain timestamp"
    )
    request = await world.sketch(1, source="client_old")
    # Many client rows of one request: the key alone says where the next page begins.
    await world.write("delete from client_old")
    await world.write(
        "insert into client_old (client_key, type, feature_id, seen, few, words, code, uid, at,"
        " plain) select :s, 'sketch', :i, n % 2 = 0, n % 3, 'w ' || n % 5, 'c' || n % 2,"
        " gen_random_uuid(), now() - n * interval '1.000001 s', localtimestamp"
        " from generate_series(1, 20) n",
        s=SUBJECT,
        i=request,
    )
    await world.write(f"alter table public.client_old add primary key ({KEY})")
    world.catalog = make_catalog(
        tmp_path, world.buckets, {"  client_old:\n": f"  client_old:\n    primary_key: [{KEY}]\n"}
    )
    async with world.engine.connect() as connection:
        assert await check(connection, world.catalog) == ()
    await world.accept(world.requested())
    assert await to_the_end(world, world.eraser()) == "verified"
    assert await world.left_of(SUBJECT) == NOTHING


async def test_keys_that_no_job_could_write_down_are_refused(world: World, tmp_path: Path) -> None:
    await world.write("create type public.kind as enum ('a')")
    parts = {
        "day": "date",
        "exact": "numeric",
        "fixed": "character(3)",
        "address": "inet",
        "sort": "kind",
        "raw": "bytea",
        "about": "double precision",
    }
    for name, type_name in parts.items():
        await world.write(f"alter table public.client_old add {name} {type_name} not null")
    key = ", ".join(["id", *parts])
    await world.write(
        f"alter table public.client_old drop constraint client_old_pkey, add primary key ({key})"
    )
    await world.write("alter table public.document add uid uuid not null unique")
    await world.write("alter table public.sketch_task add code text not null unique")
    catalog = make_catalog(
        tmp_path,
        world.buckets,
        {
            "  client_old:\n": f"  client_old:\n    primary_key: [{key}]\n",
            "table: sketch_task\n": "table: sketch_task\n      primary_key: code\n",
            "table: document\n": "table: document\n      primary_key: uid\n      request_id: id\n",
        },
    )
    says = [one.split("; ")[0] for one in await refused(world, catalog)]
    assert says == sorted(
        [f"public.client_old.{name}: is {type_name}" for name, type_name in parts.items()]
        + ["public.document.uid: is uuid", "public.sketch_task.code: is text"]
    )

"""Whose object is it? Another person's result stays; what nobody names any more goes."""

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final
from unicodedata import normalize
from urllib.parse import quote

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from lethe_eraser.catalog import CatalogError, LookUp, TableName
from lethe_eraser.check import check_schema
from lethe_eraser.domain import ObjectRef
from lethe_eraser.execute.references import References
from lethe_eraser.objects import Deletion, ObjectStore
from lethe_eraser.storage import operations
from lethe_eraser.storage.events import Announcer
from lethe_eraser.storage.look_ups import LOCKS, lock_objects, referenced
from lethe_outbox import Outbox
from lethe_sandbox.stack import S3Address
from tests.integration.eraser.world import (
    COUNTED,
    COUNTED_INDEX,
    NOTHING,
    OTHER,
    PICTURE,
    SUBJECT,
    Killed,
    World,
    make_catalog,
    open_store,
    put_in,
    to_the_end,
)

OTHER_REF: Final = "1.07her"


@pytest.fixture
async def counted(world: World, tmp_path: Path) -> World:
    """The world, in which an input goes with the last reference to it."""
    await world.write(COUNTED_INDEX)
    world.catalog = make_catalog(tmp_path, world.buckets, COUNTED)
    world.put("uploads", PICTURE)
    return world


def option(world: World, key: str = PICTURE) -> Mapping[str, str]:
    return {"bucket": world.buckets["uploads"], "key": key}


async def both_requested(world: World) -> None:
    await world.accept(world.requested())
    await world.accept(world.requested(ref=OTHER_REF, subject=OTHER), ref=OTHER_REF)


async def states(world: World) -> list[str]:
    return [row.state for row in await world.rows("select state from lethe.job order by 1")]


async def test_another_persons_result_as_an_input_stays(world: World) -> None:
    """Across tables: B's result is what A had upscaled, and A is erased."""
    await world.sketch(1, subject=OTHER)
    theirs = "public/" + f"{OTHER}-1.png"
    named = {"bucket": world.buckets["results"], "key": theirs}
    await world.sketch(1, option=named)
    await world.accept(world.requested())
    await world.eraser().until_idle()
    assert await world.state() == "verified"
    assert await world.left_of(SUBJECT) == NOTHING
    assert world.keys("results") == {theirs}


async def test_letting_go_of_objects_amid_many_batches_comes_to_its_end(
    counted: World, s3: S3Address
) -> None:
    """What a masked batch lets go of takes no batch's place: a page that is not full waits for it.

    The second batch fills the page of the first and has a key left, which waits for the third.
    """
    for number in range(6):
        counted.put("uploads", f"common/{number}.png")
        await counted.sketch(number, option=option(counted, f"common/{number}.png"))
    await counted.accept(counted.requested())
    async with open_store(s3, counted.catalog, page_keys=3) as store:
        ending = to_the_end(counted, counted.eraser(batch_rows=2, objects=store))
        assert await asyncio.wait_for(ending, 60) == "verified"
    assert counted.keys("uploads") == {PICTURE}
    assert await counted.left_of(SUBJECT) == NOTHING


async def test_the_locks_of_any_number_of_objects_are_few(counted: World) -> None:
    """All sessions of a server share room for a few thousand of them."""
    query = text(
        "select count(*) from pg_locks where locktype = 'advisory' and pid = pg_backend_pid()"
    )
    async with counted.engine.begin() as connection:
        await lock_objects(connection, [ObjectRef("b", str(number)) for number in range(9000)])
        assert await connection.scalar(query) == LOCKS


async def test_another_persons_file_in_a_manifest_stays(world: World, tmp_path: Path) -> None:
    world.catalog = make_catalog(
        tmp_path,
        world.buckets,
        {
            f"in_bucket: {world.buckets['documents']}, ownership: owned}}\nfeatures": (
                f"in_bucket: {world.buckets['documents']},"
                ' ownership: {owned_under: "files/{client_key}/"}}\nfeatures'
            )
        },
    )
    await world.document(1, subject=OTHER)
    await world.document(1)
    mine, theirs = f"files/{SUBJECT}/1/0.png", f"files/{OTHER}/1/0.png"
    manifest = json.dumps({"fileKeyList": [mine, theirs]}).encode()
    world.put("documents", f"manifests/{SUBJECT}-1.json", manifest)
    await world.accept(world.requested())
    await world.eraser().until_idle()
    assert await world.state() == "verified"
    # The older version of the manifest named a second file of the person, and it went, too.
    assert world.keys("documents") == {
        f"manifests/{OTHER}-1.json",
        theirs,
        f"files/{OTHER}/1/1.png",
    }


async def test_an_object_goes_with_the_last_reference_to_it(counted: World) -> None:
    await counted.sketch(1, option=option(counted))
    await counted.sketch(2, option=option(counted))
    await counted.sketch(1, subject=OTHER, option=option(counted))
    await counted.accept(counted.requested())
    await counted.eraser(batch_rows=1).until_idle()
    assert await states(counted) == ["verified"]
    assert PICTURE in counted.keys("uploads")
    assert await counted.left_of(SUBJECT) == NOTHING

    await counted.accept(counted.requested(ref=OTHER_REF, subject=OTHER), ref=OTHER_REF)
    await counted.eraser().until_idle()
    assert await states(counted) == ["verified", "verified"]
    assert PICTURE not in counted.keys("uploads")
    assert await counted.value("select count(*) from lethe.journal") == 0
    [last] = [e.event for e in await counted.said() if e.subject_ref == OTHER_REF][-1:]
    assert last.totals["sketch"].objects_gone == 2


async def test_two_people_let_go_of_one_object_at_the_same_moment(
    counted: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both have masked and neither has counted: whoever counts last takes the object."""
    await counted.sketch(1, option=option(counted))
    await counted.sketch(1, subject=OTHER, option=option(counted))
    await both_requested(counted)
    masked = asyncio.Barrier(2)
    let_go = References.let_go

    async def together(self: References, connection: AsyncConnection, *rest: Any) -> Any:
        if any(row.unless_referenced for row in rest[-1]):
            await masked.wait()
        return await let_go(self, connection, *rest)

    monkeypatch.setattr(References, "let_go", together)
    eraser = counted.eraser(concurrency=2)
    stop = asyncio.Event()
    async with asyncio.timeout(60):
        await asyncio.gather(eraser.executor.run_next(stop), eraser.executor.run_next(stop))
    assert await states(counted) == ["verified", "verified"]
    assert PICTURE not in counted.keys("uploads")


async def test_killed_before_the_pending_delete_it_is_still_deleted(counted: World) -> None:
    await counted.sketch(1, option=option(counted))
    await counted.accept(counted.requested())
    dying = counted.eraser()
    delete = dying.batches.delete

    async def killed(intent: Any) -> Any:
        if intent.if_unreferenced:
            raise Killed
        return await delete(intent)

    put_in(dying.batches, "delete", killed)
    with pytest.raises(Killed):
        await dying.until_idle()
    assert PICTURE in counted.keys("uploads")
    assert await to_the_end(counted, counted.eraser()) == "verified"
    assert PICTURE not in counted.keys("uploads")


async def test_killed_before_the_mask_what_it_lets_go_is_deleted_in_the_same_round(
    counted: World,
) -> None:
    await counted.sketch(1, option=option(counted))
    await counted.accept(counted.requested())
    dying = counted.eraser()

    async def killed(*_: Any) -> Any:
        raise Killed

    put_in(dying.batches, "mask", killed)
    with pytest.raises(Killed):
        await dying.until_idle()
    await counted.eraser().until_idle()
    assert await counted.state() == "verified"
    assert await counted.value("select round from lethe.job") == 1
    assert PICTURE not in counted.keys("uploads")


@pytest.mark.parametrize(
    ("key", "written"),
    [
        (normalize("NFD", "그림.png"), quote(normalize("NFC", "그림.png"))),
        (normalize("NFC", "그림.png"), quote(normalize("NFD", "그림.png"))),
        ("a b.png", "a+b.png"),
        ("a+b.png", "a+b.png"),
        ("a+b c.png", "a%2Bb+c.png"),
        ("a (1)!.png", "a%20(1)!.png"),
        ("a+b (1)@2x;a=$1,:&.png", "a+b%20(1)@2x;a=$1,:&.png"),
        ("a+b (1)@2x;a=$1,:&.png", "a+b%20%281%29@2x;a=$1,:&.png"),
        ("그림 1.png", "그림%201.png"),
        ("그림+1.png", quote("그림+1.png").lower()),
    ],
)
async def test_a_row_that_writes_the_name_otherwise_names_the_object_too(
    world: World, key: str, written: str
) -> None:
    """What a reference may mean is decided by what is there, so it counts in every reading."""
    await world.write("create table public.gallery (cover text)")
    await world.write("create index on public.gallery (cover)")
    await world.write("insert into gallery values (:u)", u=f"https://x.test.example/{written}")
    covers = LookUp(
        name="covers",
        table=TableName("public", "gallery"),
        expression="cover",
        many=False,
        forms=("https://x.test.example/{encoded_key}",),
        buckets=frozenset(),
        at="here",
    )
    named, other = ObjectRef("b", key), ObjectRef("b", "a.png")
    async with world.engine.connect() as connection:
        assert await referenced(connection, [covers], [other, named]) == {named}


async def test_an_object_whose_name_is_stored_in_another_form_stays_for_the_other_person(
    counted: World,
) -> None:
    stored, written = [normalize(form, "common/그림.png") for form in ("NFD", "NFC")]
    counted.put("uploads", stored)
    await counted.sketch(1, option=option(counted, written))
    await counted.sketch(1, subject=OTHER, option=option(counted, written))
    await counted.accept(counted.requested())
    assert await to_the_end(counted, counted.eraser()) == "verified"
    assert stored in counted.keys("uploads")
    await counted.accept(counted.requested(ref=OTHER_REF, subject=OTHER), ref=OTHER_REF)
    assert await to_the_end(counted, counted.eraser()) == "verified"
    assert stored not in counted.keys("uploads")


async def test_an_object_that_is_named_again_before_the_pending_delete_stays(
    counted: World,
) -> None:
    await counted.sketch(1, option=option(counted))
    await counted.accept(counted.requested())
    eraser = counted.eraser()
    delete = eraser.batches.finish

    async def named_again(job: Any, intent: Any, **rest: Any) -> Any:
        if intent.if_unreferenced:
            await counted.sketch(9, subject=OTHER, option=option(counted))
        return await delete(job, intent, **rest)

    put_in(eraser.batches, "finish", named_again)
    assert await to_the_end(counted, eraser) == "verified"
    assert PICTURE in counted.keys("uploads")


async def test_a_look_up_without_its_index_refuses_the_start(counted: World) -> None:
    async with counted.engine.connect() as connection:
        assert await check_schema(connection, counted.catalog) == ()
    await counted.write("drop index sketch_feature_expr_idx")
    async with counted.engine.connect() as connection:
        with pytest.raises(CatalogError, match="no index serves it"):
            await check_schema(connection, counted.catalog)


async def test_a_look_up_that_is_no_expression_of_its_table_refuses_the_start(
    counted: World, tmp_path: Path
) -> None:
    changes = {before: after.replace("'key'", "key") for before, after in COUNTED.items()}
    catalog = make_catalog(tmp_path, counted.buckets, changes)
    async with counted.engine.connect() as connection:
        with pytest.raises(CatalogError, match='column "key" does not exist'):
            await check_schema(connection, catalog)


async def test_a_list_of_references_is_looked_up_by_a_gin_index(
    world: World, tmp_path: Path
) -> None:
    await world.write(
        "create function public.keys_of(option jsonb) returns text[] language sql immutable as"
        " $$ select array(select one ->> 'key' from"
        " jsonb_array_elements(case jsonb_typeof(option -> 'pictures') when 'array'"
        " then option -> 'pictures' else '[]' end) as one) $$"
    )
    await world.write("create index on sketch_feature using gin (public.keys_of(option))")
    changes = {
        before: after.replace(
            "expression: \"(option ->> 'key')\"",
            "expression: public.keys_of(option)\n    many: true",
        )
        for before, after in COUNTED.items()
    }
    changes["at: $\n            key"] = 'at: "$.pictures[*]"\n            key'
    world.catalog = make_catalog(tmp_path, world.buckets, changes)
    async with world.engine.connect() as connection:
        assert await check_schema(connection, world.catalog) == ()
    other = "common/other.png"
    for key in (PICTURE, other):
        world.put("uploads", key)
    await world.sketch(1, option={"pictures": [option(world), option(world, other)]})
    await world.sketch(1, subject=OTHER, option={"pictures": [option(world)]})
    await world.accept(world.requested())
    assert await to_the_end(world, world.eraser()) == "verified"
    assert world.keys("uploads") == {PICTURE}


async def test_a_key_that_no_text_of_the_database_holds_is_named_by_no_row(
    world: World, tmp_path: Path
) -> None:
    await world.write("create index on sketch_task (result)")
    changes = {
        "url: url, ownership: owned": "url: url, ownership: if_unreferenced",
        "features:\n": "look_ups: {results: {table: sketch_task, expression: result}}\nfeatures:\n",
    }
    world.catalog = make_catalog(tmp_path, world.buckets, changes)
    world.put("results", "public/\0.png")
    await world.sketch(1, url="https://cdn.test.example/%00.png")
    await world.accept(world.requested())
    assert await to_the_end(world, world.eraser()) == "verified"
    assert world.keys("results") == set()


class Keeps:
    """S3, which lets one object stay: refuses it, fails over it, or says that it is gone."""

    def __init__(self, store: ObjectStore, how: str, key: str) -> None:
        self._store = store
        self._how = how
        self._key = key

    async def delete(self, refs: Sequence[ObjectRef], held: Any = None) -> Deletion:
        kept = {ref for ref in refs if ref.key == self._key}
        if kept and self._how == "fails":
            raise RuntimeError
        done = await self._store.delete([ref for ref in refs if ref not in kept], held)
        if self._how == "lies":
            return replace(done, gone=done.gone | kept)
        return replace(done, failed=dict.fromkeys(kept, "AccessDenied"))

    async def remaining(self, refs: Sequence[ObjectRef]) -> frozenset[ObjectRef]:
        if self._how == "lies":
            raise RuntimeError
        return await self._store.remaining(refs)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


RESULT: Final = f"public/{SUBJECT}-1.png"


@pytest.mark.parametrize(
    ("how", "home", "key", "ended"),
    [
        ("refuses", "uploads", PICTURE, "blocked"),
        ("fails", "uploads", PICTURE, "failed"),
        ("lies", "results", RESULT, "failed"),
    ],
)
async def test_an_object_that_an_earlier_job_left_keeps_the_next_one_from_verified(
    counted: World, how: str, home: str, key: str, ended: str
) -> None:
    """No row leads to it any more, so only the earlier job can let it go."""
    await counted.sketch(1, option=option(counted) if key == PICTURE else {})
    await counted.accept(counted.requested())
    keeps = Keeps(counted.store, how, key)
    assert await to_the_end(counted, counted.eraser(objects=keeps)) == ended
    await counted.accept(counted.requested())
    assert await to_the_end(counted, counted.eraser()) == "blocked"
    reasons = "select reasons from lethe.job order by job_id desc limit 1"
    assert await counted.value(reasons) == {"object_not_deleted": 1}
    assert key in counted.keys(home)

    for left in await counted.rows("select job_id from lethe.job order by 1"):
        async with counted.engine.begin() as connection:
            await operations.retry(connection, Announcer(Outbox("lethe")), left.job_id)
        await to_the_end(counted, counted.eraser())
    assert await states(counted) == ["verified", "verified"]
    assert key not in counted.keys(home)

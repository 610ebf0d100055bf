"""What `lethe eraser preview` says before anything is done, and that it does nothing."""

import asyncio
import json
from base64 import urlsafe_b64encode
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event
from typer.testing import CliRunner, Result
from uuid_utils.compat import uuid7

from lethe_contracts.events import CancelRequested, Held
from lethe_contracts.keyring import KeyRing
from lethe_contracts.subject import SubjectRefs
from lethe_eraser.cli import app
from lethe_eraser.execute.preview import Previewer
from lethe_runtime import logging
from lethe_sandbox.stack import S3Address
from tests.integration.eraser.test_active_account import EARLIER, ENTRY, LATER, account
from tests.integration.eraser.world import OTHER, SUBJECT, World, make_catalog, to_the_end

RING = KeyRing.parse(
    ",".join(f"{n}:{urlsafe_b64encode(bytes([n]) * 32).decode().rstrip('=')}" for n in (1, 2))
)
MINE = SubjectRefs(RING).of(SUBJECT)

Preview = Callable[..., Any]

_TABLES = """
select format('%I.%I', n.nspname, c.relname)
from pg_class c join pg_namespace n on n.oid = c.relnamespace
where c.relkind in ('r', 'S') and n.nspname in ('public', 'lethe') order by 1
"""


@pytest.fixture
def environment(
    world: World, database_url: str, s3: S3Address, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The command's log would go to a stream that ends with it; this process logs on.
    monkeypatch.setattr(logging, "configure", lambda *_, **__: None)
    for name, value in {
        "DATABASE_URL": database_url,
        "KAFKA_BOOTSTRAP": "nowhere:9",
        "CATALOG": str(tmp_path / "catalog.yaml"),
        "SUBJECT_CIPHER_KEYS": world.ring.render(),
        "SUBJECT_REF_KEYS": RING.render(),
        "S3_ENDPOINT_URL": s3.endpoint,
        "S3_REGION": s3.region,
        "S3_ACCESS_KEY_ID": s3.access_key_id,
        "S3_SECRET_ACCESS_KEY": s3.secret_access_key,
    }.items():
        monkeypatch.setenv(f"LETHE_ERASER_{name}", value)


pytestmark = pytest.mark.usefixtures("environment")


async def previewed(*arguments: str) -> Result:
    # The command runs a loop of its own.
    return await asyncio.to_thread(CliRunner().invoke, app, ["preview", *arguments])


async def document(subject: str = SUBJECT) -> Any:
    result = await previewed(subject, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


async def everything(world: World) -> dict[str, Any]:
    """Every row of every table with its version and place, and every version of every object."""
    names = [name for (name,) in await world.rows(_TABLES)]
    found: dict[str, Any] = {}
    for name in names:
        system = "''" if name.endswith("_seq") else "t.xmin::text || t.ctid::text"
        query = f"select {system}, row(t.*)::text from {name} t order by 1, 2"  # noqa: S608 - names of the database
        found[name] = await world.rows(query)
    assert len(names) > 15
    for bucket in world.buckets.values():
        listed = world.s3.list_object_versions(Bucket=bucket)
        found[bucket] = (
            listed.get("Versions"),
            listed.get("DeleteMarkers"),
            [
                world.s3.get_object_tagging(Bucket=bucket, Key=one["Key"])["TagSet"]
                for one in listed.get("Versions", ())
            ],
        )
    return found


async def test_it_touches_nothing_of_the_database_and_of_s3(world: World) -> None:
    await world.sketch(1)
    await world.sketch(2, subject=OTHER)
    await world.document(1)
    await world.sketch(3, url="https://elsewhere.example/a.png")
    await world.accept(world.requested(ref=MINE), ref=MINE)
    await world.accept(Held(hold_id=uuid7()), ref=MINE)
    before = await everything(world)
    assert any(before[bucket][0] for bucket in world.buckets.values())
    await document()
    assert (await previewed(SUBJECT)).exit_code == 0
    assert await everything(world) == before


async def test_objects_are_told_by_bucket_and_by_what_becomes_of_them(
    world: World, tmp_path: Path
) -> None:
    uploads, results = world.buckets["uploads"], world.buckets["results"]
    make_catalog(tmp_path, world.buckets, {f"{{ {uploads}: {{}}": f"{{ {uploads}: {{mode: tag}}"})
    await world.sketch(1)
    await world.sketch(2, option={"bucket": uploads, "key": "templates/a.png"})
    found = await document()
    assert found["objects"] == {uploads: {"scheduled": 1}, results: {"gone": 2}}
    assert found["objects_kept"] == 1
    shown = (await previewed(SUBJECT)).stdout
    assert f"{uploads}, scheduled" in shown
    assert "objects named and kept (shared, or somebody else's): 1" in shown
    assert SUBJECT not in shown


async def test_what_leads_nowhere_is_counted(world: World) -> None:
    await world.sketch(1, url="https://elsewhere.example/a.png")
    found = await document()
    assert found["unresolved"] == 1
    assert found["blocked"] == {"unresolved_reference": 1}


async def test_a_table_that_nobody_claims_blocks_whoever_has_rows_there(world: World) -> None:
    await world.write("create table public.letter (id bigint primary key, client_key text)")
    await world.write("create index on public.letter (client_key)")
    await world.write("insert into letter values (1, :s)", s=OTHER)
    assert (await document())["blocked"] == {}
    assert (await document(OTHER))["blocked"] == {"uncovered": 1}
    await world.accept(world.requested(subject=OTHER))
    assert await to_the_end(world, world.eraser()) == "blocked"


async def test_the_job_and_the_holds_are_found_by_reference(world: World) -> None:
    await world.sketch(1)
    await world.accept(world.requested(ref="1.another", subject=OTHER), ref="1.another")
    await world.accept(Held(hold_id=uuid7()), ref="1.another")
    found = await document()
    assert (found["job_id"], found["state"], found["holds"]) == (None, None, 0)
    assert "job: none\nheld: no\n" in (await previewed(SUBJECT)).stdout
    await world.accept(Held(hold_id=uuid7()), ref=MINE)
    assert (await document())["holds"] == 1
    await world.accept(world.requested(ref=MINE), ref=MINE)
    await world.accept(Held(hold_id=uuid7()), ref=MINE)
    found = await document()
    assert (found["state"], found["holds"]) == ("held", 2)
    assert "held: by 2 legal holds" in (await previewed(SUBJECT)).stdout


async def test_a_person_is_found_under_every_version_of_the_key(world: World) -> None:
    old = SubjectRefs(KeyRing.parse(RING.render().partition(",")[0])).of(SUBJECT)
    assert old != MINE
    await world.accept(world.requested(ref=old), ref=old)
    await world.accept(Held(hold_id=uuid7()), ref=old)
    found = await document()
    assert (found["state"], found["holds"]) == ("held", 1)
    await world.accept(world.requested(ref=MINE), ref=MINE)
    await world.accept(Held(hold_id=uuid7()), ref=MINE)
    newest = await world.value("select job_id::text from lethe.job where subject_ref = :r", r=MINE)
    found = await document()
    assert (found["job_id"], found["holds"]) == (newest, 2)


async def test_who_was_verified_is_known(world: World) -> None:
    await world.accept(world.requested(ref=MINE), ref=MINE)
    assert await to_the_end(world, world.eraser()) == "verified"
    assert (await document())["state"] == "verified"


async def test_without_the_keys_nobody_knows_the_job(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("LETHE_ERASER_SUBJECT_REF_KEYS")
    await world.accept(world.requested(ref=MINE), ref=MINE)
    found = await document()
    assert (found["job_id"], found["holds"]) == (None, None)
    shown = (await previewed(SUBJECT)).stdout
    assert "job: unknown without LETHE_ERASER_SUBJECT_REF_KEYS" in shown
    assert "held: unknown without LETHE_ERASER_SUBJECT_REF_KEYS" in shown


async def test_it_asks_the_same_however_many_jobs_there_are(world: World) -> None:
    """Nobody's subject is opened: the jobs of others hold what no key of ours opens."""
    asked: list[int] = []
    refs = SubjectRefs(RING)
    previewer = Previewer(
        engine=world.engine,
        catalog=replace(world.catalog, client_tables=()),
        handlers=lambda _: None,
        refs=refs,
        accounts=None,
        batch_rows=10,
    )
    await world.accept(world.requested(ref=MINE), ref=MINE)
    for others in (1, 300):
        await world.write(
            "insert into lethe.job (job_id, subject_ref, bucket, state, subject_ciphertext,"
            " deadline, not_before, created_at)"
            " select gen_random_uuid(), :others || '.' || n, 1, 'accepted', 'sealed',"
            " now(), now(), now() from generate_series(1, :others) n",
            others=others,
        )
        statements: list[str] = []

        def note(
            _c: Any, _cursor: Any, statement: str, *_: Any, to: list[str] = statements
        ) -> None:
            to.append(statement)

        event.listen(world.engine.sync_engine, "before_cursor_execute", note)
        found = await previewer.preview(SUBJECT)
        event.remove(world.engine.sync_engine, "before_cursor_execute", note)
        assert found.job is not None
        assert found.job.subject_ref == MINE
        asked.append(len(statements))
        assert not any("subject_ciphertext IS NOT NULL" in one for one in statements)
    assert asked[0] == asked[1] <= 6


async def test_the_expected_time_follows_from_the_measured_rate(world: World) -> None:
    for number in range(3):
        await world.sketch(number)
    assert (await document())["expected_seconds"] is None
    assert "unknown, no rate was measured yet" in (await previewed(SUBJECT)).stdout
    await world.write("insert into lethe.erasing_pace values (date_trunc('hour', now()), 100, 50)")
    assert (await document())["expected_seconds"] == 1.5
    assert "expected time of one worker: 2 s" in (await previewed(SUBJECT)).stdout


async def test_it_says_whether_the_person_is_a_customer(world: World, tmp_path: Path) -> None:
    assert (await document())["is_customer"] is None
    await world.write(
        "create table public.account"
        " (client_key text primary key, status text, opened_at timestamptz)"
    )
    make_catalog(tmp_path, world.buckets, {"\nfeatures:\n  sketch:": ENTRY})
    assert (await document())["is_customer"] is False
    await account(world, "active", EARLIER)
    assert (await document())["is_customer"] is True
    assert (
        "nothing is erased, the job ends blocked: subject_active"
        in (await previewed(SUBJECT)).stdout
    )
    await account(world, "closed", LATER)
    assert (await document())["is_customer"] is False
    asked = world.requested(ref=MINE)
    await world.accept(asked, ref=MINE)
    # Opened after the person asked, and closed again.
    assert (await document())["is_customer"] is True
    # A job that has ended says nothing of who asks again.
    await world.accept(CancelRequested(request_id=asked.request_id), ref=MINE)
    assert (await document())["state"] == "cancelled"
    assert (await document())["is_customer"] is False


async def test_a_product_without_our_tables_can_be_looked_at(world: World) -> None:
    await world.sketch(1)
    await world.write("alter schema lethe rename to elsewhere")
    found = await document()
    assert found["client_rows"] == {"client": 1}
    assert found["expected_seconds"] is None


async def test_somebody_unknown_has_nothing_and_nobody_is_a_mistake(world: World) -> None:
    await world.sketch(1)
    found = await document("acct-999999")
    assert found["client_rows"] == {}
    assert "client rows per table: 0" in (await previewed("acct-999999")).stdout
    empty = await previewed(" ")
    assert empty.exit_code == 2
    assert empty.output.startswith("lethe: ")
    assert (await previewed()).exit_code == 2
    assert (await previewed(SUBJECT, "--jsn")).exit_code == 2


async def test_what_keeps_it_from_counting_is_one_line_with_what_to_do_next(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.write("alter table client rename column client_key to account")
    unfit = await previewed(SUBJECT)
    nothing = "lethe: nothing could be counted: "
    why = "the catalog does not fit the product's tables; lethe catalog check says where\n"
    assert (unfit.exit_code, unfit.output) == (1, nothing + why)
    await world.write("alter table client rename column account to client_key")
    await world.document(1)
    monkeypatch.setenv("LETHE_ERASER_S3_ENDPOINT_URL", "http://127.0.0.1:1")
    away = await previewed(SUBJECT)
    why = "S3 does not answer (EndpointConnectionError)\n"
    assert (away.exit_code, away.output) == (1, nothing + why)
    monkeypatch.setenv(
        "LETHE_ERASER_DATABASE_URL", "postgresql+psycopg://nobody:secret@127.0.0.1:1/product"
    )
    away = await previewed(SUBJECT)
    why = (
        "the product's database does not answer, nobody listens there: is it running?"
        " Look at host and port too (refused)\n"
    )
    assert (away.exit_code, away.output) == (1, nothing + why)


async def test_who_is_called_as_masked_rows_are_will_be_blocked(world: World) -> None:
    """Once there are any: nobody can tell whose they were."""
    assert (await document("erased"))["blocked"] == {}
    await world.client_row("sketch", 1, subject="erased")
    assert (await document("erased"))["blocked"] == {"uncovered": 1}

"""What nobody claims: it is told, erasing goes on, and who meets it is never called verified."""

import asyncio
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import CollectorRegistry
from typer.testing import CliRunner, Result

from lethe_eraser import catalog_cli
from lethe_eraser.catalog import CatalogError, load
from lethe_eraser.check import check
from lethe_eraser.execute.preflight import AGAIN_SECONDS, FRESH_SECONDS, Preflight
from lethe_eraser.metrics import EraserMetrics
from lethe_eraser.storage.names import quote
from lethe_runtime import logging
from lethe_runtime.cli import app
from lethe_sandbox.stack import S3Address
from tests.integration.eraser.world import OTHER, SUBJECT, World, make_catalog, put_in, to_the_end

Lethe = Callable[..., Result]


@pytest.fixture
def lethe(
    world: World,
    database_url: str,
    s3: S3Address,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Lethe:
    """The command, as an operator runs it beside this world."""
    # The command's log would go to a stream that ends with it; this process logs on.
    monkeypatch.setattr(logging, "configure", lambda *_, **__: None)
    environment = {
        "LETHE_ERASER_DATABASE_URL": database_url,
        "LETHE_ERASER_KAFKA_BOOTSTRAP": "localhost:1",
        "LETHE_ERASER_CATALOG": str(tmp_path / "catalog.yaml"),
        "LETHE_ERASER_SUBJECT_CIPHER_KEYS": world.ring.render(),
        "LETHE_ERASER_S3_ENDPOINT_URL": s3.endpoint,
        "LETHE_ERASER_S3_REGION": s3.region,
        "LETHE_ERASER_S3_ACCESS_KEY_ID": s3.access_key_id,
        "LETHE_ERASER_S3_SECRET_ACCESS_KEY": s3.secret_access_key,
    }

    def run(*arguments: str, **changed: str) -> Result:
        return CliRunner().invoke(app, ["catalog", *arguments], env=environment | changed)

    return run


async def run_lethe(lethe: Lethe, *arguments: str, **changed: str) -> Result:
    """In a thread of its own: the command has a loop of its own."""
    return await asyncio.to_thread(lethe, *arguments, **changed)


async def erased(world: World) -> tuple[str, Mapping[str, int]]:
    await world.accept(world.requested())
    await to_the_end(world, world.eraser())
    [job] = await world.rows("select state, reasons from lethe.job order by job_id desc limit 1")
    return job.state, job.reasons


def add(folder: Path, changes: Mapping[str, str]) -> None:
    path = folder / "catalog.yaml"
    written = path.read_text()
    for before, after in changes.items():
        assert before in written
        written = written.replace(before, after)
    path.write_text(written)


@pytest.mark.parametrize(
    "column", ["face", "done %", "size :px", "a%(b)s", "a::b:c", "a\\:b", 'say "x"', "order"]
)
async def test_a_row_with_a_value_in_a_column_nobody_claims_is_left(
    world: World, column: str
) -> None:
    await world.write(f"alter table sketch_feature add column {quote(column)} text")
    left, gone = await world.sketch(1), await world.sketch(2)
    await world.write(
        f"update sketch_feature set {quote(column)} = 'mine' where id = :i",  # noqa: S608 - quoted
        i=left,
    )
    assert await world.value(
        "select count(*) from information_schema.columns where column_name = :c", c=column
    )
    before = await world.rows("select * from sketch_feature where id = :i", i=left)
    assert await erased(world) == ("blocked", {"uncovered": 1})
    assert await world.rows("select * from sketch_feature where id = :i", i=left) == before
    assert await world.value("select option from sketch_feature where id = :i", i=gone) == {}
    assert world.keys("uploads") == {f"uploads/{SUBJECT}/1.png"}
    assert await world.value(
        "select array_agg(request_id) from client where client_key = :s", s=SUBJECT
    ) == [left]


async def test_a_column_that_comes_after_the_rows_were_masked_is_found_by_verification(
    world: World,
) -> None:
    feature = await world.sketch(1)
    await world.accept(world.requested())
    eraser = world.eraser()
    conclude = eraser.verification.conclude

    async def and_then(*arguments: Any) -> Any:
        await world.write("alter table sketch_feature add column if not exists face text")
        await world.write("update sketch_feature set face = 'mine' where id = :i", i=feature)
        return await conclude(*arguments)

    put_in(eraser.verification, "conclude", and_then)
    assert await to_the_end(world, eraser) == "blocked"
    assert await world.value("select reasons from lethe.job") == {"uncovered": 1}


@pytest.mark.parametrize(
    ("index", "theirs", "expected"),
    [
        ("create index on client_v2 (client_key)", SUBJECT, "blocked"),
        ("create index on client_v2 (client_key)", OTHER, "verified"),
        # A table that cannot be asked cheaply is not searched, and nobody is called verified.
        ("select 1", OTHER, "blocked"),
    ],
)
async def test_a_table_with_a_client_key_that_nobody_claims(
    world: World, index: str, theirs: str, expected: str
) -> None:
    await world.write(
        "create table public.client_v2 (id bigint primary key, client_key text, note text)"
    )
    await world.write(index)
    await world.write("insert into client_v2 values (1, :k, 'x')", k=theirs)
    await world.sketch(1)
    state, reasons = await erased(world)
    assert state == expected
    assert reasons == ({"uncovered": 1} if expected == "blocked" else {})
    # The rest is erased all the same.
    assert await world.value("select option from sketch_feature") == {}
    assert world.keys("uploads") == set()
    assert await world.value("select client_key from client_v2") == theirs


async def test_a_table_that_is_said_to_hold_nothing_to_erase_blocks_nobody(
    world: World, tmp_path: Path
) -> None:
    await world.write("create table public.invoice (id bigint primary key, client_key text)")
    await world.write("insert into invoice values (1, :k)", k=SUBJECT)
    ignored = {"features:\n": "ignored_tables: {invoice: kept by tax law for 5 years}\nfeatures:\n"}
    world.catalog = make_catalog(tmp_path, world.buckets, ignored)
    await world.sketch(1)
    assert await erased(world) == ("verified", {})
    async with world.engine.connect() as connection:
        assert await check(connection, world.catalog) == ()


async def test_the_check_says_everything_nobody_claims_and_holds_no_data(world: World) -> None:
    await world.write("create table public.client_v2 (id bigint primary key, client_key text)")
    await world.write("alter table sketch_task add column owner text")
    await world.sketch(1, url="https://old.example.org/a/secret.png?token=abc")
    await world.sketch(2, option={"refs": [{"src": "https://cdn.test.example/secret.png"}]})
    await world.sketch(3)
    await world.write("update sketch_feature set gpu = 'https://cdn.test.example/secret.png'")
    async with world.engine.connect() as connection:
        findings = await check(connection, world.catalog)
    said = {(one.kind, one.where): one.says for one in findings}
    assert set(said) == {
        ("column", "public.sketch_task.owner"),
        ("table", "public.client_v2"),
        ("shape", "public.sketch_feature.option"),
        ("reference", "public.sketch_feature.gpu"),
        ("reference", "public.sketch_task.result"),
    }
    assert "$.refs[*].src" in said["shape", "public.sketch_feature.option"]
    assert "old.example.org" in said["reference", "public.sketch_task.result"]
    assert "secret" not in str(findings)
    assert SUBJECT not in str(findings)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("alter table sketch_feature add check (prompt is not null or id < 0)", "the CHECK"),
        (
            "alter table client_old add constraint u unique (client_key)",
            "the unique index u allows",
        ),
        ("alter table sketch_feature add check (option <> '{}')", "the CHECK"),
        ("alter table document alter title set not null", "is NOT NULL"),
        ("drop table document", "the catalog claims this table"),
        (
            """create domain public.told as text not null;
               alter table sketch_feature alter prompt type public.told""",
            "its type told does not take the mask null",
        ),
        (
            """create type public.kind as enum ('sketch');
               alter table client_old alter type type public.kind using type::public.kind""",
            "client_old.type: is kind; a request type is compared as text",
        ),
        (
            """alter table sketch_task alter id drop identity, drop constraint sketch_task_pkey,
               add primary key (feature_id, id)""",
            "sketch_task: two rows may have the same id, and one would be masked for the other",
        ),
    ],
)
async def test_what_masking_would_break_refuses_and_nothing_is_erased(
    world: World, change: str, says: str
) -> None:
    await world.sketch(1)
    await world.write(change)
    registry = CollectorRegistry()
    now = [0.0]
    preflight = Preflight(
        engine=world.engine,
        catalog=world.catalog,
        metrics=EraserMetrics(registry),
        clock=lambda: now[0],
    )
    with pytest.raises(CatalogError, match=says):
        await preflight.check()
    assert registry.get_sample_value("eraser_catalog_refused") == 1
    await world.accept(world.requested())
    eraser = world.eraser(may_begin=preflight.may_begin)
    await eraser.until_idle()
    assert await world.state() == "accepted"


async def test_before_every_window_it_is_checked_again(world: World) -> None:
    """A check is fresh for an hour; one that refused is asked again after a minute."""
    registry = CollectorRegistry()
    now = [0.0]
    preflight = Preflight(
        engine=world.engine,
        catalog=world.catalog,
        metrics=EraserMetrics(registry),
        clock=lambda: now[0],
    )
    assert await preflight.may_begin()
    await world.write("create table public.client_v2 (id bigint primary key, client_key text)")
    await world.write("alter table document rename to paper")
    now[0] = FRESH_SECONDS - 1
    assert await preflight.may_begin()
    now[0] = FRESH_SECONDS
    assert not await preflight.may_begin()
    await world.write("alter table paper rename to document")
    assert not await preflight.may_begin()
    now[0] += AGAIN_SECONDS
    assert await preflight.may_begin()
    assert registry.get_sample_value("eraser_catalog_refused") == 0
    assert registry.get_sample_value("eraser_catalog_uncovered", {"kind": "table"}) == 1
    assert registry.get_sample_value("eraser_catalog_uncovered", {"kind": "column"}) == 0


async def test_the_command_checks_with_an_exit_code_and_writes_nothing(
    world: World, lethe: Lethe, tmp_path: Path
) -> None:
    await world.sketch(1)
    await world.document(1)
    before = await world.product()
    answer = await run_lethe(lethe, "check")
    assert (answer.exit_code, answer.output) == (0, "everything is covered\n")
    await world.write("alter table document add column author text")
    answer = await run_lethe(lethe, "check", "--json")
    assert answer.exit_code == 1
    said = json.loads(answer.stdout)
    assert said["outcome"] == "uncovered"
    assert [(one["kind"], one["where"]) for one in said["findings"]] == [
        ("column", "public.document.author")
    ]
    add(tmp_path, {"table: sketch_task": "table: sketch_tasks"})
    answer = await run_lethe(lethe, "check")
    assert answer.exit_code == 2
    assert "refused: public.sketch_tasks: the catalog claims this table" in answer.output
    add(tmp_path, {"handler: pdf": "handler: pfd"})
    answer = await run_lethe(lethe, "check", "--json")
    assert answer.exit_code == 2
    assert "did you mean pdf?" in json.loads(answer.stdout)["problems"][0]
    await world.write("alter table document drop column author")
    assert await world.product() == before


async def test_a_bucket_that_is_not_as_it_must_be_refuses(world: World, lethe: Lethe) -> None:
    world.s3.delete_bucket(Bucket=world.buckets["documents"])
    answer = await run_lethe(lethe, "check")
    assert answer.exit_code == 2
    assert f"refused: bucket {world.buckets['documents']}" in answer.output


@pytest.mark.parametrize(
    ("command", "code"), [(("check",), 2), (("explain", "sketch"), 1), (("scaffold", "client"), 1)]
)
async def test_a_database_that_is_away_is_one_line(
    lethe: Lethe, command: tuple[str, ...], code: int
) -> None:
    away = "postgresql+psycopg://nobody:secret@127.0.0.1:1/product"
    answer = await run_lethe(lethe, *command, LETHE_ERASER_DATABASE_URL=away)
    said = (
        "lethe: the product's database does not answer, nobody listens there: is it running?"
        " Look at host and port too (refused)\n"
    )
    assert (answer.exit_code, answer.output) == (code, said)


async def test_the_command_explains_what_happens_to_each_column(world: World, lethe: Lethe) -> None:
    await world.write("alter table sketch_task add column face text")
    answer = await run_lethe(lethe, "explain", "sketch", "--json")
    assert answer.exit_code == 0
    fates = {(c["table"], c["column"]): c for c in json.loads(answer.stdout)["columns"]}
    assert fates["public.sketch_feature", "option"]["fate"] == "masked: '{}'"
    [objects] = fates["public.sketch_feature", "option"]["objects"]
    assert objects.endswith("deleted below uploads/{client_key}/, unless shared; else kept")
    assert fates["public.sketch_feature", "prompt"]["fate"] == "masked: NULL"
    assert fates["public.sketch_feature", "gpu"]["fate"] == "kept"
    assert "uncovered" in fates["public.sketch_task", "face"]["fate"]
    assert json.loads(answer.stdout)["active_account"] is None
    plain = await run_lethe(lethe, "explain", "sketch")
    assert "public.sketch_task:" in plain.output
    assert "nobody is erased while" not in plain.output
    unknown = await run_lethe(lethe, "explain", "skech")
    assert unknown.exit_code == 1
    assert "did you mean sketch?" in unknown.output


async def test_what_a_manifest_names_is_explained_and_lines_fit_a_terminal(
    world: World, lethe: Lethe, monkeypatch: pytest.MonkeyPatch
) -> None:
    [pdf] = [one for one in world.catalog.features.values() if one.handler == "pdf"]
    answer = await run_lethe(lethe, "explain", pdf.request_type, "--json")
    assert json.loads(answer.stdout)["options"] == [
        {
            "option": "files",
            "reference_set": pdf.options["files"],
            "objects": [
                f"$['fileKeyList'][*] in {world.buckets['documents']}: deleted, unless shared"
            ],
        }
    ]
    plain = (await run_lethe(lethe, "explain", pdf.request_type)).stdout
    assert f"what the handler reads by `files: {pdf.options['files']}`:" in plain
    monkeypatch.setenv("COLUMNS", "80")
    long = f"    objects at $ ({', '.join(['url'] * 30)}): deleted"
    folded = catalog_cli._folded(["short", long])
    assert folded[0] == "short"
    assert max(map(len, folded)) <= 80
    assert " ".join(" ".join(folded[1:]).split()) == long.strip()


async def test_a_nineteenth_feature_at_run_time_from_its_scaffold(
    world: World, lethe: Lethe, tmp_path: Path
) -> None:
    """Other tables, columns and JSON names: blocked while nobody claims it, then one entry."""
    await world.write(
        "create table public.dream_order (no bigint primary key, wish json, words text, tier text,"
        " made_at timestamptz not null default '2024-03-01')"
    )
    await world.write(
        "create table public.dream_outcome (id bigint generated always as identity primary key,"
        " feature_id bigint not null, pictures jsonb, card text)"
    )
    key, url = f"uploads/{SUBJECT}/dream.png", "https://cdn.test.example/dream.png"
    world.put("uploads", key)
    world.put("results", "public/dream.png")
    wish = {"source": {"images": [{"store": world.buckets["uploads"], "file_key": key}]}}
    await world.write(
        "insert into dream_order values (7, cast(:w as json), 'a dream', 'gold')",
        w=json.dumps(wish),
    )
    await world.write("update dream_order set words = 'a dream of ' || :s", s=SUBJECT)
    await world.write(
        "insert into dream_outcome (feature_id, pictures, card)"
        " values (7, cast(:p as jsonb), 'h1')",
        p=json.dumps({"shots": [{"at": url}]}),
    )
    await world.client_row("dreaming", 7)
    assert await erased(world) == ("blocked", {"unknown_type": 1})
    assert {key} < {*world.keys("uploads"), url}

    entries = [
        yaml.safe_load((await run_lethe(lethe, "scaffold", table)).stdout)
        for table in ("dream_order", "dream_outcome")
    ]
    [feature], [task] = ({**e}["features"].values() for e in entries)
    entry = {"handler": feature["handler"], "feature": feature["feature"], "task": task["task"]}
    assert entry["task"]["request_id"] == "feature_id"
    assert entry["feature"]["references"]["wish"] == [
        {
            "at": "$.source.images[*]",
            "key": "file_key",
            "bucket": "store",
            "ownership": "DECIDE",
        }
    ]
    assert entry["task"]["references"] == {
        "pictures": [{"at": "$.shots[*]", "url": ["at"], "ownership": "DECIDE"}]
    }
    with (tmp_path / "catalog.yaml").open("a") as catalog:
        catalog.write("  dreaming: " + json.dumps(entry) + "\n")
    with pytest.raises(CatalogError, match="unknown ownership"):
        load(tmp_path / "catalog.yaml")
    # What only a person can know.
    uploaded = {"owned_under": "uploads/{client_key}/"}
    entry["feature"]["references"]["wish"][0]["ownership"] = uploaded
    entry["task"]["references"]["pictures"][0]["ownership"] = "owned"
    lines = (tmp_path / "catalog.yaml").read_text().splitlines()
    lines[-1] = "  dreaming: " + json.dumps(entry)
    (tmp_path / "catalog.yaml").write_text("\n".join(lines) + "\n")
    world.catalog = load(tmp_path / "catalog.yaml")
    assert (await run_lethe(lethe, "check")).output == "everything is covered\n"

    assert await erased(world) == ("verified", {})
    [order] = await world.rows("select no, wish::text, words, tier, made_at from dream_order")
    assert order[:4] == (7, "{}", None, "gold") or order[:4] == (7, "{}", None, None)
    assert await world.value("select pictures from dream_outcome") == {}
    assert key not in world.keys("uploads")
    assert world.keys("results") == set()


async def test_scaffold_writes_an_entry_for_a_client_table_and_names_no_person(
    world: World, lethe: Lethe
) -> None:
    await world.write(
        "create table public.client_v2"
        " (id bigint primary key, client_key text, type text, feature_id int)"
    )
    await world.write("insert into client_v2 values (1, :s, 'sketch', 1)", s=SUBJECT)
    answer = await run_lethe(lethe, "scaffold", "client_v2")
    assert answer.exit_code == 0
    assert yaml.safe_load(answer.stdout)["client_tables"] == {
        "client_v2": {
            "table": "public.client_v2",
            "primary_key": ["id"],
            "client_key": "client_key",
            "request_type": "type",
            "request_id": "feature_id",
            "mask": {"client_key": "erased"},
        }
    }
    assert SUBJECT not in answer.output
    unknown = await run_lethe(lethe, "scaffold", "client_v3")
    assert unknown.exit_code == 1
    assert "client_v2" in unknown.output
    elsewhere = await run_lethe(lethe, "scaffold", "nowhere.client")
    assert "nowhere.client: there is no such table; schema nowhere has none" in elsewhere.output


@pytest.mark.parametrize("name", ["50% off", "a :b", 'a "quoted" one'])
async def test_a_table_that_nobody_claims_may_have_any_name(world: World, name: str) -> None:
    quoted = name.replace('"', '""').replace(":", "\\:")
    await world.write(f'create table public."{quoted}" (client_key text primary key)')
    await world.sketch(1)
    await world.accept(world.requested())
    assert await to_the_end(world, world.eraser()) == "verified"

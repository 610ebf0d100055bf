"""Handlers on real tables and objects: manifests, and a feature nobody had thought of."""

import json
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest
from pydantic import SecretStr
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from lethe_contracts.states import BlockReason
from lethe_eraser.catalog import Catalog, load
from lethe_eraser.check import check_schema
from lethe_eraser.domain import ObjectRef, RowTarget
from lethe_eraser.handlers import ErasureHandler, build, pdf
from lethe_eraser.objects import ObjectStore, S3Options
from lethe_sandbox.stack import S3Address
from tests.support.factories import BucketFactory
from tests.support.no_objects import NoObjects

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

ME: Final = "user+tag@example.com"

TABLES: Final = """
create table client (id bigint primary key, k text not null, t text not null, r bigint);
create table papers (
    nr bigint primary key, path text, title text, pages int,
    created_at timestamptz not null default '2024-01-01');
create table dream (
    dream_no bigint primary key, wish json, seen_at timestamptz not null default '2024-01-01');
create table dream_outcome (
    id bigint generated always as identity primary key, dream bigint not null, pictures text,
    card varchar(9));
create index on dream_outcome (dream);
"""

CATALOG: Final = """\
version: 1
buckets: {{ {plain}: , {versioned}: }}
hosts: {{ img.example.net: {{bucket: {plain}, origin_path: /o}} }}
shared: [{{bucket: {versioned}, prefix: common/}}]
client_tables:
  client: {{client_key: k, request_type: t, request_id: r, mask: {{k: erased}}}}
reference_sets:
  files:
    - {{at: "$.fileKeyList[*]", in_bucket: {versioned}, ownership: owned}}
features:
  paper:
    handler: pdf
    feature:
      table: papers
      primary_key: nr
      mask: {{path: null, title: null}}
      keep: [pages, created_at]
      references: {{path: {{in_bucket: {versioned}, ownership: owned}}}}
    options: {{manifest: path, files: files, limit_bytes: 200000}}
  dreaming:
    handler: ai_generate
    feature:
      table: dream
      primary_key: dream_no
      mask: {{wish: {{}}}}
      keep: [seen_at]
      references:
        wish:
          - at: $.source.images[*]
            url: [link, thumb]
            key: path
            bucket: store
            ownership: {{owned_under: "in/{{client_key}}/"}}
          - {{ignore: "$.docs"}}
    task:
      table: dream_outcome
      request_id: dream
      mask: {{pictures: {{}}}}
      keep: [card]
      references: {{pictures: {{at: "$..picture", ownership: owned}}}}
"""


@dataclass(frozen=True)
class Place:
    connection: AsyncConnection
    s3: "S3Client"
    store: ObjectStore
    catalog: Catalog
    plain: str
    versioned: str

    def handler(self, request_type: str) -> ErasureHandler:
        found = build(self.catalog, self.store)(request_type)
        assert found is not None
        return found

    async def paper(self, number: int, path: str | None) -> None:
        await self.connection.execute(
            text("insert into papers (nr, path, title) values (:n, :p, 'mine')"),
            {"n": number, "p": path},
        )

    def manifest(self, number: int, content: str | bytes, *files: str) -> ObjectRef:
        key = f"manifests/{number}.json"
        body = content.encode() if isinstance(content, str) else content
        self.s3.put_object(Bucket=self.versioned, Key=key, Body=body)
        for file in files:
            self.s3.put_object(Bucket=self.versioned, Key=file, Body=b"x")
        return ObjectRef(self.versioned, key)

    def files(self, *keys: str) -> tuple[ObjectRef, ...]:
        return tuple(ObjectRef(self.versioned, key) for key in keys)


@pytest.fixture
async def place(
    connection: AsyncConnection, s3: S3Address, bucket: BucketFactory, tmp_path: Path
) -> AsyncIterator[Place]:
    plain, versioned = bucket(), bucket(versioned=True)
    path = tmp_path / "catalog.yaml"
    path.write_text(CATALOG.format(plain=plain, versioned=versioned), encoding="utf-8")
    for statement in TABLES.split(";"):
        if statement.strip():
            await connection.execute(text(statement))
    options = S3Options(
        region=s3.region,
        endpoint_url=s3.endpoint,
        access_key_id=s3.access_key_id,
        secret_access_key=SecretStr(s3.secret_access_key),
    )
    catalog = load(path)
    async with ObjectStore(options, catalog.buckets) as store:
        yield Place(connection, s3.client(), store, catalog, plain, versioned)


async def find(place: Place, request_type: str, *ids: int) -> dict[int, RowTarget | BlockReason]:
    handler = place.handler(request_type)
    targets = await handler.find_targets(place.connection, request_type, ids, ME)
    found: dict[int, RowTarget | BlockReason] = {r.row_id: r for r in targets.rows}
    return found | {row.row_id: row.reason for row in targets.blocked}


async def test_a_manifest_goes_last_and_its_files_first(place: Place) -> None:
    names = [f"extractions/1/{i}.png" for i in range(3)]
    content = json.dumps({"fileKeyList": [*names, names[0], "common/blank.png", None]})
    manifest = place.manifest(1, content, *names)
    await place.paper(1, f"s3://{place.versioned}/manifests/1.json")
    row = (await find(place, "paper", 1))[1]
    assert isinstance(row, RowTarget)
    assert row.delete == place.files(*names)
    assert row.delete_last == (manifest,)
    assert row.kept == 1
    await place.store.delete(row.delete)
    await place.store.delete(row.delete_last)
    assert not await place.store.remaining([*row.delete, *row.delete_last])
    masked = await place.handler("paper").erase(place.connection, "paper", [row])
    assert (masked.feature_rows, masked.changed) == (1, ())
    assert await find(place, "paper", 1) == {}


async def test_manifests_of_every_size_are_read_whole(place: Place) -> None:
    for number, count in enumerate((0, 1, 1000, 2500), start=1):
        keys = [f"extractions/{number}/{i}.png" for i in range(count)]
        place.manifest(number, json.dumps({"fileKeyList": keys, "pages": 3}))
        await place.paper(number, f"manifests/{number}.json")
    found = await find(place, "paper", 1, 2, 3, 4)
    assert [len(row.delete) for row in found.values() if isinstance(row, RowTarget)] == [
        0, 1, 1000, 2500,
    ]  # fmt: skip


async def test_a_row_without_a_path_is_masked_without_reading_anything(place: Place) -> None:
    await place.paper(1, None)
    await place.paper(2, "")
    await place.paper(3, "common/manifest.json")
    handler = build(place.catalog, NoObjects())("paper")
    assert handler is not None
    targets = await handler.find_targets(place.connection, "paper", [1, 2, 3], ME)
    assert [(r.delete, r.delete_last, r.kept) for r in targets.rows] == [
        ((), (), 0),
        ((), (), 0),
        ((), (), 1),
    ]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{}",
        b"null",
        b'{"fileKeyList": "a"}',
        b'{"fileKeyList": [1]}',
        b'{"fileKeyList": ["a"], "fileKeyList": ["b"]}',
        b"not json",
        b"\xff\xfe{",
        b"[" * 100_000,
        b" " * 200_001,
    ],
)
async def test_what_is_no_manifest_blocks_its_row_alone(place: Place, content: bytes) -> None:
    place.manifest(1, content)
    place.manifest(2, '\ufeff{"fileKeyList": ["a"]}')
    await place.paper(1, "manifests/1.json")
    await place.paper(2, "manifests/2.json")
    found = await find(place, "paper", 1, 2)
    assert found[1] is BlockReason.MANIFEST_INVALID
    assert isinstance(found[2], RowTarget)


async def test_a_manifest_that_is_gone_names_what_is_missing(place: Place) -> None:
    await place.paper(1, "manifests/1.json")
    handler = place.handler("paper")
    targets = await handler.find_targets(place.connection, "paper", [1], ME)
    (blocked,) = targets.blocked
    assert blocked.reason is BlockReason.MANIFEST_MISSING
    assert blocked.missing == ObjectRef(place.versioned, "manifests/1.json")
    assert blocked.row_version


async def test_a_manifest_under_a_delete_marker_is_read_from_its_last_version(place: Place) -> None:
    manifest = place.manifest(1, '{"fileKeyList": ["a"]}')
    place.s3.delete_object(Bucket=place.versioned, Key=manifest.key)
    await place.paper(1, manifest.key)
    row = (await find(place, "paper", 1))[1]
    assert isinstance(row, RowTarget)
    assert row.delete == place.files("a")


async def test_a_manifest_with_a_url_that_no_rule_claims_blocks_its_row(place: Place) -> None:
    place.manifest(1, '{"fileKeyList": [], "cover": "https://img.example.net/x"}')
    await place.paper(1, "manifests/1.json")
    assert (await find(place, "paper", 1))[1] is BlockReason.UNCOVERED


async def test_a_nineteenth_feature_is_one_entry_of_the_catalog(place: Place) -> None:
    """Other tables, other columns, other JSON names, another primary key; and no code."""
    assert await check_schema(place.connection, place.catalog) == ()
    wish = {
        "source": {
            "images": [
                {"link": f"https://img.example.net/in/{ME}/a%20b.png", "note": "mine"},
                {"store": place.plain, "path": f"in/{ME}/c.png"},
                {"link": "https://img.example.net/in/another/d.png"},
            ]
        },
        "docs": {"help": ["https://docs.example.org/dreams"]},
    }
    outcome = [{"set": {"picture": f"s3://{place.plain}/out/1.png"}}, {"picture": None}]
    await place.connection.execute(
        text("insert into dream (dream_no, wish) values (7, cast(:w as json)), (8, null)"),
        {"w": json.dumps(wish)},
    )
    await place.connection.execute(
        text("insert into dream_outcome (dream, pictures, card) values (7, :p, 'RTX')"),
        {"p": json.dumps(outcome)},
    )
    handler = place.handler("dreaming")
    targets = await handler.find_targets(place.connection, "dreaming", [7, 8], ME)
    assert targets.blocked == ()
    feature, null, task = targets.rows
    # The origin path precedes what the URL says.
    assert feature.delete == (ObjectRef(place.plain, f"in/{ME}/c.png"),)
    assert feature.kept == 2
    assert (null.row_id, null.delete) == (8, ())
    assert task.delete == (ObjectRef(place.plain, "out/1.png"),)
    masked = await handler.erase(place.connection, "dreaming", targets.rows)
    assert (masked.feature_rows, masked.task_rows) == (2, 1)
    rows = await place.connection.execute(text("select wish::text from dream order by dream_no"))
    assert [value for (value,) in rows] == ["{}", "{}"]
    left = await place.connection.execute(text("select dream, pictures, card from dream_outcome"))
    assert [tuple(row) for row in left] == [(7, "{}", "RTX")]


async def test_one_bad_row_does_not_keep_the_others(place: Place) -> None:
    wishes = {
        1: "https://img.example.net/x",
        2: json.dumps({"source": {"images": [{"link": "https://elsewhere.example/x"}]}}),
        3: json.dumps({"source": {"images": [{"link": "https://img.example.net/x"}]}}),
        4: json.dumps({"source": {"pictures": ["https://img.example.net/x"]}}),
        5: json.dumps({"x": "y" * 1_100_000}),
        6: json.dumps({"mood": "calm"}),
        7: json.dumps([{"mood": "calm"}]),
    }
    await place.connection.execute(text("alter table dream alter wish type text"))
    for number, wish in wishes.items():
        await place.connection.execute(
            text("insert into dream (dream_no, wish) values (:n, :w)"), {"n": number, "w": wish}
        )
    found = await find(place, "dreaming", *wishes)
    assert isinstance(found.pop(3), RowTarget)
    assert isinstance(found.pop(6), RowTarget)
    assert found == {
        1: BlockReason.MALFORMED_JSON,
        2: BlockReason.UNRESOLVED_REFERENCE,
        4: BlockReason.UNCOVERED,
        5: BlockReason.MALFORMED_JSON,
        7: BlockReason.MALFORMED_JSON,
    }


async def test_a_result_url_with_a_raw_plus_is_decided_by_what_is_there(place: Place) -> None:
    url = "https://img.example.net/a+b.png"
    await place.connection.execute(
        text("insert into dream_outcome (dream, pictures) values (1, :p)"),
        {"p": json.dumps({"picture": url})},
    )
    place.s3.put_object(Bucket=place.plain, Key="o/a b.png", Body=b"x")
    row = (await find(place, "dreaming", 1))[1]
    assert isinstance(row, RowTarget)
    assert row.delete == (ObjectRef(place.plain, "o/a b.png"),)
    place.s3.put_object(Bucket=place.plain, Key="o/a+b.png", Body=b"x")
    assert (await find(place, "dreaming", 1))[1] is BlockReason.AMBIGUOUS_REFERENCE


async def test_files_that_only_an_earlier_version_names_go_too(place: Place) -> None:
    place.manifest(1, json.dumps({"fileKeyList": ["old/1.png", "both.png"]}))
    place.manifest(1, json.dumps({"fileKeyList": ["older/1.png", "common/blank.png"]}))
    manifest = place.manifest(1, json.dumps({"fileKeyList": ["new/1.png", "both.png"]}))
    place.manifest(11, json.dumps({"fileKeyList": ["of/another.png"]}))
    await place.paper(1, manifest.key)
    row = (await find(place, "paper", 1))[1]
    assert isinstance(row, RowTarget)
    assert row.delete == place.files("new/1.png", "both.png", "older/1.png", "old/1.png")
    assert row.delete_last == (manifest,)
    assert row.kept == 0


@pytest.mark.parametrize(
    "earlier", ["[", "", '{"fileKeyList": ["' + "k" * 1025 + '"]}', '{"fileKeyList": {}}']
)
async def test_an_earlier_version_that_cannot_be_read_was_mended_by_the_newest(
    place: Place, earlier: str
) -> None:
    place.manifest(1, json.dumps({"fileKeyList": ["old.png"]}))
    place.manifest(1, earlier)
    manifest = place.manifest(1, json.dumps({"fileKeyList": ["new.png"]}))
    await place.paper(1, manifest.key)
    row = (await find(place, "paper", 1))[1]
    assert isinstance(row, RowTarget)
    assert row.delete == place.files("new.png", "old.png")


@pytest.mark.parametrize("left", [2, 1, 0])
async def test_a_newest_version_that_somebody_deletes_meanwhile_is_not_the_newest(
    place: Place, monkeypatch: pytest.MonkeyPatch, left: int
) -> None:
    """Deleting it brings the one before it back: the manifest is missing if there is none."""
    names = ["old.png", "older.png", "new.png"]
    for name in names:
        manifest = place.manifest(1, json.dumps({"fileKeyList": [name]}))
    await place.paper(1, manifest.key)
    versions = place.store.versions

    async def listed(refs: Iterable[ObjectRef]) -> Mapping[ObjectRef, Sequence[ObjectRef]]:
        found = await versions(refs)
        if len(found[manifest]) > left:
            version = str(found[manifest][0].version)
            place.s3.delete_object(Bucket=place.versioned, Key=manifest.key, VersionId=version)
        return found

    monkeypatch.setattr(place.store, "versions", listed)
    row = (await find(place, "paper", 1))[1]
    if not left:
        assert row is BlockReason.MANIFEST_MISSING
        return
    assert isinstance(row, RowTarget)
    assert row.delete == place.files(*reversed(names[:left]))


async def test_a_manifest_of_too_many_versions_or_files_blocks_its_row(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(4):
        manifest = place.manifest(1, json.dumps({"fileKeyList": [f"{number}.png"]}))
    await place.paper(1, manifest.key)
    assert isinstance((await find(place, "paper", 1))[1], RowTarget)
    monkeypatch.setattr(pdf, "MOST_VERSIONS", 3)
    assert (await find(place, "paper", 1))[1] is BlockReason.MANIFEST_INVALID
    monkeypatch.setattr(pdf, "MOST_VERSIONS", 100)
    monkeypatch.setattr(pdf, "MOST_FILES", 3)
    assert (await find(place, "paper", 1))[1] is BlockReason.MANIFEST_INVALID

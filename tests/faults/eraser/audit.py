"""Judges an erasure that may have died: by plain SQL, S3's own listings and what the job said.

Shares no statement with the eraser; of its code it uses the journal, to open what only it can name.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final
from uuid import UUID

from lethe_contracts.events import TypeTotals
from lethe_eraser.storage.journal import Journal
from tests.integration.eraser.world import NOTHING, World

MASKED: Final[Mapping[str, Mapping[str, object]]] = {
    "sketch_feature": {"option": {}, "prompt": None},
    "sketch_task": {"result": "{}"},
    "document": {"manifest_path": None, "title": None},
    "client": {"client_key": "erased"},
    "client_old": {"client_key": "erased"},
}

Product = Mapping[str, Sequence[Any]]
Versions = frozenset[tuple[str, str, str]]


@dataclass(frozen=True)
class Before:
    """The product and S3 as they were before anybody asked for an erasure."""

    product: Product
    versions: Versions


async def look(world: World) -> Before:
    """Remember every row and every version of every object."""
    return Before(await world.product(), versions_of(world))


def versions_of(world: World) -> Versions:
    """Every version and delete marker of every bucket."""
    return frozenset(
        (bucket, one["Key"], one["VersionId"])
        for bucket, name in world.buckets.items()
        for page in world.s3.get_paginator("list_object_versions").paginate(Bucket=name)
        for one in (*page.get("Versions", ()), *page.get("DeleteMarkers", ()))
    )


async def assert_traceable(world: World, before: Before, subject: str) -> None:
    """Whatever of the person is still in S3 can be found, and no row is masked by half."""
    left = await assert_whole_rows(world, before)
    own = _rows_of(before, subject)
    theirs = {
        table: [row for row in rows if (table, row.id) in own] for table, rows in left.items()
    }
    present = {(b, k) for b, k, _ in versions_of(world) if subject in k}
    named = _named_by_rows(world, theirs) | await _named_by_journal(world)
    assert present <= named, "an object that neither a row nor the journal names"
    unmasked = {table for table, rows in theirs.items() if rows}
    if unmasked & {"sketch_feature", "sketch_task"}:
        assert await _client_rows(world, subject, ("sketch",))
    if "document" in unmasked:
        assert await _client_rows(world, subject, ("document",))


async def assert_whole_rows(world: World, before: Before) -> Mapping[str, list[Any]]:
    """Every row is as it was, or masked and else as it was; gives those that are not masked."""
    left: dict[str, list[Any]] = {}
    for table, rows in (await world.product()).items():
        left[table] = []
        for was, now in zip(before.product[table], rows, strict=True):
            if now == was:
                if not MASKED[table].items() <= now._mapping.items():
                    left[table].append(now)
                continue
            assert dict(now._mapping) == {**was._mapping, **MASKED[table]}
    return left


async def assert_erased_once(
    world: World, before: Before, subject: str, expected: Mapping[str, TypeTotals]
) -> None:
    """Nothing of the person is left, nobody else lost anything, and the totals are true."""
    assert await world.left_of(subject) == NOTHING
    mine = {(b, k, v) for b, k, v in before.versions if subject in k}
    assert versions_of(world) == before.versions - mine
    await assert_whole_rows(world, before)
    touched = {
        (table, was.id)
        for table, rows in (await world.product()).items()
        for was, now in zip(before.product[table], rows, strict=True)
        if was != now
    }
    assert touched == _rows_of(before, subject)
    [job_id] = await world.rows(
        "select job_id from lethe.job order by created_at desc, job_id desc limit 1"
    )
    await assert_told_truly(world, job_id[0], expected)
    for table in ("journal", "progress", "counted_object", "blocked_row", "invalidation"):
        assert await world.value(f"select count(*) from lethe.{table}") == 0  # noqa: S608 - our own names


async def assert_told_truly(world: World, job_id: UUID, expected: Mapping[str, TypeTotals]) -> None:
    """The job's events have no gap, their totals only grow and end as `expected`."""
    said = [one for one in await world.said() if one.aggregate == job_id]
    assert [one.sequence for one in said] == list(range(1, len(said) + 1))
    for earlier, later in pairwise(said):
        for request_type, totals in earlier.event.totals.items():
            grown = later.event.totals[request_type].model_dump()
            assert all(grown[name] >= count for name, count in totals.model_dump().items())
    assert [one.event.name for one in said].count("verified") == 1
    assert said[-1].event.name == "verified"
    assert said[-1].event.totals == expected


def _rows_of(before: Before, subject: str) -> set[tuple[str, int]]:
    """Every row that was the person's, through the client rows as they were."""
    theirs: set[tuple[str, int]] = set()
    requests: dict[str, set[int]] = {"sketch": set(), "document": set()}
    for table, type_, id_ in (
        ("client", "request_type", "request_id"),
        ("client_old", "type", "feature_id"),
    ):
        for row in before.product[table]:
            if row.client_key == subject:
                theirs.add((table, row.id))
                requests[getattr(row, type_)].add(getattr(row, id_))
    theirs |= {("sketch_feature", id_) for id_ in requests["sketch"]}
    theirs |= {("document", id_) for id_ in requests["document"]}
    theirs |= {
        ("sketch_task", row.id)
        for row in before.product["sketch_task"]
        if row.feature_id in requests["sketch"]
    }
    return theirs


def _named_by_rows(world: World, rows: Mapping[str, list[Any]]) -> set[tuple[str, str]]:
    """Objects that the rows name, and what the manifests among them name."""
    named: set[tuple[str, str]] = {
        ("uploads", row.option["key"]) for row in rows["sketch_feature"] if row.option
    }
    for row in rows["sketch_task"]:
        url = json.loads(row.result)["url"]
        named.add(("results", url.replace("https://cdn.test.example/", "public/")))
    for row in rows["document"]:
        named.add(("documents", row.manifest_path))
        if row.manifest_path in world.keys("documents"):
            body = world.s3.get_object(Bucket=world.buckets["documents"], Key=row.manifest_path)
            named |= {("documents", key) for key in json.load(body["Body"])["fileKeyList"]}
    return named


async def _named_by_journal(world: World) -> set[tuple[str, str]]:
    aliases = {name: alias for alias, name in world.buckets.items()}
    journal = Journal(world.cipher)
    named: set[tuple[str, str]] = set()
    async with world.engine.connect() as connection:
        for (job_id,) in await world.rows("select distinct job_id from lethe.journal"):
            async for intent in journal.all(connection, job_id):
                named |= {(aliases[ref.bucket], ref.key) for ref in intent.refs}
    return named


async def _client_rows(world: World, subject: str, types: Sequence[str]) -> bool:
    return bool(
        await world.value(
            "select (select count(*) from client where client_key = :s"
            " and request_type = any(:t)) + (select count(*) from client_old"
            " where client_key = :s and type = any(:t))",
            s=subject,
            t=list(types),
        )
    )


def of_sketches(requests: int) -> TypeTotals:
    """What the erasure of so many requests says, each as `World.sketch` makes it."""
    return TypeTotals(
        feature_rows=requests,
        task_rows=requests,
        client_rows=requests,
        objects_gone=2 * requests,
    )

"""The product goes on reading: its own queries, of every feature, run on masked rows."""

import json
from dataclasses import dataclass
from typing import Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from lethe_eraser.catalog import Catalog
from lethe_eraser.handlers import build
from lethe_eraser.objects import ObjectStore
from lethe_sandbox.ground_truth import GroundTruth
from tests.integration.eraser_find.test_sample import requests_of


@dataclass(frozen=True)
class Shown:
    """A request as the product shows it in a person's history."""

    number: int
    status: str
    gpu: str | None
    created_at: Any
    prompt: str
    inputs: tuple[str, ...]
    images: tuple[str, ...]


def document(value: Any) -> dict[str, Any]:
    """As the product reads a JSON column, whatever its type: it expects an object."""
    parsed = json.loads(value) if isinstance(value, str) and value else value
    return dict(parsed) if parsed else {}


async def history(connection: AsyncConnection, request_type: str, ids: list[int]) -> list[Shown]:
    table = request_type.replace("-", "_")
    rows = await connection.execute(
        text(
            f"select f.id, f.status, f.gpu, f.created_at, coalesce(f.prompt, '') as prompt,"  # noqa: S608 - names of the sample
            f" f.option, t.result from {table}_feature f"
            f" left join {table}_task t on t.feature_id = f.id"
            f" where f.id = any(:ids) order by f.created_at, f.id, t.id"
        ),
        {"ids": ids},
    )
    shown = []
    for row in rows:
        option, result = document(row.option), document(row.result)
        single = option.get("inputImageUrl") or option.get("imageUrl") or option.get("url")
        inputs = [single, *(file["url"] for file in option.get("inputFileList") or () if file)]
        images = [result.get("url"), *(file["url"] for file in result.get("fileList") or ())]
        shown.append(
            Shown(
                row.id,
                row.status.upper(),
                row.gpu,
                row.created_at.isoformat(),
                row.prompt.strip(),
                tuple(filter(None, inputs)),
                tuple(filter(None, images)),
            )
        )
    return shown


def paths(path: str | None) -> tuple[str, ...]:
    return (path,) if path else ()


async def papers(connection: AsyncConnection, ids: list[int]) -> list[Shown]:
    rows = await connection.execute(
        text(
            "select id, status, gpu, created_at, coalesce(title, '') as title, manifest_path"
            " from pdf_extraction where id = any(:ids) order by id"
        ),
        {"ids": ids},
    )
    return [
        Shown(r.id, r.status, r.gpu, r.created_at, r.title, (), paths(r.manifest_path))
        for r in rows
    ]


async def read(connection: AsyncConnection, request_type: str, ids: list[int]) -> list[Shown]:
    if request_type == "pdf-extraction":
        return await papers(connection, ids)
    return await history(connection, request_type, ids)


async def test_the_products_own_query_of_every_feature_runs_on_masked_rows(
    sample: AsyncConnection, catalog: Catalog, store: ObjectStore, truth: GroundTruth
) -> None:
    handlers = build(catalog, store)
    shown_before, read_after = set[str](), set[str]()
    for person in truth.requested:
        types = await requests_of(sample, catalog, person.key, 500)
        for request_type, ids in types.items():
            handler = handlers(request_type)
            if handler is None:
                continue
            targets = await handler.find_targets(sample, request_type, sorted(ids), person.key)
            left = {row.request_id for row in targets.blocked}
            masked = sorted({row.request_id for row in targets.rows} - left)
            if any(one.images for one in await read(sample, request_type, masked)):
                shown_before.add(request_type)
            await handler.erase(sample, request_type, targets.rows)
            for one in await read(sample, request_type, masked):
                read_after.add(request_type)
                # The timeline survives, the person does not.
                assert one.status
                assert one.created_at
                assert (one.prompt, one.inputs, one.images) == ("", (), ())
    assert shown_before == read_after == set(catalog.features)

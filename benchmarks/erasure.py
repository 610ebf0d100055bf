"""Erasing one heavy person, against a loop that knows every key and every row beforehand.

The floor deletes the same objects (1000 keys a page, four pages in flight) and then masks the same
rows (one set-based UPDATE per 500 rows, committed each). Lethe's time is from the event `started`
to the event `erased`, as the eraser dates them.
"""

import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from typing import TypeVar

import psycopg
import yaml
from psycopg import sql

from benchmarks.harness.model import Bench, Case, Figure, Options, Row, Sample, at_most
from benchmarks.product import peak_mb, running, seed
from lethe_sandbox.ground_truth import GroundTruth
from lethe_sandbox.seed import HEAVY
from lethe_sandbox.services import CATALOG
from lethe_sandbox.stack import Addresses, S3Address

PAGE = 1000
IN_FLIGHT = 4
ROWS = 500
PATIENCE_SECONDS = 1800
_LOOK_SECONDS = 0.5
_ENDS = {"verified", "blocked", "failed"}

T = TypeVar("T")


def figure(options: Options) -> Figure:
    """Erase one heavy person."""
    work = f"one person at scale {options.scale:g}"
    name = "erasure"
    return Figure(
        name,
        (Case(name, _run, 1),),
        (
            Row(work, name, "erased_s", "s", name, "floor_s", at_most(1.25, on="ratio")),
            Row("its verification", name, "verified_s", "s"),
            Row("memory of the eraser", name, "peak_mb", "MB", goal=at_most(150)),
        ),
    )


def _run(bench: Bench) -> Sample:
    """Measure the floor, seed again, measure Lethe."""
    addresses, scale = bench.addresses, bench.options.scale
    with tempfile.TemporaryDirectory() as folder:
        truth = seed(bench, Path(folder), scale)
        floor = _floor(addresses, truth)
        truth = seed(bench, Path(folder), scale)
        erased, verified, peak = _lethe(bench)
    objects = sum(one.owner == HEAVY and one.fate == "erased" for one in truth.all_objects())
    values = {"floor_s": floor, "erased_s": erased, "verified_s": verified, "peak_mb": peak}
    details = {"requests": truth.persons[HEAVY].requests, "objects": objects}
    return Sample(values, details=details)


def _floor(addresses: Addresses, truth: GroundTruth) -> float:
    pages = list(_pages(addresses.s3, truth))
    updates = list(_updates(truth))
    client = addresses.s3.client()
    with (
        psycopg.connect(
            addresses.database_url("product", driver=""), autocommit=True
        ) as connection,
        ThreadPoolExecutor(IN_FLIGHT) as pool,
    ):
        started = time.perf_counter()
        list(pool.map(lambda page: client.delete_objects(**page), pages))
        for statement, ids in updates:
            connection.execute(statement, (ids,))
        return time.perf_counter() - started


def _pages(s3: S3Address, truth: GroundTruth) -> Iterator[dict[str, object]]:
    """Every DeleteObjects call, versions known beforehand."""
    client = s3.client()
    for bucket, objects in truth.objects.items():
        mine = {o.key for o in objects.values() if o.owner == HEAVY and o.fate == "erased"}
        names: list[dict[str, str]] = [{"Key": key} for key in mine]
        if client.get_bucket_versioning(Bucket=bucket).get("Status"):
            names = []
            for page in client.get_paginator("list_object_versions").paginate(Bucket=bucket):
                for found in [*page.get("Versions", []), *page.get("DeleteMarkers", [])]:
                    if found["Key"] in mine:
                        names.append({"Key": found["Key"], "VersionId": found["VersionId"]})
        for part in _parts(names, PAGE):
            yield {"Bucket": bucket, "Delete": {"Objects": part, "Quiet": True}}


def _updates(truth: GroundTruth) -> Iterator[tuple[sql.Composed, list[int]]]:
    """Every UPDATE, as the catalog masks each table."""
    masks = _masks()
    ids: dict[str, list[int]] = defaultdict(list)
    for row in truth.all_rows():
        if row.owner == HEAVY and row.fate == "erased" and row.table in masks:
            ids[row.table].append(row.id)
    for table, found in ids.items():
        assignments = sql.SQL(", ").join(
            sql.SQL("{} = {}").format(sql.Identifier(column), sql.Literal(value))
            for column, value in masks[table].items()
        )
        statement = sql.SQL("UPDATE {} SET {} WHERE id = ANY(%s)").format(
            sql.Identifier(table), assignments
        )
        for part in _parts(found, ROWS):
            yield statement, list(part)


def _masks() -> dict[str, dict[str, str | None]]:
    """What each product table looks like masked, by the sample's naming."""
    found: dict[str, dict[str, str | None]] = {
        "pdf_extraction": {"manifest_path": None, "title": None},
        "client": {"client_key": "erased"},
        "client_old": {"client_key": "erased"},
        "client_temp": {"client_key": "erased"},
    }
    for slug in yaml.safe_load(CATALOG.read_text())["features"]:
        prefix = slug.replace("-", "_")
        found[f"{prefix}_feature"] = {"option": "{}", "prompt": None, "negative_prompt": None}
        found[f"{prefix}_task"] = {"result": "{}", "error_message": None}
    return found


def _parts(whole: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    for start in range(0, len(whole), size):
        yield whole[start : start + size]


def _lethe(bench: Bench) -> tuple[float, float, float]:
    """Seconds to `erased`, from there to `verified`, and the eraser's peak memory in MB."""
    with running(bench) as lethe:
        lethe.clients.submit(HEAVY, "bench")
        deadline = time.monotonic() + PATIENCE_SECONDS
        with psycopg.connect(
            bench.addresses.database_url("reporting", driver=""), autocommit=True
        ) as connection:
            while not _ENDS & (times := _times(connection)).keys():
                lethe.supervisor.check()
                if time.monotonic() > deadline:
                    raise TimeoutError("the heavy person is not erased")
                time.sleep(_LOOK_SECONDS)
        peak = peak_mb(lethe.supervisor.pid("eraser"))
    if "verified" not in times:
        raise RuntimeError("the heavy person did not end as verified")
    erased = times["erased"] - times["started"]
    verified = times["verified"] - times["erased"]
    return erased.total_seconds(), verified.total_seconds(), peak


def _times(connection: psycopg.Connection[tuple[str, datetime]]) -> dict[str, datetime]:
    """When each kind of event was first dated, of the one request there is."""
    found = connection.execute("SELECT type, min(time) FROM lethe.event_log GROUP BY type")
    return {name.split(".")[-2]: moment for name, moment in found}

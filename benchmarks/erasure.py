"""Erasing people, against a loop that knows every key and every row beforehand.

The floor deletes the same objects (the better of two page sizes, four pages in flight) and then
masks the same rows (one set-based UPDATE per 500 rows, committed each). The naive eraser deletes
key by key and masks row by row, a twentieth of the person, times twenty. Lethe's time is from the
event `started` to the event `erased`, as the eraser dates them. On versitygw, and on moto. The
product works beside the eraser in a case of its own: nothing works beside the floor either.
"""

import re
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import psycopg
import yaml
from psycopg import sql

from benchmarks.harness.model import Bench, Case, Figure, Options, Row, Sample, at_most
from benchmarks.neighbour import Neighbour
from benchmarks.product import Running, clear, peak_mb, running, seed
from lethe_sandbox.ground_truth import GroundTruth
from lethe_sandbox.seed import HEAVY
from lethe_sandbox.services import CATALOG
from lethe_sandbox.stack import Addresses, Folders, Instance, S3Address
from lethe_sandbox.stack.embedded import VersityGw, alone

PAGES = (250, 1000)
PAGE_KEYS = 250
IN_FLIGHT = 4
ROWS = 500
NAIVE_PART = 20
PATIENCE_SECONDS = 3600
ALONE_SECONDS = 10
_LOOK_SECONDS = 0.5
"""How often a run is looked at; what is measured is dated by the product itself."""
_ENDS = {"verified", "blocked", "failed"}
_OPERATION = re.compile(r" s3_([A-Za-z]+) ")

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Store:
    """An S3 server, and where it keeps files and tells of requests, if it does."""

    address: S3Address
    bucket_folder: Path | None = None
    access_log: Path | None = None

    def requests(self) -> Counter[str]:
        """Count the requests until now, by operation."""
        if self.access_log is None or not self.access_log.exists():
            return Counter()
        return Counter(_OPERATION.findall(self.access_log.read_text()))


def figure(options: Options) -> Figure:
    """Erase one heavy person on either server, and a queue of ordinary ones."""
    work = f"one person at scale {options.scale:g}"
    name, moto, beside = "erasure", "erasure on moto", "erasure beside the product"
    queues = {1: "queue of ordinary people, one eraser", 4: "queue of ordinary people, 4 erasers"}
    return Figure(
        name,
        (
            Case(name, _on_versitygw, 1),
            Case(moto, _on_moto, 1),
            Case(beside, _beside, 1),
            *(Case(queue, partial(_queue, erasers=n), 1) for n, queue in queues.items()),
        ),
        (
            Row(work, name, "erased_s", "s", name, "floor_s", at_most(1.25, on="ratio")),
            Row("the naive eraser", name, "naive_s", "s", name, "floor_s"),
            Row("its verification", name, "verified_s", "s"),
            Row("DeleteObjects per full page", name, "deletes_x", "x", goal=at_most(1.02)),
            Row("HEAD", name, "heads", "calls"),
            Row("LIST", name, "lists", "calls"),
            Row("memory of the eraser", name, "peak_mb", "MB", goal=at_most(150)),
            Row(
                "p99 of the product beside it",
                beside,
                "p99_beside_ms",
                "ms",
                beside,
                "p99_alone_ms",
                at_most(1.2, on="ratio"),
            ),
            Row(f"{work}, beside the product", beside, "erased_s", "s", name, "floor_s"),
            Row(f"{work}, on moto", moto, "erased_s", "s", moto, "floor_s"),
            *(Row(queue, queue, "people_s", "people/s") for queue in queues.values()),
        ),
    )


def _on_versitygw(bench: Bench) -> Sample:
    with _versitygw() as store:
        return _heavy(bench, store)


def _on_moto(bench: Bench) -> Sample:
    return _heavy(bench, Store(bench.addresses.s3))


def _beside(bench: Bench) -> Sample:
    """Erase the heavy person while the product works, and see what it notices."""
    with _versitygw() as store, tempfile.TemporaryDirectory() as folder:
        bench = replace(bench, addresses=replace(bench.addresses, s3=store.address))
        clear(bench.addresses)
        seed(bench, Path(folder), bench.options.scale, store.bucket_folder)
        neighbour = Neighbour(bench.addresses)
        with running(bench) as lethe:
            with neighbour.at_work():
                # The neighbour works meanwhile: a while of its own is what is measured.
                time.sleep(ALONE_SECONDS)
            alone_ms = neighbour.p99_ms
            with neighbour.at_work():
                values = _erase(bench, lethe)
    return Sample(values | {"p99_alone_ms": alone_ms, "p99_beside_ms": neighbour.p99_ms})


@contextmanager
def _versitygw() -> Iterator[Store]:
    folders = Folders.of_checkout()
    instance = Instance.claim_any(folders, "bench-s3")
    with alone(VersityGw(folders, instance, logs=True), instance) as server:
        yield Store(server.address, server.bucket_folder, server.access_log)


def _heavy(bench: Bench, store: Store) -> Sample:
    """Measure the naive eraser and the floor, seed again for each, and measure Lethe."""
    bench = replace(bench, addresses=replace(bench.addresses, s3=store.address))
    addresses, scale = bench.addresses, bench.options.scale
    clear(addresses)
    with tempfile.TemporaryDirectory() as folder:

        def seeded() -> GroundTruth:
            return seed(bench, Path(folder), scale, store.bucket_folder)

        naive = _naive(addresses, seeded())
        floors = {page: _floor(addresses, seeded(), page) for page in PAGES}
        truth = seeded()
        # A key of a versioned bucket stands in a request once for each of its versions.
        keys = sum(len(page["Delete"]["Objects"]) for page in _pages(addresses.s3, truth, 1000))
        before = store.requests()
        with running(bench) as lethe:
            values = _erase(bench, lethe)
    objects = sum(one.owner == HEAVY and one.fate == "erased" for one in truth.all_objects())
    calls = store.requests() - before
    values |= {
        "naive_s": naive,
        "floor_s": min(floors.values()),
        "deletes_x": calls["DeleteObjects"] * PAGE_KEYS / keys,
        "heads": calls["HeadObject"],
        "lists": sum(n for name, n in calls.items() if name.startswith("ListObject")),
    }
    details = {
        "requests": truth.persons[HEAVY].requests,
        "objects": objects,
        "keys": keys,
        "floors": floors,
        "calls": dict(calls),
    }
    return Sample(values, details=details)


def _queue(bench: Bench, *, erasers: int) -> Sample:
    """Ask for every ordinary person who may be erased, and see when the last one has ended."""
    with _versitygw() as store, tempfile.TemporaryDirectory() as folder:
        bench = replace(bench, addresses=replace(bench.addresses, s3=store.address))
        clear(bench.addresses)
        truth = seed(bench, Path(folder), bench.options.scale, store.bucket_folder)
        people = [key for key, person in truth.persons.items() if person.role == "ordinary"]
        if not people:
            raise ValueError("there are no ordinary people at this scale: ask for a larger one")
        with running(bench, erasers=erasers) as lethe:
            for person in people:
                lethe.clients.submit(person, f"bench-{person}")
            query = (
                "SELECT type, min(time), max(time), count(DISTINCT aggregate)"
                " FROM lethe.event_log GROUP BY type"
            )
            with psycopg.connect(
                bench.addresses.database_url("reporting", driver=""), autocommit=True
            ) as connection:
                deadline = time.monotonic() + PATIENCE_SECONDS
                while True:
                    lethe.supervisor.check()
                    rows = connection.execute(query).fetchall()
                    found = {name.split(".")[-2]: rest for name, *rest in rows}
                    ended = [found[name] for name in _ENDS & found.keys()]
                    if sum(count for _, _, count in ended) >= len(people):
                        break
                    if time.monotonic() > deadline:
                        raise TimeoutError("the queue is not erased")
                    time.sleep(_LOOK_SECONDS)
        took = max(last for _, last, _ in ended) - found["started"][0]
    return Sample({"people_s": len(people) / took.total_seconds()})


def _floor(addresses: Addresses, truth: GroundTruth, page_keys: int) -> float:
    pages = list(_pages(addresses.s3, truth, page_keys))
    updates = list(_updates(truth, ROWS))
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


def _naive(addresses: Addresses, truth: GroundTruth) -> float:
    """Key by key and row by row, one after the other; a part of it, extrapolated."""
    keys = list(_pages(addresses.s3, truth, 1))[::NAIVE_PART]
    rows = list(_updates(truth, 1))[::NAIVE_PART]
    client = addresses.s3.client()
    with psycopg.connect(
        addresses.database_url("product", driver=""), autocommit=True
    ) as connection:
        started = time.perf_counter()
        for key in keys:
            client.delete_objects(**key)
        for statement, ids in rows:
            connection.execute(statement, (ids,))
        return (time.perf_counter() - started) * NAIVE_PART


def _pages(s3: S3Address, truth: GroundTruth, page_keys: int) -> Iterator[dict[str, Any]]:
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
        for part in _parts(names, page_keys):
            yield {"Bucket": bucket, "Delete": {"Objects": part, "Quiet": True}}


def _updates(truth: GroundTruth, rows: int) -> Iterator[tuple[sql.Composed, list[int]]]:
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
        for part in _parts(found, rows):
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


def _erase(bench: Bench, lethe: Running) -> dict[str, float]:
    """Seconds to `erased`, from there to `verified`, and the eraser's peak memory."""
    with psycopg.connect(
        bench.addresses.database_url("reporting", driver=""), autocommit=True
    ) as connection:
        lethe.clients.submit(HEAVY, "bench")
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not _ENDS & (times := _times(connection)).keys():
            lethe.supervisor.check()
            if time.monotonic() > deadline:
                raise TimeoutError("the heavy person is not erased")
            time.sleep(_LOOK_SECONDS)
    if "verified" not in times:
        raise RuntimeError("the heavy person did not end as verified")
    return {
        "erased_s": (times["erased"] - times["started"]).total_seconds(),
        "verified_s": (times["verified"] - times["erased"]).total_seconds(),
        "peak_mb": peak_mb(lethe.supervisor.pid("eraser")),
    }


def _times(connection: psycopg.Connection[tuple[str, datetime]]) -> dict[str, datetime]:
    """When each kind of event was first dated, of the one request there is."""
    found = connection.execute("SELECT type, min(time) FROM lethe.event_log GROUP BY type")
    return {name.split(".")[-2]: moment for name, moment in found}

"""From the commit of a request to its row in the read model, at 100 requests a second.

A request's clock starts with the transaction that accepts it (`accepted_at`: a little before its
commit, so the figure says a little too much) and stops when a reader of reporting's database sees
the event that made its row. Both are the wall clock of this one machine.
"""

import asyncio
import statistics
import time
from uuid import UUID

import httpx
import psycopg

from benchmarks.harness.model import Bench, Case, Figure, Options, Row, Sample
from benchmarks.product import Running, clear, running
from lethe_sandbox import product
from lethe_sandbox.stack import Addresses

RATE = 100
PATIENCE_SECONDS = 30
_LOOK_SECONDS = 0.002
_WARM_UP = 50


def figure(options: Options) -> Figure:
    """Submit for some seconds, and compare what was answered with what was seen."""
    name = "product latency"
    work = f"{RATE} requests/s for {options.seconds:g} s, commit to read model"
    rows = (Row(f"{work}: {one}", name, f"{one}_ms", "ms") for one in ("p50", "p99", "max"))
    return Figure(name, (Case(name, _run, 1),), tuple(rows))


def _run(bench: Bench) -> Sample:
    clear(bench.addresses)
    with running(bench, before=_empty_product) as lethe:
        took = asyncio.run(_measure(lethe, bench.addresses, int(RATE * bench.options.seconds)))
    quantiles = statistics.quantiles(took, n=100, method="inclusive")
    return Sample({"p50_ms": quantiles[49], "p99_ms": quantiles[98], "max_ms": max(took)})


def _empty_product(addresses: Addresses) -> None:
    """The product's tables without any row: erasing is not what is measured."""
    with psycopg.connect(addresses.database_url("product", driver="")) as connection:
        product.create_tables(connection)
    product.create_buckets(addresses.s3)


async def _measure(lethe: Running, addresses: Addresses, count: int) -> list[float]:
    """Milliseconds of every request, the warm-up left out."""
    seen: dict[UUID, float] = {}
    finished = asyncio.Event()
    url = addresses.database_url("reporting", driver="")
    watching = asyncio.create_task(_watch(url, seen, finished))
    async with httpx.AsyncClient(
        base_url=lethe.supervisor.url("intake"),
        headers={"Authorization": f"Bearer {lethe.keys.intake}"},
        limits=httpx.Limits(max_connections=20),
        timeout=30,
        trust_env=False,
    ) as client:
        submitted = await _submit(client, _WARM_UP + count)
    deadline = time.monotonic() + PATIENCE_SECONDS
    while missing := set(submitted) - seen.keys():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{len(missing)} requests were not projected")
        await asyncio.sleep(_LOOK_SECONDS)
    finished.set()
    await watching
    accepted = _accepted(addresses)
    return [(seen[one] - accepted[one]) * 1000 for one in submitted[_WARM_UP:]]


def _accepted(addresses: Addresses) -> dict[UUID, float]:
    """When each request was accepted."""
    with psycopg.connect(addresses.database_url("intake", driver="")) as connection:
        found = connection.execute("SELECT request_id, accepted_at FROM lethe.erasure_request")
        return {request_id: moment.timestamp() for request_id, moment in found}


async def _submit(client: httpx.AsyncClient, count: int) -> list[UUID]:
    """Post at the agreed rate, however long an answer takes."""
    started = time.perf_counter()

    async def one(number: int) -> UUID:
        await asyncio.sleep(max(0.0, started + number / RATE - time.perf_counter()))
        answer = await client.post(
            "/v1/erasure-requests", json={"subject": f"latency-{number}", "reason": "benchmark"}
        )
        answer.raise_for_status()
        return UUID(answer.json()["id"])

    return await asyncio.gather(*(one(number) for number in range(count)))


async def _watch(url: str, seen: dict[UUID, float], finished: asyncio.Event) -> None:
    """Note when each request's event is first visible."""
    position = 0
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        while not finished.is_set():
            found = await connection.execute(
                "SELECT position, aggregate FROM lethe.event_log"
                " WHERE position > %s AND source = 'lethe/intake' ORDER BY position",
                (position,),
            )
            rows = await found.fetchall()
            now = time.time()
            for position, request_id in rows:  # noqa: B007 - the last one is where the next look begins
                seen.setdefault(request_id, now)
            await asyncio.sleep(_LOOK_SECONDS)

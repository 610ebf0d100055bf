"""From the commit of a request to its row in the read model, at 100 requests a second.

A request's clock starts when intake has answered, which it does after the commit, and stops when a
reader of reporting's database sees the event that made its row.
"""

import asyncio
import statistics
import time
from uuid import UUID

import httpx
import psycopg
from rich.console import Console

from benchmarks.figure import Figure
from benchmarks.product import Running, running
from lethe_sandbox import product
from lethe_sandbox.stack import Addresses

RATE = 100
PATIENCE_SECONDS = 30
_LOOK_SECONDS = 0.002
_WARM_UP = 50


def run(console: Console, addresses: Addresses, *, seconds: int) -> list[Figure]:
    """Submit for `seconds`, and compare what was answered with what was seen."""
    with running(console, addresses, before=_empty_product) as lethe:
        took = asyncio.run(_measure(lethe, addresses, RATE * seconds))
    work = f"{len(took):,} requests at {RATE}/s, commit to read model"
    quantiles = statistics.quantiles(took, n=100, method="inclusive")
    return [
        Figure("latency p50", work, quantiles[49], "ms", None, None, "reported"),
        Figure("latency p99", work, quantiles[98], "ms", None, None, "reported"),
        Figure("latency max", work, max(took), "ms", None, None, "reported"),
    ]


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
    limits = httpx.Limits(max_connections=20)
    async with httpx.AsyncClient(
        base_url=lethe.supervisor.url("intake"),
        headers={"Authorization": f"Bearer {lethe.keys.intake}"},
        limits=limits,
        timeout=30,
        trust_env=False,
    ) as client:
        answered = dict(await _submit(client, _WARM_UP + count))
    deadline = time.perf_counter() + PATIENCE_SECONDS
    while answered.keys() - seen.keys():
        if time.perf_counter() > deadline:
            raise TimeoutError(f"{len(answered.keys() - seen.keys())} requests were not projected")
        await asyncio.sleep(_LOOK_SECONDS)
    finished.set()
    await watching
    measured = list(answered)[_WARM_UP:]
    return [max(0.0, seen[one] - answered[one]) * 1000 for one in measured]


async def _submit(client: httpx.AsyncClient, count: int) -> list[tuple[UUID, float]]:
    """Post at the agreed rate, however long an answer takes."""
    started = time.perf_counter()

    async def one(number: int) -> tuple[UUID, float]:
        await asyncio.sleep(max(0.0, started + number / RATE - time.perf_counter()))
        answer = await client.post(
            "/v1/erasure-requests", json={"subject": f"latency-{number}", "reason": "benchmark"}
        )
        answer.raise_for_status()
        return UUID(answer.json()["id"]), time.perf_counter()

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
            now = time.perf_counter()
            for position, request_id in rows:  # noqa: B007 - the last one is where the next look begins
                seen.setdefault(request_id, now)
            await asyncio.sleep(_LOOK_SECONDS)

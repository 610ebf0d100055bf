"""Relay rows per second, against a bare aiokafka `send()` loop of the same records."""

import asyncio
import statistics
from uuid import uuid4

from alembic.migration import MigrationContext
from alembic.operations import Operations
from rich.console import Console
from sqlalchemy import create_engine

from benchmarks import backlog
from benchmarks.figure import Figure
from benchmarks.process import Measured, measure
from benchmarks.servers import create_database
from lethe_outbox import TopicSpec, ensure_topics
from lethe_outbox.migrations import create_outbox
from lethe_sandbox.stack import Addresses

PARTITIONS = 16


def run(console: Console, addresses: Addresses, *, rows: int, repetitions: int = 3) -> list[Figure]:
    """Measure floor and relay in turn and compare their medians."""
    floor: list[float] = []
    relay: list[float] = []
    peak = 0.0
    for repetition in range(1, repetitions + 1):
        sent = _send_loop(addresses, rows)
        drained = _drain(addresses, rows)
        floor.append(rows / sent.seconds)
        relay.append(rows / drained.seconds)
        peak = max(peak, drained.peak_mib)
        console.print(
            f"relay, run {repetition} of {repetitions}: send() loop {floor[-1]:,.0f} rows/s, "
            f"relay {relay[-1]:,.0f} rows/s"
        )
    value, base = statistics.median(relay), statistics.median(floor)
    work = f"drain {rows:,} rows, one relay, median of {repetitions}"
    return [
        Figure("relay", work, value, "rows/s", base, value / base, "1.8 x the send() loop"),
        Figure("relay memory", work, peak, "MiB", None, None, "at most 150 MiB"),
    ]


def _send_loop(addresses: Addresses, rows: int) -> Measured:
    return measure("benchmarks.send_loop", addresses.kafka, _topic(addresses), str(rows))


def _drain(addresses: Addresses, rows: int) -> Measured:
    url = create_database(addresses, "bench_relay")
    engine = create_engine(url)
    with engine.begin() as connection:
        create_outbox(Operations(MigrationContext.configure(connection)))
    engine.dispose()
    backlog.fill(addresses.database_url("bench_relay", driver=""), _topic(addresses), rows)
    return measure("benchmarks.relay_drain", url, addresses.kafka, str(rows))


def _topic(addresses: Addresses) -> str:
    name = f"bench.{uuid4().hex}"
    asyncio.run(ensure_topics(addresses.kafka, [TopicSpec(name, PARTITIONS)]))
    return name

"""Records per second of a consumer runner with its inbox, beside a consumer that only copies."""

import asyncio
from collections.abc import Callable
from functools import partial
from uuid import uuid4

from benchmarks.harness.machine import Meter
from benchmarks.harness.model import Bench, Case, Figure, Options, Row, Sample, at_least, at_most
from benchmarks.harness.outbox import OutboxDatabase, outbox
from benchmarks.harness.topics import topic
from benchmarks.harness.worker import Worker
from benchmarks.measured.batch_loop import send
from lethe_outbox import initialise_group

RUNNER = "consumer with inbox"
COPY = "COPY into a bare table"
COPY_INBOX = "COPY into an inbox"
_BARE_TABLE = "CREATE TABLE copied (event_id uuid NOT NULL, consumer text NOT NULL)"

Start = Callable[[Bench, OutboxDatabase, str, str], Worker]
"""Starts a consumer of a group and topic."""


def figure(options: Options) -> Figure:
    """Consume as many records as the relay's backlog has rows."""
    work = f"{options.rows:,} records in batches of 500"
    return Figure(
        "consumer",
        (
            Case(COPY, partial(_run, partial(_copying, "copied"))),
            Case(RUNNER, partial(_run, _runner)),
            Case(COPY_INBOX, partial(_run, partial(_copying, "lethe.inbox"))),
        ),
        (
            Row(f"{work}: {COPY}", COPY, "rows_per_s", "rows/s"),
            Row(f"{work}: {COPY_INBOX}", COPY_INBOX, "rows_per_s", "rows/s"),
            Row(f"{work}: {RUNNER}", RUNNER, "rows_per_s", "rows/s", COPY, goal=at_least(0.5)),
            Row(f"{work}: {RUNNER}", RUNNER, "rows_per_s", "rows/s", COPY_INBOX),
            Row("CPU of the consumer", RUNNER, "cpu_measured_us", "us/row"),
            Row("CPU of PostgreSQL", RUNNER, "cpu_postgres_us", "us/row"),
            Row("lost effects", RUNNER, "lost", "rows", goal=at_most(0)),
        ),
    )


def _runner(bench: Bench, database: OutboxDatabase, group: str, name: str) -> Worker:
    arguments = (database.url, bench.addresses.kafka, group, name, bench.options.rows)
    return Worker("benchmarks.measured.consumer", *arguments)


def _copying(table: str, bench: Bench, database: OutboxDatabase, group: str, name: str) -> Worker:
    arguments = (database.plain_url, bench.addresses.kafka, group, name, bench.options.rows)
    return Worker("benchmarks.measured.copy_consumer", *arguments, table)


def _run(start: Start, bench: Bench) -> Sample:
    rows, kafka = bench.options.rows, bench.addresses.kafka
    group = f"bench-{uuid4().hex}"
    with topic(kafka, dead_letters=True) as name, outbox(bench.addresses) as database:
        with database.connect() as connection:
            connection.execute(_BARE_TABLE)
        asyncio.run(send(kafka, name, rows))
        asyncio.run(initialise_group(kafka, group, [name]))
        with start(bench, database, group, name) as worker:
            worker.hear()
            meter = Meter(bench.addresses, [worker.pid])
            before = meter.read()
            worker.say("go")
            worker.hear()
            after = meter.read()
            worker.say("end")
        with database.connect() as connection:
            found = connection.execute(
                "SELECT (SELECT count(DISTINCT event_id) FROM lethe.inbox)"
                " + (SELECT count(DISTINCT event_id) FROM copied)"
            ).fetchone()
    values = {
        "rows_per_s": rows / (after.at - before.at),
        "lost": rows - (found[0] if found else 0),
        **before.until(after, rows),
    }
    return Sample(values)

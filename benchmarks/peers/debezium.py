"""Debezium 3.3 with its outbox router under Kafka Connect, standalone, at its defaults and tuned.

A backlog is what was committed (100 rows a transaction) while the connector was stopped. Its rate
is from its first record to its last, which leaves the start of its task out; ours starts at the
commit. The worker is warmed up by a backlog before it is measured.
"""

import asyncio
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from uuid import uuid4

import psycopg
from aiokafka import AIOKafkaConsumer, TopicPartition

from benchmarks import latency as own_latency
from benchmarks import relay
from benchmarks.harness import latency
from benchmarks.harness.machine import Meter
from benchmarks.harness.model import Bench, Case, Figure, Options, Row, Sample, at_least
from benchmarks.harness.outbox import BUSINESS
from benchmarks.harness.records import KEY_SQL, PARTITIONS, TRACEPARENT, VALUE_SQL
from benchmarks.harness.servers import database
from benchmarks.harness.topics import read_back, topic
from benchmarks.harness.worker import Worker
from benchmarks.peers.connect import Connect, connect, wait
from lethe_outbox.kafka.clients import stopped

_TABLE = (
    "CREATE TABLE outboxevent (id uuid PRIMARY KEY DEFAULT gen_random_uuid(),"
    " aggregatetype text NOT NULL, aggregateid text NOT NULL, type text NOT NULL, payload bytea,"
    " traceparent text)"
)
_INSERT = (
    "INSERT INTO outboxevent (aggregatetype, aggregateid, type, payload, traceparent)"
    " VALUES (%(topic)s, %(key)s, 'E', %(payload)s, %(traceparent)s)"
)
_BACKLOG = (
    "INSERT INTO outboxevent (aggregatetype, aggregateid, type, payload, traceparent)"
    f" SELECT %(topic)s, {KEY_SQL}, 'E', {VALUE_SQL}, %(traceparent)s"
    " FROM generate_series(%(first)s::int, %(last)s::int) g ORDER BY g"
)
_ROWS_PER_TRANSACTION = 100
_DEFAULTS: Mapping[str, str] = {
    "connector.class": "io.debezium.connector.postgresql.PostgresConnector",
    "plugin.name": "pgoutput",
    "publication.autocreate.mode": "filtered",
    "table.include.list": "public.outboxevent",
    "snapshot.mode": "no_data",
    "tombstones.on.delete": "false",
    "transforms": "outbox",
    "transforms.outbox.type": "io.debezium.transforms.outbox.EventRouter",
    "transforms.outbox.table.field.event.key": "aggregateid",
    "transforms.outbox.table.fields.additional.placement": "traceparent:header",
    "transforms.outbox.route.topic.replacement": "${routedByValue}",
    "value.converter": "io.debezium.converters.BinaryDataConverter",
    "key.converter": "org.apache.kafka.connect.storage.StringConverter",
}
_TUNED: Mapping[str, str] = {
    **_DEFAULTS,
    "max.batch.size": "16384",
    "max.queue.size": "65536",
    "poll.interval.ms": "10",
    "producer.override.batch.size": "524288",
    "producer.override.linger.ms": "10",
    "producer.override.buffer.memory": "134217728",
}
_PROMPT: Mapping[str, str] = {**_TUNED, "producer.override.linger.ms": "0"}
DRAINS = {"Debezium, defaults": _DEFAULTS, "Debezium, tuned": _TUNED}
BEST = "Debezium, tuned"
WAITS = {
    "Debezium latency at 200/s, defaults": (200, _DEFAULTS),
    "Debezium latency at 200/s": (200, _PROMPT),
    "Debezium latency at 2/s": (2, _PROMPT),
}


def figure(options: Options) -> Figure:
    """Drain, and pass events on as they come."""
    drains = [Case(name, partial(_drain, config)) for name, config in DRAINS.items()]
    waits = [Case(name, partial(_wait, *one)) for name, one in WAITS.items()]
    rows = [
        row
        for name in DRAINS
        for row in (
            Row(f"drain {options.rows:,} rows, {name}", name, "rows_per_s", "rows/s"),
            Row("CPU of Connect", name, "cpu_measured_us", "us/row"),
        )
    ]
    rows.append(
        Row(
            f"drain {options.rows:,} rows, one relay, against Debezium",
            *(relay.ONE, "rows_per_s", "rows/s", BEST),
            goal=at_least(1.8),
        )
    )
    for name in WAITS:
        rows += latency.rows(name, name, goals=False)
    ours = [own_latency.case(rate, hint=True) for rate in own_latency.RATES]
    for case, rate in zip(ours, own_latency.RATES, strict=True):
        rows += latency.rows(f"{rate}/s, one relay", case.name, f"Debezium latency at {rate}/s")
    return Figure("debezium", (relay.case(), *drains, *ours, *waits), tuple(rows))


@dataclass(frozen=True, slots=True)
class _Connector:
    """A connector on a database and a topic of its own."""

    worker: Connect
    name: str
    topic: str
    plain_url: str

    def tell(self, word: str, state: str) -> None:
        self.worker.ask("PUT", f"/{self.name}/{word}")
        self.worker.wait_for(self.name, state)


@contextmanager
def _connector(bench: Bench, config: Mapping[str, str]) -> Iterator[_Connector]:
    """Give a connector that runs; it and its slot are gone at the end."""
    kafka = bench.addresses.kafka
    worker = bench.kept.get("connect", lambda: connect(kafka))
    identity = f"bench_{uuid4().hex}"
    with topic(kafka) as name, database(bench.addresses) as own:
        plain = bench.addresses.database_url(own, driver="")
        with psycopg.connect(plain, autocommit=True) as connection:
            connection.execute(_TABLE)
            connection.execute(BUSINESS)
        postgres = bench.addresses.postgres
        place = {
            "database.hostname": postgres.host,
            "database.port": str(postgres.port),
            "database.user": postgres.user,
            "database.password": postgres.password,
            "database.dbname": own,
            "topic.prefix": identity,
            "slot.name": identity,
            "publication.name": identity,
        }
        with psycopg.connect(plain, autocommit=True) as connection:

            def active() -> bool:
                found = connection.execute(
                    "SELECT active FROM pg_replication_slots WHERE slot_name = %s", (identity,)
                ).fetchone()
                return bool(found and found[0])

            try:
                worker.configure(identity, {**config, **place})
                wait(active, "the connector does not stream")
                yield _Connector(worker, identity, name, plain)
            finally:
                worker.ask("DELETE", f"/{identity}")
                wait(lambda: not active(), "the connector does not let go of its slot")
                connection.execute("SELECT pg_drop_replication_slot(%s)", (identity,))


def _drain(config: Mapping[str, str], bench: Bench) -> Sample:
    bench.kept.get("warm connect", lambda: _warm(bench))
    return _drain_rows(config, bench, bench.options.rows)


@contextmanager
def _warm(bench: Bench) -> Iterator[None]:
    _drain_rows(_TUNED, bench, min(bench.options.rows, 50_000))
    yield


def _drain_rows(config: Mapping[str, str], bench: Bench, rows: int) -> Sample:
    with _connector(bench, config) as connector:
        connector.tell("stop", "STOPPED")
        _fill(connector, rows)
        os.sync()
        meter = Meter(bench.addresses, [connector.worker.pid])
        before = meter.read()
        connector.worker.ask("PUT", f"/{connector.name}/resume")
        first = asyncio.run(_until(bench.addresses.kafka, connector.topic, rows))
        after = meter.read()
        resident = meter.resident_mb()
        verdict = read_back(bench.addresses.kafka, connector.topic, rows)
    values = {
        "rows_per_s": rows / (after.at - first),
        "rows_per_s_with_start": rows / (after.at - before.at),
        "peak_mb": resident,
        **before.until(after, rows),
    }
    return Sample(values, verdict)


def _fill(connector: _Connector, rows: int) -> None:
    with psycopg.connect(connector.plain_url, autocommit=True) as connection:
        connection.execute("SET synchronous_commit = off")
        for first in range(0, rows, _ROWS_PER_TRANSACTION):
            connection.execute(
                _BACKLOG,
                {
                    "topic": connector.topic,
                    "traceparent": TRACEPARENT.decode(),
                    "first": first,
                    "last": min(first + _ROWS_PER_TRANSACTION, rows) - 1,
                },
            )
        connection.execute("CHECKPOINT")


async def _until(bootstrap: str, name: str, rows: int) -> float:
    """Wait until a topic holds `rows` records, and tell when it held the first."""
    partitions = [TopicPartition(name, n) for n in range(PARTITIONS)]
    consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap)
    await consumer.start()
    first: float | None = None
    try:
        consumer.assign(partitions)
        while True:
            found = sum((await consumer.end_offsets(partitions)).values())
            if found and first is None:
                first = time.perf_counter()
            if found >= rows and first is not None:
                return first
            # A look costs a request; 20 ms are little beside a drain of seconds.
            await asyncio.sleep(0.02)
    finally:
        await stopped(consumer)


def _wait(rate: int, config: Mapping[str, str], bench: Bench) -> Sample:
    count = int(rate * bench.options.seconds)
    with (
        _connector(bench, config) as connector,
        Worker(
            "benchmarks.measured.plain_writer",
            *(connector.plain_url, BUSINESS, _INSERT, connector.topic),
            *(rate, count, latency.WARM_UP),
        ) as writer,
    ):
        writer.hear()
        return latency.measure(bench, writer, connector.topic, count)

"""Draining a backlog through a peer that is a Python library."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg

from benchmarks.harness.machine import Meter
from benchmarks.harness.model import Bench, Sample
from benchmarks.harness.records import KEY_SQL, TRACEPARENT, VALUE_SQL
from benchmarks.harness.servers import database
from benchmarks.harness.topics import read_back, topic
from benchmarks.harness.worker import ROOT, Worker

PYTHON = ROOT / ".venv-peers" / "bin" / "python"
HEADERS_JSON = json.dumps({"traceparent": TRACEPARENT.decode()})


@dataclass(frozen=True, slots=True)
class Peer:
    """A relay in an environment of its own.

    Attributes:
        module: its adapter.
        driver: SQLAlchemy's name of the driver in its URLs; empty for a plain URL.
        columns: of its table that a backlog fills.
        selected: what fills them, of `g`, the number of a row.
        remaining: counts what it has not relayed.
    """

    module: str
    driver: str
    columns: str
    selected: str
    remaining: str


@dataclass(frozen=True, slots=True)
class Setting:
    """One way to run a peer, over as many rows as it can relay in a few seconds."""

    rows: int
    options: Mapping[str, Any] = field(default_factory=dict)


def drain(peer: Peer, setting: Setting, bench: Bench) -> Sample:
    """Measure one drain, and read the topic back."""
    rows = min(setting.rows, bench.options.rows)
    kafka = bench.addresses.kafka
    with topic(kafka) as name, database(bench.addresses) as own:
        options = {
            **setting.options,
            "url": bench.addresses.database_url(own, driver=peer.driver),
            "bootstrap": kafka,
            "topic": name,
            "rows": rows,
        }
        prepare(peer, options)
        plain = bench.addresses.database_url(own, driver="")
        _fill(plain, peer, name, rows)
        with start(peer, "drain", options) as worker:
            worker.hear()
            os.sync()
            meter = Meter(bench.addresses, [worker.pid])
            before = meter.read()
            worker.say("go")
            worker.hear()
            after = meter.read()
            resident = meter.resident_mb()
            worker.say("end")
        with psycopg.connect(plain) as connection:
            left = connection.execute(peer.remaining).fetchone()
        verdict = read_back(kafka, name, rows)
    values = {
        "rows_per_s": rows / (after.at - before.at),
        "peak_mb": resident,
        "pending": left[0] if left else 0,
        **before.until(after, rows),
    }
    return Sample(values, verdict, {"rows": rows})


def start(peer: Peer, role: str, options: Mapping[str, Any]) -> Worker:
    """Start the adapter in the peers' environment."""
    return Worker(peer.module, role, json.dumps(options), python=_python())


def prepare(peer: Peer, options: Mapping[str, Any]) -> None:
    """Let the peer make its table."""
    with start(peer, "prepare", options) as worker:
        worker.finish()


def _fill(plain_url: str, peer: Peer, name: str, rows: int) -> None:
    with psycopg.connect(plain_url, autocommit=True) as connection:
        connection.execute(
            f"INSERT INTO outbox ({peer.columns}) SELECT {peer.selected}"
            f" FROM generate_series(0, {rows - 1}) g ORDER BY g".encode(),
            {"topic": name, "headers": HEADERS_JSON, "traceparent": TRACEPARENT.decode()},
        )
        connection.execute("VACUUM ANALYZE outbox")
        connection.execute("CHECKPOINT")


def _python() -> Path:
    if not PYTHON.exists():
        raise FileNotFoundError("the peers are not installed: use `make bench-peers`")
    return PYTHON


FASTSTREAM = Peer(
    module="benchmarks.peers.adapters.faststream_relay",
    driver="asyncpg",
    columns="queue, payload, headers",
    selected=f"'bench', {VALUE_SQL}, jsonb_build_object('correlation_id', 'c' || g, "
    f"'key', {KEY_SQL}, 'traceparent', %(traceparent)s::text)",
    remaining="SELECT count(*) FROM outbox",
)
TXOUTBOX = Peer(
    module="benchmarks.peers.adapters.txoutbox_relay",
    driver="",
    columns="topic, key, payload, headers",
    selected=f"%(topic)s, {KEY_SQL}, {VALUE_SQL}, %(headers)s::jsonb",
    remaining="SELECT count(*) FROM outbox WHERE status = 'pending'",
)

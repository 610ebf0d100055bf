"""Relay rows per second, every guarantee on, beside what aiokafka alone can do."""

from functools import partial

from benchmarks import bare
from benchmarks.harness.drain import STEPS, Backlog, drain
from benchmarks.harness.model import Bench, Case, Figure, Options, Row, Sample, at_least, at_most

ONE = "one relay"


def case(relays: int = 1) -> Case:
    """Give the case of a number of relays, for whoever compares with it."""
    name = ONE if relays == 1 else f"{relays} relays"
    return Case(name, partial(_run, relays))


def figure(options: Options) -> Figure:
    """Drain a backlog."""
    work = f"drain {options.rows:,} rows, one relay"
    return Figure(
        "relay",
        (bare.case(bare.SEND), bare.case(bare.BATCH), case()),
        (
            Row(work, ONE, "rows_per_s", "rows/s", bare.SEND, goal=at_least(1.8, aim=2.2)),
            Row(work, ONE, "rows_per_s", "rows/s", bare.BATCH, goal=at_least(0.45)),
            Row("CPU of the relay", ONE, "cpu_measured_us", "us/row"),
            Row("CPU of PostgreSQL", ONE, "cpu_postgres_us", "us/row"),
            Row("CPU of Kafka", ONE, "cpu_kafka_us", "us/row"),
            *(
                Row(f"time in {step}, per 1,000 rows (steps overlap)", ONE, f"{step}_ms", "ms")
                for step in STEPS
            ),
            Row("heap-only updates", ONE, "hot_share", "of all", goal=at_least(0.95, on="value")),
            Row("left pending", ONE, "pending", "rows", goal=at_most(0)),
        ),
    )


def _run(relays: int, bench: Bench) -> Sample:
    return drain(bench, Backlog(bench.options.rows, relays))

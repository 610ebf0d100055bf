"""What aiokafka alone can do with the same records: what the relay is compared with."""

from functools import partial

from benchmarks.harness.machine import Meter
from benchmarks.harness.model import Bench, Case, Figure, Options, Row, Sample
from benchmarks.harness.topics import read_back, topic
from benchmarks.harness.worker import Worker

SEND = "send() loop"
BATCH = "send_batch() loop"


def case(name: str) -> Case:
    """Give the case of one of the bare, for whoever compares with it."""
    module = {SEND: "benchmarks.measured.send_loop", BATCH: "benchmarks.measured.batch_loop"}[name]
    return Case(name, partial(_run, module))


def figure(options: Options) -> Figure:
    """Report both."""
    work = f"{options.rows:,} records of 300 bytes, no database"
    return Figure(
        "bare",
        (case(SEND), case(BATCH)),
        tuple(
            row
            for name in (SEND, BATCH)
            for row in (
                Row(f"{name}: {work}", name, "rows_per_s", "rows/s"),
                Row(f"{name}: CPU of the producer", name, "cpu_measured_us", "us/row"),
                Row(f"{name}: CPU of Kafka", name, "cpu_kafka_us", "us/row"),
            )
        ),
    )


def _run(module: str, bench: Bench) -> Sample:
    rows = bench.options.rows
    kafka = bench.addresses.kafka
    with topic(kafka) as name:
        with Worker(module, kafka, name, rows) as worker:
            worker.hear()
            meter = Meter(bench.addresses, [worker.pid])
            before = meter.read()
            worker.say("go")
            worker.hear()
            after = meter.read()
            worker.say("end")
        verdict = read_back(kafka, name, rows)
    values = {"rows_per_s": rows / (after.at - before.at), **before.until(after, rows)}
    return Sample(values, verdict)

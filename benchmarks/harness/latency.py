"""From the return of a commit to the consumer: writer, relay and consumer are processes."""

import statistics
import threading
from collections.abc import Sequence
from typing import Any

from benchmarks.harness.model import Bench, Row, Sample, at_most
from benchmarks.harness.topics import read_back
from benchmarks.harness.worker import Worker

WARM_UP = 20
_SILENCE_SECONDS = 20


def rows(work: str, case: str, against: str | None = None, *, goals: bool = True) -> list[Row]:
    """Make the lines of one latency case."""
    p50, p99 = (at_most(5, aim=3), at_most(10, aim=8)) if goals else (None, None)
    return [
        Row(f"{work}: p50", case, "p50_ms", "ms", against, goal=p50),
        Row(f"{work}: p99", case, "p99_ms", "ms", against, goal=p99),
        Row(f"{work}: max", case, "max_ms", "ms", against),
    ]


def measure(bench: Bench, writer: Worker, topic: str, count: int) -> Sample:
    """Let a writer that is ready write, and compare when it committed with when it was read.

    Args:
        bench: for the servers.
        writer: tells the moments of its commits, by record.
        topic: where the records appear.
        count: of the records that count; `WARM_UP` others come before them.
    """
    kafka = bench.addresses.kafka
    with Worker(
        "benchmarks.measured.reader", kafka, topic, WARM_UP, count, _SILENCE_SECONDS
    ) as reader:
        reader.hear()
        reader.say("go")
        writer.say("go")
        # Each tells many numbers at once: neither may wait for the other to be heard.
        read: list[dict[str, Any]] = []
        hearing = threading.Thread(target=lambda: read.append(reader.hear()))
        hearing.start()
        committed = writer.hear()["at"]
        hearing.join()
        reader.say("end")
        writer.say("end")
    verdict = read_back(kafka, topic, WARM_UP + count)
    return Sample(_quantiles(committed, read[0]["at"]), verdict)


def _quantiles(committed: Sequence[float], read: Sequence[float | None]) -> dict[str, float]:
    took = [
        (seen - at) * 1000 for at, seen in zip(committed, read, strict=True) if seen is not None
    ]
    if len(took) < 2:
        return {"p50_ms": float("inf"), "p99_ms": float("inf"), "max_ms": float("inf")}
    cuts = statistics.quantiles(took, n=100, method="inclusive")
    return {"p50_ms": cuts[49], "p99_ms": cuts[98], "max_ms": max(took)}

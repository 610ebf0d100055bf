"""Draining a backlog through relays that stand ready when it appears.

The rows are written in one transaction that commits at the word go: relays have connected, shared
the buckets and found nothing so far. The clock stops when the last row is marked as sent.
"""

import contextlib
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.harness.machine import Meter
from benchmarks.harness.model import Bench, Sample
from benchmarks.harness.outbox import OutboxDatabase, outbox, publish_before, write
from benchmarks.harness.told import Progress
from benchmarks.harness.topics import read_back, topic
from benchmarks.harness.worker import Worker, progress_files, reading
from lethe_outbox import BUCKETS

_LOOK_SECONDS = 0.002
_MEMORY_SECONDS = 0.05
_PATIENCE_SECONDS = 900


@dataclass(frozen=True, slots=True)
class Backlog:
    """What is to be drained.

    Attributes:
        rows: that wait.
        relays: that share them.
        sent_before: rows that were published earlier and still stand in the table.
    """

    rows: int
    relays: int = 1
    sent_before: int = 0


@dataclass(frozen=True, slots=True)
class Team:
    """Relays at work."""

    workers: Sequence[Worker]
    progress: Sequence[Progress]

    def done(self) -> int:
        """How many rows are marked as sent."""
        return sum(one.get()[1] for one in self.progress)

    def end(self) -> list[dict[str, Any]]:
        """Stop all of them and give what each tells of its counters."""
        for worker in self.workers:
            worker.say("end")
        return [worker.hear() for worker in self.workers]

    def settled(self) -> bool:
        """Whether all buckets are owned, in about fair shares."""
        owned = [one.get()[0] for one in self.progress]
        fair = BUCKETS / len(owned)
        return sum(owned) == BUCKETS and all(abs(one - fair) < fair / 2 for one in owned)

    def wait(self, until: Callable[[], bool], seconds: float, look: float) -> None:
        """Look every `look` seconds whether something holds, for at most `seconds`."""
        deadline = time.monotonic() + seconds
        while not until():
            if time.monotonic() > deadline:
                raise TimeoutError("the relays do not get there")
            for worker in self.workers:
                worker.check()
            time.sleep(look)


def drain(bench: Bench, backlog: Backlog) -> Sample:
    """Measure one drain, and read the topic back."""
    kafka = bench.addresses.kafka
    with topic(kafka, dead_letters=True) as name, outbox(bench.addresses) as database:
        with database.connect() as connection:
            if backlog.sent_before:
                publish_before(connection, name, backlog.sent_before)
            connection.execute("BEGIN")
            write(connection, name, backlog.rows, first=0)
            with database.connect() as another:
                another.execute("CHECKPOINT")
            with relays(bench, database, backlog.relays) as team:
                values, shares, memory = _measure(
                    bench, team, lambda: connection.execute("COMMIT"), backlog.rows
                )
                told = team.end()
        values["hot_share"] = database.hot_share()
        values["pending"] = database.pending()
        verdict = read_back(kafka, name, backlog.rows)
    details = {"shares": shares, "memory_mb": memory, "told": told}
    return Sample(values, verdict, details)


@contextlib.contextmanager
def relays(bench: Bench, database: OutboxDatabase, count: int) -> Iterator[Team]:
    """Start relays and wait until they share the buckets."""
    with progress_files(count) as paths, contextlib.ExitStack() as stack:
        workers = [
            stack.enter_context(
                Worker("benchmarks.measured.relay", database.url, bench.addresses.kafka, path)
            )
            for path in paths
        ]
        for worker in workers:
            worker.hear()
        team = Team(workers, stack.enter_context(reading(paths)))
        team.wait(team.settled, 60, 0.05)
        yield team


def _measure(
    bench: Bench, team: Team, commit: Callable[[], object], rows: int
) -> tuple[dict[str, float], list[float], list[float]]:
    """Give the values, each relay's share of the rows, and resident memory over time."""
    meter = Meter(bench.addresses, [worker.pid for worker in team.workers])
    memory: list[float] = []
    first: list[float] = []

    def through() -> bool:
        now = time.perf_counter()
        if now - before.at >= _MEMORY_SECONDS * len(memory):
            memory.append(round(meter.resident_mb(), 1))
        done = team.done()
        if done and not first:
            first.append(now)
        return done >= rows

    os.sync()
    before = meter.read()
    commit()
    for worker in team.workers:
        worker.say("go")
    team.wait(through, _PATIENCE_SECONDS, _LOOK_SECONDS)
    after = meter.read()
    done = [one.get()[1] for one in team.progress]
    seconds = after.at - before.at
    values = {
        "rows_per_s": rows / seconds,
        "first_s": first[0] - before.at,
        "peak_mb": max(memory),
        "growth": _growth(memory),
        "least_share": min(done) / rows * len(done),
        "largest_share": max(done) / rows * len(done),
        **before.until(after, rows),
    }
    return values, [one / rows for one in done], memory


def _growth(memory: Sequence[float]) -> float:
    """Compare the last quarter of the time with the second: 1 is flat."""
    quarter = max(1, len(memory) // 4)
    early = memory[quarter : 2 * quarter] or memory
    late = memory[-quarter:]
    return (sum(late) / len(late)) / (sum(early) / len(early))

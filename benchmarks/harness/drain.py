"""Draining a backlog through relays that stand ready when it appears.

Relays have connected, shared the buckets and published one record of every key. The backlog is
written in one transaction that commits at the word go; the clock stops when its last row is marked
as sent.
"""

import contextlib
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.harness.machine import Meter
from benchmarks.harness.model import Bench, Sample
from benchmarks.harness.outbox import OutboxDatabase, outbox, publish_before, write
from benchmarks.harness.records import KEYS
from benchmarks.harness.told import Progress
from benchmarks.harness.topics import read_back, topic
from benchmarks.harness.worker import Worker, progress_files, reading
from lethe_outbox import BUCKETS

WARM_UP = KEYS
STEPS = ("look", "fetch", "encode", "publish", "acknowledge")
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

    def wake(self) -> None:
        """Give each the hint that there is something."""
        for worker in self.workers:
            worker.say("go")

    def end(self) -> list[dict[str, float]]:
        """Stop all of them and give by how much their totals grew since the word go."""
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
            # Progress stands in shared memory, and nobody tells of it.
            time.sleep(look)


def drain(bench: Bench, backlog: Backlog) -> Sample:
    """Measure one drain, and read the topic back."""
    kafka = bench.addresses.kafka
    with topic(kafka, dead_letters=True) as name, outbox(bench.addresses) as database:
        with database.connect() as connection:
            if backlog.sent_before:
                publish_before(connection, name, backlog.sent_before)
            with relays(bench, database, backlog.relays) as team:
                write(connection, name, WARM_UP)
                team.wake()
                team.wait(lambda: team.done() == WARM_UP, 60, 0.01)
                connection.execute("BEGIN")
                write(connection, name, backlog.rows, first=WARM_UP)
                with database.connect() as another:
                    another.execute("CHECKPOINT")
                values, details = _measure(
                    bench, team, lambda: connection.execute("COMMIT"), backlog.rows
                )
                totals = team.end()
                details["totals"] = totals
                values.update(_steps(totals, backlog.rows))
        values["hot_share"] = database.hot_share()
        values["pending"] = database.pending()
        verdict = read_back(kafka, name, WARM_UP + backlog.rows)
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
) -> tuple[dict[str, float], dict[str, Any]]:
    """Give the values and the details: each relay's share, and resident memory over time."""
    meter = Meter(bench.addresses, [worker.pid for worker in team.workers])
    memory: list[float] = []
    first: list[tuple[float, int]] = []

    def through() -> bool:
        now = time.perf_counter()
        if now - before.at >= _MEMORY_SECONDS * len(memory):
            memory.append(round(meter.resident_mb(), 1))
        done = team.done() - WARM_UP
        if done and not first:
            first.append((now, done))
        return done >= rows

    earlier = [one.get()[1] for one in team.progress]
    os.sync()
    before = meter.read()
    commit()
    team.wake()
    team.wait(through, _PATIENCE_SECONDS, _LOOK_SECONDS)
    after = meter.read()
    done = [one.get()[1] - was for one, was in zip(team.progress, earlier, strict=True)]
    seconds = after.at - before.at
    values = {
        "rows_per_s": rows / seconds,
        "first_s": first[0][0] - before.at,
        "steady_rows_per_s": (rows - first[0][1]) / max(after.at - first[0][0], _LOOK_SECONDS),
        "peak_mb": max(memory),
        "growth": _growth(memory),
        "least_share": min(done) / rows * len(done),
        "largest_share": max(done) / rows * len(done),
        **before.until(after, rows),
    }
    return values, {"shares": [one / rows for one in done], "memory_mb": memory}


def _steps(totals: Sequence[Mapping[str, float]], rows: int) -> dict[str, float]:
    """Give the milliseconds spent in each step per 1,000 rows, of all relays; steps overlap."""
    names = {step: f"relay_step_seconds_sum{step}" for step in STEPS}
    names["publish"] = "relay_publish_seconds_sum"
    return {
        f"{step}_ms": sum(one.get(name, 0.0) for one in totals) / rows * 1e6
        for step, name in names.items()
    }


def _growth(memory: Sequence[float]) -> float:
    """Compare the last quarter of the time with the second: 1 is flat."""
    quarter = max(1, len(memory) // 4)
    early = memory[quarter : 2 * quarter] or memory
    late = memory[-quarter:]
    return (sum(late) / len(late)) / (sum(early) / len(early))

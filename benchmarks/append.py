"""Transactions per second with `append`, beside the same rows by bare INSERTs."""

from benchmarks.harness.model import Bench, Case, Figure, Options, Row, Sample, at_least
from benchmarks.harness.outbox import BUSINESS, outbox
from benchmarks.harness.worker import Worker

_NAME = "append"
_EVENTS = {"1": "1 event", "10": "10 events of one key", "10_keys": "10 events of ten keys"}
_SHARE = 0.2
"""Of the seconds of other timed cases: there are nine ways to write."""


def figure(options: Options) -> Figure:
    """Measure one connection in turns, all ways in one process."""
    del options
    rows: list[Row] = []
    for events, words in _EVENTS.items():
        base = f"bare_{events}"
        rows += [
            Row(f"{words}: bare INSERT", _NAME, base, "tps"),
            Row(
                f"{words}: append, key lock on",
                *(_NAME, f"locked_{events}", "tps", _NAME, base),
                at_least(0.9),
            ),
            Row(
                f"{words}: append, key lock off",
                *(_NAME, f"unlocked_{events}", "tps", _NAME, base),
            ),
        ]
    return Figure(_NAME, (Case(_NAME, _run),), tuple(rows))


def _run(bench: Bench) -> Sample:
    with outbox(bench.addresses) as database:
        with database.connect() as connection:
            connection.execute(BUSINESS)
        seconds = bench.options.seconds * _SHARE
        with Worker("benchmarks.measured.append", database.url, seconds) as worker:
            worker.hear()
            worker.say("go")
            values = worker.hear()
            worker.say("end")
    return Sample(values)

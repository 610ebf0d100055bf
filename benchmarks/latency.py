"""From the return of a business transaction's commit to the consumer, through one relay."""

from functools import partial

from benchmarks.harness import latency
from benchmarks.harness.drain import relays
from benchmarks.harness.model import Bench, Case, Figure, Options, Row, Sample
from benchmarks.harness.outbox import BUSINESS, outbox
from benchmarks.harness.topics import topic
from benchmarks.harness.worker import Worker

RATES = (200, 2)


def case(rate: int, *, hint: bool) -> Case:
    """Give one case, for whoever compares with it."""
    return Case(_name(rate, hint=hint), partial(_run, rate, hint), None if rate == RATES[0] else 1)


def figure(options: Options) -> Figure:
    """Measure both rates, with and without the hint."""
    ways = [(rate, hint) for rate in RATES for hint in (True, False)]
    if options.quick:
        ways = ways[:1]
    rows: list[Row] = []
    for rate, hint in ways:
        work = f"{rate}/s for {options.seconds:g} s, {'with' if hint else 'without'} hint"
        rows += latency.rows(work, _name(rate, hint=hint), goals=hint or rate == RATES[0])
    return Figure("latency", tuple(case(rate, hint=hint) for rate, hint in ways), tuple(rows))


def _name(rate: int, *, hint: bool) -> str:
    return f"latency at {rate}/s{'' if hint else ' without hint'}"


def _run(rate: int, hint: bool, bench: Bench) -> Sample:  # noqa: FBT001 - bound by name above
    count = int(rate * bench.options.seconds)
    kafka = bench.addresses.kafka
    with topic(kafka, dead_letters=True) as name, outbox(bench.addresses) as database:
        with database.connect() as connection:
            connection.execute(BUSINESS)
        with (
            relays(bench, database, 1) as team,
            Worker(
                "benchmarks.measured.writer",
                *(database.url, name, rate, count, latency.WARM_UP, "hint" if hint else "none"),
            ) as writer,
        ):
            writer.hear()
            sample = latency.measure(bench, writer, name, count)
            team.end()
    return sample

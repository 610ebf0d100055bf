"""txoutbox 0.2.2: its throughput at its defaults and at its best, and its latency with its trigger.

Its best (by measuring): as many rows claimed and sent at once as there is use for. "Without order"
gives up what the relay promises, and sent rows are deleted instead of marked.
"""

from functools import partial

from benchmarks import latency as own_latency
from benchmarks import relay
from benchmarks.harness import latency
from benchmarks.harness.model import Bench, Case, Figure, Options, Row, Sample, at_least
from benchmarks.harness.outbox import BUSINESS
from benchmarks.harness.servers import database
from benchmarks.harness.topics import topic
from benchmarks.harness.worker import Worker
from benchmarks.peers.python_peers import HEADERS_JSON, TXOUTBOX, Setting, drain, prepare, start

_WIDE = {"batch_size": 2000, "concurrency": 2000}
SETTINGS = {
    "txoutbox, defaults": Setting(10_000, {"config": {}}),
    "txoutbox, best": Setting(50_000, {"config": _WIDE}),
    "txoutbox, best without order": Setting(
        50_000, {"config": _WIDE, "strict": False, "delete": True}
    ),
}
BEST = "txoutbox, best"
_INSERT = (
    "INSERT INTO outbox (topic, key, payload, headers)"
    f" VALUES (%(topic)s, %(key)s, %(payload)s, '{HEADERS_JSON}')"
)


def figure(options: Options) -> Figure:
    """Drain, and pass events on as they come."""
    drains = [Case(name, partial(drain, TXOUTBOX, one)) for name, one in SETTINGS.items()]
    waits = [Case(_name(rate), partial(_run, rate)) for rate in own_latency.RATES]
    rows = [Row(f"drain, {name}", name, "rows_per_s", "rows/s") for name in SETTINGS]
    rows.append(
        Row(
            f"drain {options.rows:,} rows, one relay, against txoutbox",
            *(relay.ONE, "rows_per_s", "rows/s", BEST),
            goal=at_least(10),
        )
    )
    for rate in own_latency.RATES:
        rows += latency.rows(f"{rate}/s, txoutbox with its trigger", _name(rate), goals=False)
    ours = [own_latency.case(rate, hint=True) for rate in own_latency.RATES]
    for case, rate in zip(ours, own_latency.RATES, strict=True):
        rows += latency.rows(f"{rate}/s, one relay", case.name, _name(rate))
    return Figure("txoutbox", (relay.case(), *drains, *ours, *waits), tuple(rows))


def _name(rate: int) -> str:
    return f"txoutbox latency at {rate}/s"


def _run(rate: int, bench: Bench) -> Sample:
    count = int(rate * bench.options.seconds)
    kafka = bench.addresses.kafka
    with topic(kafka) as name, database(bench.addresses) as own:
        plain = bench.addresses.database_url(own, driver="")
        options = {"url": plain, "bootstrap": kafka, "topic": name, "config": {}, "notify": True}
        prepare(TXOUTBOX, options)
        with (
            start(TXOUTBOX, "serve", options) as serving,
            Worker(
                "benchmarks.measured.plain_writer",
                *(plain, BUSINESS, _INSERT, name, rate, count, latency.WARM_UP),
            ) as writer,
        ):
            serving.hear()
            writer.hear()
            sample = latency.measure(bench, writer, name, count)
            serving.say("end")
    return sample

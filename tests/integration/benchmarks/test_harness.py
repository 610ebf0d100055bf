"""The harness itself, at its smallest: what it writes, and that nothing is lost on the way."""

import dataclasses
import json
from contextlib import ExitStack
from pathlib import Path

from benchmarks.__main__ import FIGURES, PEERS, QUICK
from benchmarks.harness import report
from benchmarks.harness.machine import facts
from benchmarks.harness.model import Bench, Kept
from benchmarks.harness.run import run
from lethe_sandbox.stack import Addresses

MEASURED = ("relay", "latency", "append", "consumer")


def test_a_run_writes_every_figure_and_loses_nothing(stack: Addresses, tmp_path: Path) -> None:
    figures = [FIGURES[name](QUICK) for name in MEASURED]
    with ExitStack() as kept:
        bench = Bench(stack, QUICK, lambda _: None, Kept(kept))
        outcome = run(figures, bench)
    made = report.lines(figures, outcome.samples)
    file = tmp_path / "run.json"
    options = dataclasses.asdict(QUICK)
    content = report.document(
        made, outcome.samples, outcome.failures, machine=facts(stack), options=options
    )
    report.write(file, content)
    written = json.loads(file.read_text())

    assert written["failures"] == {}
    assert written["unclean"] == []
    judged = [one["verdict"] for found in written["samples"].values() for one in found]
    assert sum(verdict is not None for verdict in judged) == len(
        ("send", "batch", "relay", "latency")
    )
    assert {one["figure"] for one in written["lines"]} == set(MEASURED)
    for one in written["lines"]:
        assert one["value"]["min"] <= one["value"]["median"] <= one["value"]["max"]
        assert (one["ratio"] is None) == (one["against"] is None)
        assert (one["reached"] is None) == (one["goal"] is None)
    values = {(one["case"], one["metric"]): one["value"]["median"] for one in written["lines"]}
    assert values["one relay", "rows_per_s"] > 0
    assert values["one relay", "pending"] == 0
    assert values["consumer with inbox", "lost"] == 0
    assert written["machine"]["cores"] >= 1
    assert written["machine"]["postgres"]["server_version"].startswith("18")


def test_every_line_of_every_figure_names_a_case_of_its_figure() -> None:
    for figure in [make(QUICK) for make in (*FIGURES.values(), *PEERS.values())]:
        cases = {case.name for case in figure.cases}
        for row in figure.rows:
            assert row.case in cases, row
            assert row.against is None or row.against in cases, row

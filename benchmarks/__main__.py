"""`python -m benchmarks`: run the figures in turn, print the table, write the file."""

import dataclasses
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from datetime import timedelta
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from benchmarks import (
    append,
    backlog,
    bare,
    consumer,
    erasure,
    latency,
    product_latency,
    relay,
    relays,
)
from benchmarks.harness import report
from benchmarks.harness.machine import facts
from benchmarks.harness.model import Bench, Figure, Kept, Options
from benchmarks.harness.run import run
from benchmarks.harness.servers import servers
from benchmarks.peers import debezium, faststream_outbox, txoutbox

FIGURES: dict[str, Callable[[Options], Figure]] = {
    "bare": bare.figure,
    "relay": relay.figure,
    "relays": relays.figure,
    "backlog": backlog.figure,
    "latency": latency.figure,
    "append": append.figure,
    "consumer": consumer.figure,
    "product_latency": product_latency.figure,
    "erasure": erasure.figure,
}
PEERS: dict[str, Callable[[Options], Figure]] = {
    "txoutbox": txoutbox.figure,
    "faststream_outbox": faststream_outbox.figure,
    "debezium": debezium.figure,
}

_PLAIN = Options()
QUICK = Options(rows=2_000, repeats=1, seconds=1, scale=0.01, quick=True)
Name = StrEnum("Name", {name: name for name in (*FIGURES, *PEERS)})  # type: ignore[misc] # the figures' names


def main(
    *,
    only: Annotated[list[Name] | None, typer.Option(help="These figures instead of all.")] = None,
    rows: Annotated[int, typer.Option(min=1000, help="Rows of the backlog.")] = _PLAIN.rows,
    repeats: Annotated[int, typer.Option(min=1, help="Runs of each case.")] = _PLAIN.repeats,
    seconds: Annotated[float, typer.Option(min=1, help="Of timed cases.")] = _PLAIN.seconds,
    scale: Annotated[float, typer.Option(min=0.001, help="Of the heavy person.")] = _PLAIN.scale,
    full: Annotated[bool, typer.Option(help="The largest backlogs too.")] = False,
    peers: Annotated[bool, typer.Option(help="The peers instead; see benchmarks/peers.")] = False,
    quick: Annotated[bool, typer.Option(help="Only show that it works.")] = False,
    output: Annotated[Path | None, typer.Option(help="The file; results/ by default.")] = None,
) -> None:
    """Measure, each figure beside its base in the same run."""
    console = Console(width=None if sys.stdout.isatty() else 160)
    options = QUICK if quick else Options(rows, repeats, seconds, scale, full)
    known = {**FIGURES, **PEERS}
    figures = [known[name](options) for name in (only or (PEERS if peers else FIGURES))]
    started = time.monotonic()
    needs_peers = any(figure.name in PEERS for figure in figures)
    with servers(console, logical=needs_peers) as addresses, ExitStack() as stack:
        machine = facts(addresses)
        bench = Bench(addresses, options, console.print, Kept(stack))
        outcome = run(figures, bench)
    made = report.lines(figures, outcome.samples)
    content = report.document(
        made,
        outcome.samples,
        outcome.failures,
        machine=machine,
        options=dataclasses.asdict(options),
    )
    path = output or report.RESULTS / f"{_file_name(only, peers=peers, quick=quick)}.json"
    report.write(path, content)
    report.show(console, made)
    took = timedelta(seconds=round(time.monotonic() - started))
    console.print(f"{took}, written to {path}")
    wrong = [*content["unclean"], *(f"{case}: {why}" for case, why in outcome.failures.items())]
    if wrong:
        console.print(*wrong, sep="\n", style="red", markup=False)
        raise typer.Exit(1)


def _file_name(only: list[Name] | None, *, peers: bool, quick: bool) -> str:
    """Keep what the page shows apart from what was tried."""
    name = "-".join(only) if only else "peers" if peers else "latest"
    return f"quick-{name}" if quick else name


if __name__ == "__main__":
    typer.run(main)

"""`python -m benchmarks`: run them all, or one, print the table, write the files."""

from enum import StrEnum
from typing import Annotated

import typer
from rich.console import Console

from benchmarks import erasure, latency, relay
from benchmarks.figure import Figure, show, write
from benchmarks.servers import servers


class Name(StrEnum):
    """What can be measured."""

    RELAY = "relay"
    ERASURE = "erasure"
    LATENCY = "latency"


def main(
    only: Annotated[Name | None, typer.Option(help="One benchmark instead of all.")] = None,
    rows: Annotated[int, typer.Option(min=1000, help="Rows of the relay's backlog.")] = 300_000,
    scale: Annotated[float, typer.Option(min=0.001, help="Size of the heavy person.")] = 1.0,
    seconds: Annotated[int, typer.Option(min=2, help="How long requests are submitted.")] = 20,
) -> None:
    """Measure, each figure against the floor of the same run."""
    console = Console()
    measured: list[Figure] = []
    for name in Name if only is None else (only,):
        with servers(console) as addresses:
            match name:
                case Name.RELAY:
                    figures = relay.run(console, addresses, rows=rows)
                case Name.ERASURE:
                    figures = erasure.run(console, addresses, scale=scale)
                case Name.LATENCY:
                    figures = latency.run(console, addresses, seconds=seconds)
        console.print(f"Written to {write(name, figures)}")
        measured += figures
    show(console, measured)


if __name__ == "__main__":
    typer.run(main)

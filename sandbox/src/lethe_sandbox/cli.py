"""`lethe demo`, and the group `lethe sandbox`."""

import json
import os
from typing import Annotated, Final

import typer
from rich.console import Console

from lethe_sandbox import demo as demonstration
from lethe_sandbox.progress import ConsoleScreen
from lethe_sandbox.seed import DEFAULT_SCALE, DEFAULT_SEED, LARGEST_SCALE, SMALLEST_SCALE
from lethe_sandbox.services import create_databases
from lethe_sandbox.stack import (
    KEPT,
    Addresses,
    Folders,
    Instance,
    StackKind,
    open_stack,
    read,
    sweep,
)

_WIDTH: Final = 120

Scale = Annotated[
    float,
    typer.Option(
        min=SMALLEST_SCALE,
        max=LARGEST_SCALE,
        help="How much data: 1.0 is one person with 28,000 requests and 200 ordinary ones.",
    ),
]
Seed = Annotated[int, typer.Option(min=0, help="The same seed gives the same data.")]
Kind = Annotated[
    StackKind, typer.Option("--stack", help="What the servers run on: processes or containers.")
]

sandbox = typer.Typer(
    help="The servers of Lethe on this machine, for trying things out.", no_args_is_help=True
)


class SandboxError(Exception):
    """The command makes no sense now; the message says what would."""


def demo(
    *,
    keep: Annotated[
        bool, typer.Option("--keep", help="Leave everything running and print the addresses.")
    ] = False,
    scale: Scale = DEFAULT_SCALE,
    seed: Seed = DEFAULT_SEED,
    stack: Kind = "embedded",
) -> None:
    """Run the whole product on real servers, erase people, and audit the result."""
    options = demonstration.Options(keep=keep, scale=scale, seed=seed, stack=stack)
    with ConsoleScreen(_console()) as screen:
        demonstration.run(options, screen)


@sandbox.command()
def up(*, stack: Kind = "embedded") -> None:
    """Start PostgreSQL, Kafka, Redis and S3 and leave them running."""
    folders = Folders.of_checkout()
    sweep(folders)
    with (
        ConsoleScreen(_console()) as screen,
        open_stack(
            stack, Instance(folders, KEPT, kept=True).claim(), folders, say=screen.step
        ) as running,
    ):
        create_databases(running.addresses)
        for line in demonstration.describe(running.addresses):
            screen.step(f"  {line}")
        screen.step("`.venv/bin/lethe sandbox seed` fills it, `make down` stops it")
        screen.step("`.venv/bin/lethe sandbox status --json` has the passwords")


@sandbox.command()
def down() -> None:
    """Stop what `up` or `lethe demo --keep` left running, and remove its data."""
    folders = Folders.of_checkout()
    instance = Instance(folders, KEPT, kept=True)
    if instance.adopt() is None:
        typer.echo("nothing is up")
        return
    instance.discard()
    typer.echo("stopped and removed")


@sandbox.command()
def status(
    *, as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False
) -> None:
    """Show what is up and where; exit code 1 if nothing is."""
    recorded = read(Folders.of_checkout().instances / KEPT)
    running = {
        name: process.pid
        for name, process in (recorded.processes if recorded else {}).items()
        if process.alive()
    }
    if as_json:
        where = recorded.addresses.as_dict() if recorded and recorded.addresses else None
        typer.echo(json.dumps({"running": running, "addresses": where}))
    elif recorded is None or not running:
        typer.echo("nothing is up")
    else:
        for name in recorded.processes:
            typer.echo(f"{name:<10}" + (f"pid {running[name]}" if name in running else "ended"))
        if recorded.addresses:
            typer.echo("\n".join(demonstration.describe(recorded.addresses)))
    if not running:
        raise typer.Exit(1)


@sandbox.command("seed")
def seed_sandbox(*, scale: Scale = DEFAULT_SCALE, seed: Seed = DEFAULT_SEED) -> None:
    """Fill the running sandbox with the sample product, in place of what it has."""
    folders = Folders.of_checkout()
    addresses = _addresses(folders)
    with ConsoleScreen(_console()) as screen:
        folder = folders.instances / KEPT
        demonstration.seed_into(addresses, folder, scale=scale, number=seed, note=screen.note)
        screen.step(f"what is true of it: {folder / demonstration.GROUND_TRUTH}")


def _console() -> Console:
    """Write to a terminal as wide as it is, and elsewhere wide enough for the audit's table."""
    console = Console()
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = _WIDTH
    return console


def _addresses(folders: Folders) -> Addresses:
    recorded = read(folders.instances / KEPT)
    if recorded is None or recorded.addresses is None:
        raise SandboxError("nothing is up: `lethe sandbox up` starts it")
    return recorded.addresses

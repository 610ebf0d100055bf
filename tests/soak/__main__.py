"""The long version of the fault suite, by hand: `python -m tests.soak --rows N`."""

import argparse
import asyncio
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from lethe_sandbox.stack import Folders, Instance, open_stack
from tests.soak.run import Asked, soak

DATABASE = "soak"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a soak on servers of its own; 1 if anything is wrong."""
    asked = _asked(arguments)
    folders = Folders.of_checkout()
    with tempfile.TemporaryDirectory(prefix="lethe-soak-") as folder:
        stack = open_stack("embedded", Instance.claim_any(folders, "soak"), folders)
        with stack:
            result = asyncio.run(soak(stack, DATABASE, asked, Path(folder), say=_say))
        _say(f"\n{datetime.now(UTC):%Y-%m-%d}, {os.cpu_count()} cores, {platform.platform()}")
        _say(result.told)
        for problem in result.problems:
            _say(f"WRONG: {problem}")
        _say(f"verdict: {f'{len(result.problems)} problems' if result.problems else 'clean'}")
        if result.problems:
            kept = folders.base / "logs" / f"soak-{datetime.now(UTC):%Y%m%dT%H%M%S}"
            shutil.copytree(folder, kept)
            _say(f"what the relays and the consumer logged: {kept}")
    return 1 if result.problems else 0


def _asked(arguments: Sequence[str] | None) -> Asked:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--rows", type=int, default=200_000, help="events to write")
    parser.add_argument("--keys", type=int, default=2000, help="keys they belong to")
    parser.add_argument("--relays", type=int, default=2, help="relays at work at a time")
    parser.add_argument("--pause", type=float, default=6, help="longest pause between two faults")
    parser.add_argument("--poison-every", type=int, default=5000, help="rows of a writer")
    parser.add_argument("--patience", type=float, default=900, help="seconds to drain at the end")
    parser.add_argument("--seed", type=int, default=1, help="of what happens when")
    return Asked(**vars(parser.parse_args(arguments)))


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())

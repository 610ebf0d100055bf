"""A real process of the product that begins at once: forked from one that has imported its code."""

import multiprocessing
import os
import signal
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Final

from lethe_runtime.cli import main

_FORKS: Final = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(["lethe_runtime.cli", "lethe_eraser.cli"])


@contextmanager
def forked(environment: Mapping[str, str], log: Path, *arguments: str) -> Iterator[BaseProcess]:
    """Run `lethe ARGUMENTS` in a process of its own until SIGKILL ends it, and the block.

    Raises AssertionError if it ended before.
    """
    process = _FORKS.Process(target=_run, args=(dict(environment), str(log), arguments))
    process.start()
    try:
        yield process
    finally:
        process.kill()
        process.join()
        ended = process.exitcode
        process.close()
    assert ended == -signal.SIGKILL, f"it ended by itself with {ended}"


def _run(environment: Mapping[str, str], log: str, arguments: tuple[str, ...]) -> None:
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(file, stream)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = ["lethe", *arguments]
    main()

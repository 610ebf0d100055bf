"""The harness's end of a measured process."""

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from benchmarks.harness.told import PROGRESS, Progress

ROOT = Path(__file__).parents[2]
_PATIENCE_SECONDS = 60


class WorkerError(Exception):
    """A measured process ended without an answer; its own words are on standard error."""


class Worker:
    """One measured process, `python -m MODULE ARGUMENTS`, started at once.

    Args:
        module: what it runs.
        arguments: of the module.
        python: whose packages it sees; None for this one's.
    """

    def __init__(self, module: str, *arguments: object, python: Path | None = None) -> None:
        self._module = module
        self._process = subprocess.Popen(
            [str(python or sys.executable), "-m", module, *map(str, arguments)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    @property
    def pid(self) -> int:
        """Its process."""
        return self._process.pid

    def hear(self) -> dict[str, Any]:
        """Wait for its next line.

        Raises:
            WorkerError: it ended instead.
        """
        if self._process.stdout is None:
            raise WorkerError(f"{self._module} has no output")
        line = self._process.stdout.readline()
        if not line:
            raise WorkerError(f"{self._module} ended without an answer")
        told: dict[str, Any] = json.loads(line)
        return told

    def say(self, word: str) -> None:
        """Give it a word, as `go` or `end`."""
        if self._process.stdin is None:
            raise WorkerError(f"{self._module} has no input")
        self._process.stdin.write(word + "\n")
        self._process.stdin.flush()

    def check(self) -> None:
        """Raise WorkerError when it has ended."""
        if self._process.poll() is not None:
            raise WorkerError(f"{self._module} ended by itself")

    def finish(self) -> None:
        """Wait for its end.

        Raises:
            WorkerError: it failed.
        """
        if self._process.wait(_PATIENCE_SECONDS):
            raise WorkerError(f"{self._module} failed")

    def __enter__(self) -> Self:
        """Use it until the end of the block."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Wait for its end; after an error, do not wait."""
        if error is not None:
            self._process.kill()
        if self._process.stdin is not None:
            self._process.stdin.close()
        try:
            self._process.wait(_PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()


@contextmanager
def progress_files(count: int) -> Iterator[list[Path]]:
    """Give `count` files in which measured processes tell how far they are."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        paths = [Path(folder) / str(n) for n in range(count)]
        for path in paths:
            path.write_bytes(bytes(PROGRESS.size))
        yield paths


@contextmanager
def reading(paths: list[Path]) -> Iterator[list[Progress]]:
    """Open progress files."""
    found = [Progress(path) for path in paths]
    try:
        yield found
    finally:
        for one in found:
            one.__exit__(None, None, None)

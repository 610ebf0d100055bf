"""Real processes that begin at once: forked from one that has imported everything, but ran nothing.

What a signal does to them is what it does to any process. `tests/integration/compose` starts the
services as Python does, imports and all.
"""

import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from lethe_runtime.cli import main
from tests.support.tools import environment

_FORKS: Final = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(
    [
        # Every child imports the main module of this process again.
        "pytest",
        "lethe_runtime.cli",
        "lethe_intake.cli",
        "lethe_relay.cli",
        "lethe_eraser.cli",
        "lethe_reporting.cli",
        "lethe_reporting.dlt_cli",
        "tests.support.relay_process",
        "tests.support.consumer_process",
        "tests.support.janitor_process",
    ]
)
_ONCE_SECONDS: Final = 180.0


class Forked:
    """A process, with what tests need of `subprocess.Popen`.

    Args:
        target: a function of a module, and what it is called with; all of it can be pickled.
        out: the file that standard output is added to; it is there at once.
        err: the same for standard error; `out`, if not given.
    """

    def __init__(
        self, target: Callable[..., object], *arguments: object, out: Path, err: Path | None = None
    ) -> None:
        self.args = (target.__name__, *arguments)
        for file in (out, err or out):
            file.touch()
        self._process = _FORKS.Process(
            target=_speaking_to, args=(str(out), str(err or out), target, arguments)
        )
        self._process.start()

    @property
    def pid(self) -> int:
        """Its process id."""
        assert self._process.pid is not None
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        """Its exit code, the negative number of the signal that ended it, or None."""
        return self._process.exitcode

    def poll(self) -> int | None:
        """Say the same."""
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end; raises subprocess.TimeoutExpired."""
        self._process.join(timeout)
        if (code := self._process.exitcode) is None:
            raise subprocess.TimeoutExpired(list(map(str, self.args)), timeout or 0)
        return code

    def send_signal(self, number: int) -> None:
        """Send it a signal, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        """SIGTERM it."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL it."""
        self.send_signal(signal.SIGKILL)


def fork_lethe(
    settings: Mapping[str, str], *arguments: str, out: Path, err: Path | None = None
) -> Forked:
    """Run `lethe ARGUMENTS` with these settings and no others."""
    return Forked(_lethe, {**environment(), **settings}, arguments, out=out, err=err)


def lethe(settings: Mapping[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run `lethe ARGUMENTS` with these settings and no others, to its end."""
    with tempfile.TemporaryDirectory() as folder:
        out, err = Path(folder, "out"), Path(folder, "err")
        process = fork_lethe(settings, *arguments, out=out, err=err)
        try:
            code = process.wait(_ONCE_SECONDS)
        finally:
            process.kill()
            process.wait()
        return subprocess.CompletedProcess(arguments, code, out.read_text(), err.read_text())


@contextmanager
def forked(settings: Mapping[str, str], log: Path, *arguments: str) -> Iterator[Forked]:
    """Run `lethe ARGUMENTS` in a process of its own until SIGKILL ends it, and the block.

    Raises AssertionError if it ended before.
    """
    process = fork_lethe(settings, *arguments, out=log)
    try:
        yield process
    finally:
        process.kill()
        ended = process.wait()
    assert ended == -signal.SIGKILL, f"it ended by itself with {ended}"


def _speaking_to(
    out: str, err: str, target: Callable[..., object], arguments: tuple[Any, ...]
) -> None:
    for stream, path in ((1, out), (2, err)):
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(file, stream)
        os.close(file)
    target(*arguments)


def _lethe(own: Mapping[str, str], arguments: tuple[str, ...]) -> None:
    os.environ.clear()
    os.environ.update(own)
    sys.argv = ["lethe", *arguments]
    main()

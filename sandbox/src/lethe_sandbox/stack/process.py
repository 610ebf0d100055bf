"""Processes that are started, frozen, ended, and found again after their owner died."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Self

_LEASH: Final = Path(__file__).with_name("leash.py")
_POLL_SECONDS: Final = 0.02

# A process on the leash dies when the *thread* that started it ends, so one thread that lives as
# long as this process starts them all.
_SPAWNER: Final = ThreadPoolExecutor(max_workers=1, thread_name_prefix="spawner")


@dataclass(frozen=True, slots=True)
class Account:
    """The user a process runs as."""

    uid: int
    gid: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """What to run and how to end it."""

    argv: Sequence[str]
    folder: Path
    log: Path
    environment: Mapping[str, str]
    account: Account | None = None
    output: Path | None = None
    """Where standard output goes, if not to the log: a file for its owner alone."""
    stop_signal: signal.Signals = signal.SIGTERM
    """Asks for an orderly end."""
    discard_signal: signal.Signals = signal.SIGKILL
    """Ends it when its data is not wanted any more, or when its owner died."""


@dataclass(frozen=True, slots=True)
class Process:
    """One process, known by pid and start time: a reused pid is never mistaken for it."""

    pid: int
    started: int
    """Clock ticks after boot, as /proc gives them."""
    discard_signal: int = signal.SIGKILL
    child: subprocess.Popen[bytes] | None = field(default=None, compare=False, repr=False)

    @classmethod
    def spawn(cls, command: Command, *, detached: bool) -> Self:
        """Start `command`; unless `detached`, it dies with this process."""
        child = _SPAWNER.submit(_spawn, command, detached=detached).result()
        stat = _stat(child.pid)
        started = stat.started if stat else 0
        return cls(child.pid, started, command.discard_signal, child)

    @property
    def exit_code(self) -> int | None:
        """The exit code of a child of this process that ended, else None."""
        return self.child.poll() if self.child else None

    def alive(self) -> bool:
        """Whether it still runs (a process that ended and waits to be reaped does not)."""
        if self.child is not None:
            return self.child.poll() is None
        stat = _stat(self.pid)
        return stat is not None and stat.started == self.started and stat.state != "Z"

    def signal(self, number: int) -> None:
        """Send a signal to it, if it is alive."""
        if self.alive():
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def pause(self) -> None:
        """Freeze it and everything it started."""
        for pid in [self.pid, *_descendants(self.pid)]:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Let it and everything it started go on."""
        for pid in [*_descendants(self.pid), self.pid]:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)

    def kill(self) -> None:
        """SIGKILL it and everything it started, and wait for its end."""
        if not self.alive():
            return
        family = _descendants(self.pid)
        self.signal(signal.SIGKILL)
        for pid in family:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.wait(10)

    def end(self, number: int, patience: float) -> bool:
        """Ask for its end by a signal and wait; after `patience` seconds kill it and say False."""
        self.signal(number)
        self.resume()
        if self.wait(patience):
            return True
        self.kill()
        return False

    def wait(self, seconds: float) -> bool:
        """Wait for its end; say whether it came within `seconds`."""
        deadline = time.monotonic() + seconds
        while self.alive():
            if time.monotonic() > deadline:
                return False
            time.sleep(_POLL_SECONDS)
        return True

    def listens_on(self, port: int) -> bool:
        """Whether it, and not a stranger who took the port first, listens on 127.0.0.1:`port`."""
        inodes = {f"socket:[{inode}]" for inode in _listeners(port)}
        return any(inodes & _open_files(pid) for pid in [self.pid, *_descendants(self.pid)])


def _spawn(command: Command, *, detached: bool) -> subprocess.Popen[bytes]:
    account = command.account or Account(-1, -1)
    death_signal = 0 if detached else int(command.discard_signal)
    leash = [sys.executable, "-I", "-S", str(_LEASH), str(os.getpid()), str(death_signal)]
    command.log.parent.mkdir(parents=True, exist_ok=True)
    with ExitStack() as files:
        log = files.enter_context(command.log.open("ab"))
        out = log
        if command.output is not None:
            command.output.touch(mode=0o600)
            out = files.enter_context(command.output.open("wb"))
        return subprocess.Popen(  # noqa: S603 - the commands are ours
            [*leash, str(account.uid), str(account.gid), *command.argv],
            cwd=command.folder,
            env=dict(command.environment),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=log,
            # Ctrl-C in a terminal reaches the owner alone, which then ends its servers in order.
            start_new_session=True,
        )


@dataclass(frozen=True, slots=True)
class _Stat:
    state: str
    parent: int
    started: int


def _stat(pid: int) -> _Stat | None:
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The name in parentheses may itself hold spaces and parentheses.
    values = text[text.rindex(")") + 2 :].split()
    return _Stat(state=values[0], parent=int(values[1]), started=int(values[19]))


def _descendants(pid: int) -> list[int]:
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and (stat := _stat(int(entry.name))):
            children.setdefault(stat.parent, []).append(int(entry.name))
    found: list[int] = []
    waiting = [pid]
    while waiting:
        below = children.get(waiting.pop(), [])
        found += below
        waiting += below
    return found


def _listeners(port: int) -> list[str]:
    found = []
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        with suppress(FileNotFoundError):
            for line in Path(table).read_text().splitlines()[1:]:
                fields = line.split()
                if fields[3] == "0A" and int(fields[1].rpartition(":")[2], 16) == port:
                    found.append(fields[9])
    return found


def _open_files(pid: int) -> set[str]:
    names = set()
    with suppress(FileNotFoundError, ProcessLookupError, PermissionError):
        for link in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(FileNotFoundError):
                names.add(str(link.readlink()))
    return names

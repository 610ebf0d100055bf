"""One running stack on disk: its folder, its owner's lock, and which processes belong to it."""

import fcntl
import json
import os
import shutil
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

from lethe_sandbox.stack.addresses import Addresses
from lethe_sandbox.stack.folders import Folders, make_passable, make_private, remove_orphaned
from lethe_sandbox.stack.interface import StackError
from lethe_sandbox.stack.process import Process

KEPT: Final = "sandbox"
"""The instance that outlives its command: `lethe sandbox up` and `lethe demo --keep` make it."""


_AT_ONCE: Final = 16


class InUseError(StackError):
    """An instance of this name runs already."""


@dataclass(frozen=True, slots=True)
class Recorded:
    """What the state file of an instance says."""

    kept: bool
    processes: dict[str, Process]
    addresses: Addresses | None
    notes: dict[str, Any]


class Instance:
    """The folder of one stack, locked by the process that owns it.

    The lock ends with its owner however the owner ends, so an instance whose lock is free and that
    was not kept on purpose is left over and may be swept away.
    """

    def __init__(self, folders: Folders, name: str, *, kept: bool) -> None:
        self.folder = folders.instances / name
        self.passable = folders.passable / name
        self.kept = kept
        self._folders = folders
        self._lock: int | None = None
        self._guard = threading.Lock()
        self._processes: dict[str, Process] = {}
        self._addresses: Addresses | None = None
        self._notes: dict[str, Any] = {}

    @property
    def logs(self) -> Path:
        """Where its processes write what they have to say; stays until the next of this name."""
        return self._folders.base / "logs" / self.folder.name

    def claim(self) -> Self:
        """Become its owner, with an empty folder.

        Raises:
            InUseError: It has an owner already, or was kept and still runs.
        """
        make_private(self._folders.instances)
        self._lock = _try_lock(self._lock_file)
        if self._lock is None:
            raise InUseError(f"{self.folder.name} is in use by another command of this checkout")
        left = read(self.folder)
        if left and left.kept and any(p.alive() for p in left.processes.values()):
            self.release()
            raise InUseError("a sandbox is up already: `make down` (`lethe sandbox down`) stops it")
        self._remove(left.processes if left else {})
        shutil.rmtree(self.logs, ignore_errors=True)
        make_private(self.folder)
        return self

    def adopt(self) -> Recorded | None:
        """Become the owner of what was kept, to end it or to add to it; None if there is nothing.

        Raises:
            InUseError: Another command is at it.
        """
        left = read(self.folder)
        if left is None:
            return None
        self._lock = _try_lock(self._lock_file)
        if self._lock is None:
            raise InUseError(f"{self.folder.name} is in use by another command of this checkout")
        self._processes = dict(left.processes)
        self._addresses = left.addresses
        self._notes = dict(left.notes)
        return left

    @classmethod
    def claim_any(cls, folders: Folders, name: str) -> Self:
        """Become the owner of `name`, or of `name-2`, `name-3`... when others run at this time."""
        for number in range(1, _AT_ONCE + 1):
            try:
                return cls(folders, name if number == 1 else f"{name}-{number}", kept=False).claim()
            except InUseError:
                continue
        raise InUseError(f"{_AT_ONCE} {name} instances run in this checkout already")

    @property
    def _lock_file(self) -> Path:
        return self.folder.with_suffix(".lock")

    def passable_folder(self) -> Path:
        """Make the folder of this instance that every user may pass through."""
        self._folders.make_passable()
        return make_passable(self.passable)

    def record(
        self,
        name: str | None = None,
        process: Process | None = None,
        *,
        addresses: Addresses | None = None,
        notes: dict[str, Any] | None = None,
    ) -> None:
        """Write down a process, the addresses or notes, so that whoever comes later finds them."""
        with self._guard:
            if name and process:
                self._processes[name] = process
            self._addresses = addresses or self._addresses
            self._notes |= notes or {}
            _write(
                self.folder,
                Recorded(self.kept, self._processes, self._addresses, self._notes),
            )

    def discard(self) -> None:
        """End every process of it and remove its folders."""
        self._remove(self._processes)
        self.release()
        self._lock_file.unlink(missing_ok=True)

    def release(self) -> None:
        """Give the ownership up; what runs goes on."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _remove(self, processes: Mapping[str, Process]) -> None:
        for process in processes.values():
            process.end(process.discard_signal, patience=5)
        shutil.rmtree(self.folder, ignore_errors=True)
        if os.geteuid() == 0:
            shutil.rmtree(self.passable, ignore_errors=True)


def sweep(folders: Folders) -> None:
    """Remove what owners who were killed left behind; the kept instance stays."""
    remove_orphaned()
    for lock_file in folders.instances.glob("*.lock"):
        instance = Instance(folders, lock_file.stem, kept=False)
        left = read(instance.folder)
        if (left and left.kept) or (lock := _try_lock(lock_file)) is None:
            continue
        os.close(lock)
        try:
            instance.claim().discard()
        except StackError:
            continue  # somebody else sweeps it


def read(folder: Path) -> Recorded | None:
    """Read the state file of an instance; None when there is none (any more)."""
    try:
        state = json.loads((folder / "state.json").read_text())
        return Recorded(
            kept=state["kept"],
            processes={name: Process(*parts) for name, parts in state["processes"].items()},
            addresses=Addresses.from_dict(state["addresses"]) if state["addresses"] else None,
            notes=state["notes"],
        )
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise StackError(f"{folder}/state.json is damaged: remove {folder}") from error


def _write(folder: Path, recorded: Recorded) -> None:
    state = {
        "kept": recorded.kept,
        "processes": {
            name: [process.pid, process.started, process.discard_signal]
            for name, process in recorded.processes.items()
        },
        "addresses": recorded.addresses.as_dict() if recorded.addresses else None,
        "notes": recorded.notes,
    }
    draft = folder / "state.json.draft"
    draft.touch(mode=0o600)
    draft.write_text(json.dumps(state, indent=2))
    draft.replace(folder / "state.json")


def _try_lock(path: Path) -> int | None:
    lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        return None
    return lock


@contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """Hold a lock file, waiting for whoever holds it: for what is installed once per checkout."""
    make_private(path.parent)
    lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)

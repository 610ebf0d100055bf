"""Where the sandbox keeps its files: everything below one folder of the checkout."""

import hashlib
import os
import pwd
import shutil
import stat
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from lethe_sandbox.stack.interface import StackError
from lethe_sandbox.stack.process import Account

_CHECKOUT: Final = "checkout"
_SHARED: Final = Path("/var/tmp")  # noqa: S108 - passable for every user, and checked before use


@dataclass(frozen=True, slots=True)
class Folders:
    """The folders of one checkout; `base` is its `.sandbox`."""

    base: Path

    @classmethod
    def of_checkout(cls) -> Self:
        """Find the checkout this code runs from; an installed copy uses the current folder."""
        for parent in Path(__file__).parents:
            if (parent / "requirements.lock").is_file():
                return cls(parent / ".sandbox")
        return cls(Path.cwd() / ".sandbox")

    @property
    def instances(self) -> Path:
        """One folder per running stack."""
        return self.base / "instances"

    @property
    def tools(self) -> Path:
        """Programs brought for the sandbox alone."""
        return self.base / "tools"

    @property
    def passable(self) -> Path:
        """A folder any user may pass through, for the server that refuses to run as root."""
        digest = hashlib.sha256(os.fsencode(self.base.resolve())).hexdigest()[:12]
        return _SHARED / f"lethe-{digest}"

    def make_passable(self) -> Path:
        """Create `passable`, with a note that says whose it is.

        Raises:
            StackError: Somebody else made it.
        """
        folder = make_passable(self.passable)
        (folder / _CHECKOUT).write_text(str(self.base.resolve()))
        return folder


def server_account() -> Account | None:
    """Name whom PostgreSQL runs as: None for the present user, `nobody` when that is root."""
    if os.geteuid() != 0:
        return None
    nobody = pwd.getpwnam("nobody")
    return Account(nobody.pw_uid, nobody.pw_gid)


def make_private(folder: Path) -> Path:
    """Create `folder` for its owner alone, unless it is there."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise StackError(f"cannot create the folder {folder}: {error.strerror}") from error
    return folder


def make_passable(folder: Path) -> Path:
    """Create `folder` so that everybody may pass, or check that the one there is really ours.

    Raises:
        StackError: Somebody else made it, or it is no folder.
    """
    try:
        folder.mkdir(mode=0o755)
    except FileExistsError:
        found = folder.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
            raise StackError(
                f"{folder} is not a folder of this user: remove it and try again"
            ) from None
    folder.chmod(0o755)
    return folder


def remove_orphaned() -> None:
    """Remove the passable folders of checkouts that are gone."""
    for folder in _SHARED.glob("lethe-*"):
        if folder.is_symlink() or folder.lstat().st_uid != os.geteuid():
            continue
        with suppress(FileNotFoundError):
            if not Path((folder / _CHECKOUT).read_text()).exists():
                shutil.rmtree(folder, ignore_errors=True)


def copy_readable(source: Path, target: Path) -> None:
    """Copy a folder so that every user can read and run what its owner can."""
    shutil.copytree(source, target, symlinks=True)
    for path in [target, *target.rglob("*")]:
        if not path.is_symlink():
            runnable = path.is_dir() or path.stat().st_mode & stat.S_IXUSR
            path.chmod(0o755 if runnable else 0o644)

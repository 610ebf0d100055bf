"""PostgreSQL, Kafka, Redis and S3 for demos and tests, behind one small interface."""

from collections.abc import Callable

from lethe_sandbox.stack.addresses import Addresses, PostgresAddress, S3Address
from lethe_sandbox.stack.docker import DockerStack
from lethe_sandbox.stack.embedded import EmbeddedStack
from lethe_sandbox.stack.folders import Folders
from lethe_sandbox.stack.instance import KEPT, Instance, InUseError, Recorded, read, sweep
from lethe_sandbox.stack.interface import SERVERS, ServerName, Stack, StackError, StackKind

__all__ = [
    "KEPT",
    "SERVERS",
    "Addresses",
    "DockerStack",
    "EmbeddedStack",
    "Folders",
    "InUseError",
    "Instance",
    "PostgresAddress",
    "Recorded",
    "S3Address",
    "ServerName",
    "Stack",
    "StackError",
    "StackKind",
    "open_stack",
    "read",
    "sweep",
]


def open_stack(
    kind: StackKind,
    instance: Instance,
    folders: Folders,
    *,
    say: Callable[[str], None] = lambda _: None,
) -> Stack:
    """Choose the implementation; entering the result as a context starts the servers.

    Args:
        kind: `embedded` (processes) or `docker` (containers).
        instance: The claimed folder of this stack.
        folders: The folders of the checkout.
        say: Told one line per server that answers.

    Raises:
        StackError: Containers cannot be kept.
    """
    if kind == "embedded":
        return EmbeddedStack(folders, instance, say=say)
    if instance.kept:
        instance.discard()
        raise StackError("--stack=docker cannot leave its servers running")
    return DockerStack(instance)

"""What a stack of servers can do, whatever it runs on."""

from pathlib import Path
from types import TracebackType
from typing import Final, Literal, Protocol, Self, get_args

from lethe_sandbox.stack.addresses import Addresses

ServerName = Literal["postgres", "kafka", "redis", "s3"]
SERVERS: Final[tuple[ServerName, ...]] = get_args(ServerName)

StackKind = Literal["embedded", "docker"]


class StackError(Exception):
    """The servers cannot do what was asked; the message is one line that says what to do."""


class Stack(Protocol):
    """PostgreSQL, Kafka, Redis and S3 on this machine, each under its own control for fault tests.

    A server keeps its port and its data from `stop` to `start`, except an S3 server that keeps its
    objects in memory (moto, of the embedded stack): it comes back empty.
    The methods block until what they promise is true and may be called from any thread.
    """

    def __enter__(self) -> Self:
        """Start all servers."""
        ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop all servers and remove their data."""
        ...

    @property
    def addresses(self) -> Addresses:
        """Where the servers answer. Raises StackError before they were started."""
        ...

    @property
    def logs(self) -> Path:
        """The folder that holds one log file per server."""
        ...

    def start(self, server: ServerName) -> None:
        """Start a stopped server on the port and data it had; return when it answers."""
        ...

    def stop(self, server: ServerName, *, kill: bool = False) -> None:
        """End a server and wait for its end: an orderly shutdown, or SIGKILL with `kill`."""
        ...

    def pause(self, server: ServerName) -> None:
        """Freeze a server: its connections stay open and nothing answers."""
        ...

    def resume(self, server: ServerName) -> None:
        """Let a frozen server go on."""
        ...

"""The stack as ordinary processes of this machine, from packages, without Docker."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from lethe_sandbox.stack.addresses import Addresses
from lethe_sandbox.stack.embedded.kafka import Kafka
from lethe_sandbox.stack.embedded.postgres import Postgres
from lethe_sandbox.stack.embedded.redis import Redis
from lethe_sandbox.stack.embedded.s3 import S3
from lethe_sandbox.stack.embedded.server import Server
from lethe_sandbox.stack.embedded.starting import alone, first_start, try_start
from lethe_sandbox.stack.embedded.versitygw import VersityGw
from lethe_sandbox.stack.folders import Folders
from lethe_sandbox.stack.instance import Instance
from lethe_sandbox.stack.interface import SERVERS, ServerName, StackError
from lethe_sandbox.stack.process import Process

__all__ = ["EmbeddedStack", "Kafka", "VersityGw", "alone"]

_PORT_SECONDS: Final = 15
_STOP_SECONDS: Final = 30


class EmbeddedStack:
    """A `Stack` of child processes that live in one `Instance`.

    They die with this process, however it ends, unless the instance is kept on purpose.
    S3 (moto) keeps its objects in memory: `stop("s3")` loses them.

    Args:
        folders: the folders of the checkout.
        instance: the claimed folder of this stack.
        say: told one line per server that answers.
        durable: PostgreSQL waits for the disk at every commit, as it would at work; for figures.
    """

    def __init__(
        self,
        folders: Folders,
        instance: Instance,
        *,
        say: Callable[[str], None] = lambda _: None,
        durable: bool = False,
    ) -> None:
        self._instance = instance
        self._say = say
        self._postgres = Postgres(folders, instance, durable=durable)
        self._kafka = Kafka(folders, instance)
        self._redis = Redis(folders, instance)
        self._s3 = S3(folders, instance)
        self._servers: dict[ServerName, Server] = {
            "postgres": self._postgres,
            "kafka": self._kafka,
            "redis": self._redis,
            "s3": self._s3,
        }
        self._processes: dict[ServerName, Process] = {}
        self._started = False

    def __enter__(self) -> Self:
        """Start all servers at once; if one fails, none stays."""
        try:
            with ThreadPoolExecutor(len(SERVERS)) as pool:
                list(pool.map(self._first_start, SERVERS))
        except BaseException:
            self._instance.discard()
            raise
        self._started = True
        self._instance.record(addresses=self.addresses)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """End the servers and remove their data; a kept instance goes on, unless it failed."""
        if self._instance.kept and error is None:
            self._instance.release()
        else:
            self._instance.discard()

    @property
    def addresses(self) -> Addresses:
        """Where the servers answer."""
        if not self._started:
            raise StackError("the servers were not started")
        return Addresses(
            postgres=self._postgres.address,
            kafka=self._kafka.bootstrap,
            redis_url=self._redis.url,
            s3=self._s3.address,
        )

    @property
    def logs(self) -> Path:
        """The folder that holds one log file per server."""
        return self._instance.logs

    def start(self, server: ServerName) -> None:
        """Start a stopped server on the port and data it had; return when it answers."""
        if self._running(server):
            return
        deadline = time.monotonic() + _PORT_SECONDS
        while not self._try_start(server):
            if time.monotonic() > deadline:
                raise StackError(f"another program took the port of {server}")

    def stop(self, server: ServerName, *, kill: bool = False) -> None:
        """End a server and wait for its end."""
        process = self._processes.get(server)
        if process is None:
            return
        if kill:
            process.kill()
        else:
            process.end(self._servers[server].command().stop_signal, _STOP_SECONDS)

    def pause(self, server: ServerName) -> None:
        """Freeze a server with everything it started."""
        self._processes[server].pause()

    def resume(self, server: ServerName) -> None:
        """Let a frozen server go on."""
        self._processes[server].resume()

    def _running(self, server: ServerName) -> bool:
        process = self._processes.get(server)
        return process is not None and process.alive()

    def _first_start(self, name: ServerName) -> None:
        server = self._servers[name]
        began = time.monotonic()
        first_start(server, self._instance, partial(self._processes.__setitem__, name))
        self._say(f"{name} answers on port {server.port} ({time.monotonic() - began:.1f} s)")

    def _try_start(self, name: ServerName) -> bool:
        return try_start(
            self._servers[name], self._instance, partial(self._processes.__setitem__, name)
        )

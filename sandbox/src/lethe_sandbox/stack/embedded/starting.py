"""Starts a server program on ports nobody else has, and waits until it answers."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final, TypeVar

from lethe_sandbox.stack.embedded.server import Server
from lethe_sandbox.stack.instance import Instance
from lethe_sandbox.stack.interface import StackError
from lethe_sandbox.stack.ports import free_ports, is_free
from lethe_sandbox.stack.process import Process

S = TypeVar("S", bound=Server)

_READY_SECONDS: Final = 90
_TRIES: Final = 5
_POLL_SECONDS: Final = 0.05


def first_start(server: Server, instance: Instance, started: Callable[[Process], None]) -> None:
    """Install a server, give it ports and data, and run it until it answers.

    Args:
        server: the server.
        instance: where its process is written down.
        started: told every process, before it answers.

    Raises:
        StackError: It does not come up; its log says why.
    """
    server.install()
    for _ in range(_TRIES):
        server.ports = free_ports(server.port_count)
        server.prepare()
        if try_start(server, instance, started):
            return
    raise StackError(f"{server.name} found no free port in {_TRIES} tries: see {server.log}")


def try_start(server: Server, instance: Instance, started: Callable[[Process], None]) -> bool:
    """Start once; False when somebody else was faster to take one of its ports."""
    process = Process.spawn(server.command(), detached=instance.kept)
    started(process)
    instance.record(server.name, process)
    deadline = time.monotonic() + _READY_SECONDS
    while process.alive():
        if process.listens_on(server.port) and server.answers() and process.alive():
            return True
        if time.monotonic() > deadline:
            process.kill()
            raise StackError(
                f"{server.name} does not answer after {_READY_SECONDS} s: see {server.log}"
            )
        time.sleep(_POLL_SECONDS)
    if all(is_free(port) for port in server.ports):
        raise StackError(f"{server.name} ended at its start: see {server.log}")
    return False


@contextmanager
def alone(server: S, instance: Instance) -> Iterator[S]:
    """Run one server by itself, outside any stack, and remove it with its data afterwards."""
    try:
        first_start(server, instance, lambda _: None)
        yield server
    finally:
        instance.discard()

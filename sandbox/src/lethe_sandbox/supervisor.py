"""Runs the services as separate processes, as an operator would: start, kill -9, restart, watch."""

import http.client
import os
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from lethe_sandbox.stack.instance import Instance
from lethe_sandbox.stack.ports import free_ports, is_free
from lethe_sandbox.stack.process import Command, Process

_READY_SECONDS: Final = 60
_DRAIN_SECONDS: Final = 30
_ABORT_SECONDS: Final = 5
_ONCE_SECONDS: Final = 120
_POLL_SECONDS: Final = 0.05
_TRIES: Final = 5


class ServiceError(Exception):
    """A service or a command of the product failed; the message names its log file."""


@dataclass(frozen=True, slots=True)
class Service:
    """How one service is run."""

    name: str
    environment: Mapping[str, str]
    port_variable: str
    """The environment variable that gives it its HTTP port."""
    program: str = ""
    """Of `lethe <program> run`; its name, unless several of one run."""

    def several(self, count: int) -> "tuple[Service, ...]":
        """Give `count` of it that share their work; the first one keeps its name."""
        program = self.program or self.name
        more = (
            replace(self, name=f"{self.name}-{n}", program=program) for n in range(2, count + 1)
        )
        return (self, *more)


class Supervisor:
    """Starts services of one instance and stops them at its end, however it ends.

    Every service is `lethe <program> run` with an environment of its own and nothing else; its
    output goes to `<name>.log` in the instance's log folder. A restarted service keeps its port.
    """

    def __init__(self, instance: Instance, services: Sequence[Service]) -> None:
        self._instance = instance
        self._services = {service.name: service for service in services}
        self._processes: dict[str, Process] = {}
        self._ports: dict[str, int] = {}

    def __enter__(self) -> Self:
        """Start nothing yet."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop every service, unless the instance is kept and all went well."""
        if error is not None or not self._instance.kept:
            self._end_all()

    @property
    def names(self) -> tuple[str, ...]:
        """The services it knows."""
        return tuple(self._services)

    def url(self, name: str) -> str:
        """Where a started service answers."""
        return f"http://127.0.0.1:{self._ports[name]}"

    def pid(self, name: str) -> int:
        """The process id of a started service."""
        return self._processes[name].pid

    def log(self, name: str) -> Path:
        """The log file of a service."""
        return self._instance.logs / f"{name}.log"

    def start_all(self) -> None:
        """Start every service at once and wait until each is ready."""
        with ThreadPoolExecutor(len(self._services)) as pool:
            list(pool.map(self.start, self._services))

    def start(self, name: str) -> None:
        """Start a service, on the port it had, and wait until it says that it is ready.

        Raises:
            ServiceError: It ended, or was not ready in time.
        """
        for _ in range(_TRIES):
            port = self._ports.get(name) or free_ports(1)[0]
            if self._try_start(name, port):
                self._ports[name] = port
                return
            self._ports.pop(name, None)
        raise ServiceError(f"{name} found no free port: see {self.log(name)}")

    def kill(self, name: str) -> None:
        """SIGKILL a service, as `kill -9` does, and wait for its end."""
        self._processes.pop(name).kill()

    def stop(self, name: str) -> None:
        """Let a service drain and end.

        Raises:
            ServiceError: It did not end by itself or not with exit code 0.
        """
        process = self._processes.pop(name)
        drained = process.end(signal.SIGTERM, _DRAIN_SECONDS)
        if not drained or process.exit_code:
            raise ServiceError(f"{name} did not stop in order: see {self.log(name)}")

    def stop_all(self) -> None:
        """Let every service drain and end.

        Raises:
            ServiceError: One did not end by itself or not with exit code 0; all have ended.
        """
        with ThreadPoolExecutor(len(self._services)) as pool:
            for stopping in [pool.submit(self.stop, name) for name in list(self._processes)]:
                stopping.result()

    def _end_all(self) -> None:
        """End every service, whatever it says to that."""
        with ThreadPoolExecutor(len(self._services)) as pool:
            list(pool.map(lambda p: p.end(signal.SIGTERM, _ABORT_SECONDS), self._running()))
        self._processes.clear()

    def _running(self) -> list[Process]:
        return [process for process in self._processes.values() if process.alive()]

    def check(self) -> None:
        """Raise ServiceError if a service that was started has ended by itself."""
        for name, process in self._processes.items():
            if not process.alive():
                raise ServiceError(f"{name} ended by itself: see {self.log(name)}")

    def _try_start(self, name: str, port: int) -> bool:
        """Start once; False when somebody else was faster to take the port."""
        service = self._services[name]
        process = self._spawn(
            name,
            [service.program or name, "run"],
            {**service.environment, service.port_variable: str(port)},
        )
        self._processes[name] = process
        self._instance.record(name, process)
        deadline = time.monotonic() + _READY_SECONDS
        while process.alive():
            if process.listens_on(port) and _is_ready(port):
                return True
            if time.monotonic() > deadline:
                raise ServiceError(
                    f"{name} is not ready after {_READY_SECONDS} s: see {self.log(name)}"
                )
            time.sleep(_POLL_SECONDS)
        if is_free(port):
            raise ServiceError(f"{name} ended at its start: see {self.log(name)}")
        return False

    def run_once(self, arguments: Sequence[str], environment: Mapping[str, str]) -> str:
        """Run another command of `lethe` to its end and give what it printed.

        Raises:
            ServiceError: It failed or took longer than two minutes.
        """
        name = "-".join(argument for argument in arguments if argument.isalpha())
        output = self._instance.folder / f"{name}.out"
        process = self._spawn(name, arguments, environment, output=output)
        if not process.wait(_ONCE_SECONDS):
            process.kill()
        if process.exit_code != 0:
            raise ServiceError(f"`lethe {' '.join(arguments[:3])}` failed: see {self.log(name)}")
        printed = output.read_text()
        output.unlink()
        return printed

    def _spawn(
        self,
        name: str,
        arguments: Sequence[str],
        environment: Mapping[str, str],
        output: Path | None = None,
    ) -> Process:
        command = Command(
            argv=[str(Path(sys.executable).with_name("lethe")), *arguments],
            folder=self._instance.folder,
            log=self.log(name),
            output=output,
            environment={**_basic_environment(), **environment},
        )
        return Process.spawn(command, detached=self._instance.kept)


def _basic_environment() -> dict[str, str]:
    """Nothing of Lethe's own that may be set where the sandbox was started."""
    return {k: v for k, v in os.environ.items() if not k.startswith("LETHE_")} | {
        "PYTHONUNBUFFERED": "1"
    }


def _is_ready(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    with suppress(OSError, http.client.HTTPException), closing(connection):
        connection.request("GET", "/readyz")
        return connection.getresponse().status == http.client.OK
    return False

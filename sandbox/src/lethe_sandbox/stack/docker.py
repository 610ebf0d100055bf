"""The stack as containers, through testcontainers.

The same interface for machines that have a Docker engine (`--stack=docker`). Not run where Lethe is
built: there is no engine; the types are all that is checked here.
"""

import secrets
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from lethe_sandbox.stack import probes
from lethe_sandbox.stack.addresses import Addresses, PostgresAddress, S3Address
from lethe_sandbox.stack.folders import make_private
from lethe_sandbox.stack.instance import Instance
from lethe_sandbox.stack.interface import SERVERS, ServerName, StackError
from lethe_sandbox.stack.ports import free_ports

_POSTGRES: Final = "postgres:18.4"
_KAFKA: Final = "apache/kafka:4.1.0"
_REDIS: Final = "redis:8.2"
_S3: Final = "versity/versitygw:v1.8.0"
_KAFKA_ENVIRONMENT: Final = {
    "KAFKA_NODE_ID": "1",
    "KAFKA_PROCESS_ROLES": "broker,controller",
    "KAFKA_CONTROLLER_QUORUM_VOTERS": "1@localhost:9093",
    "KAFKA_CONTROLLER_LISTENER_NAMES": "CONTROLLER",
    # Clients are outside and come by the host's port; the broker reaches itself by INTERNAL.
    "KAFKA_LISTENERS": "PLAINTEXT://:9092,INTERNAL://:9094,CONTROLLER://:9093",
    "KAFKA_INTER_BROKER_LISTENER_NAME": "INTERNAL",
    "KAFKA_LISTENER_SECURITY_PROTOCOL_MAP": (
        "PLAINTEXT:PLAINTEXT,INTERNAL:PLAINTEXT,CONTROLLER:PLAINTEXT"
    ),
    "KAFKA_AUTO_CREATE_TOPICS_ENABLE": "false",
    "KAFKA_OFFSETS_TOPIC_REPLICATION_FACTOR": "1",
    "KAFKA_TRANSACTION_STATE_LOG_REPLICATION_FACTOR": "1",
    "KAFKA_TRANSACTION_STATE_LOG_MIN_ISR": "1",
    "KAFKA_GROUP_INITIAL_REBALANCE_DELAY_MS": "0",
}
_READY_SECONDS: Final = 120
_POLL_SECONDS: Final = 0.1
_STOP_SECONDS: Final = 30


class DockerStack:
    """A `Stack` of containers on fixed host ports, so that a restarted one answers where it did.

    Unlike the embedded stack's moto, versitygw keeps its objects from `stop` to `start`.
    """

    def __init__(self, instance: Instance) -> None:
        self._instance = instance
        self._containers: dict[ServerName, Any] = {}
        self._addresses: Addresses | None = None

    def __enter__(self) -> Self:
        """Start all containers; if one fails, none stays."""
        try:
            import docker.errors  # type: ignore[import-untyped] # noqa: PLC0415 - untyped, an extra
        except ImportError as error:
            self._instance.discard()
            raise StackError("--stack=docker needs the package testcontainers") from error
        try:
            self._create()
            for name in SERVERS:
                self._containers[name].start()
            for name in SERVERS:
                self._wait(name)
        except BaseException as error:
            self._remove()
            self._instance.discard()
            if isinstance(error, docker.errors.DockerException):
                raise StackError(f"Docker does not answer: {type(error).__name__}") from error
            raise
        return self

    def _create(self) -> None:
        from docker.types import (  # type: ignore[import-untyped] # noqa: PLC0415 - untyped, an extra
            Mount,
        )
        from testcontainers.core.container import DockerContainer  # noqa: PLC0415 - an extra

        postgres, kafka, redis, s3 = free_ports(4)
        password = secrets.token_urlsafe(18)
        self._addresses = Addresses(
            postgres=PostgresAddress("127.0.0.1", postgres, "lethe", password),
            kafka=f"127.0.0.1:{kafka}",
            redis_url=f"redis://127.0.0.1:{redis}",
            s3=S3Address(f"http://127.0.0.1:{s3}", "ap-northeast-2", "sandbox", "sandbox-secret"),
        )
        advertised = f"PLAINTEXT://127.0.0.1:{kafka},INTERNAL://localhost:9094"
        self._containers = {
            "postgres": DockerContainer(_POSTGRES)
            .with_bind_ports(5432, postgres)
            .with_envs(POSTGRES_USER="lethe", POSTGRES_PASSWORD=password)
            .with_command(["postgres", "-c", "max_prepared_transactions=8"]),
            "kafka": DockerContainer(_KAFKA)
            .with_bind_ports(9092, kafka)
            .with_envs(**_KAFKA_ENVIRONMENT, KAFKA_ADVERTISED_LISTENERS=advertised),
            "redis": DockerContainer(_REDIS).with_bind_ports(6379, redis),
            "s3": DockerContainer(_S3)
            .with_bind_ports(7070, s3)
            .with_envs(
                ROOT_ACCESS_KEY="sandbox",
                ROOT_SECRET_KEY="sandbox-secret",  # noqa: S106 - of a container of its own
                VGW_REGION="ap-northeast-2",
                VGW_PORT=":7070",
            )
            .with_kwargs(mounts=[Mount(folder, None) for folder in ("/data", "/versions")])
            .with_command(["posix", "--versioning-dir", "/versions", "/data"]),
        }

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Write the logs down and remove the containers."""
        make_private(self._instance.logs)
        for name, container in self._containers.items():
            out, err = container.get_logs()
            (self._instance.logs / f"{name}.log").write_bytes(out + err)
        self._remove()
        self._instance.discard()

    @property
    def addresses(self) -> Addresses:
        """Where the servers answer."""
        if self._addresses is None:
            raise StackError("the servers were not started")
        return self._addresses

    @property
    def logs(self) -> Path:
        """The folder the logs are written to at the end."""
        return self._instance.logs

    def start(self, server: ServerName) -> None:
        """Start a stopped container; its volume and its port are the same."""
        self._containers[server].get_wrapped_container().start()
        self._wait(server)

    def stop(self, server: ServerName, *, kill: bool = False) -> None:
        """Stop or kill a container."""
        container = self._containers[server].get_wrapped_container()
        if kill:
            container.kill()
        else:
            container.stop(timeout=_STOP_SECONDS)

    def pause(self, server: ServerName) -> None:
        """Freeze a container."""
        self._containers[server].get_wrapped_container().pause()

    def resume(self, server: ServerName) -> None:
        """Let a frozen container go on."""
        self._containers[server].get_wrapped_container().unpause()

    def _wait(self, name: ServerName) -> None:
        deadline = time.monotonic() + _READY_SECONDS
        while not _answers(name, self.addresses):
            if time.monotonic() > deadline:
                raise StackError(f"the container of {name} does not answer: see docker logs")
            time.sleep(_POLL_SECONDS)

    def _remove(self) -> None:
        for container in self._containers.values():
            container.stop()


def _answers(name: ServerName, addresses: Addresses) -> bool:
    match name:
        case "postgres":
            return probes.postgres_answers(addresses.postgres)
        case "kafka":
            return probes.kafka_answers(addresses.kafka)
        case "redis":
            return probes.redis_answers(addresses.redis_url)
        case "s3":
            return probes.s3_answers(addresses.s3.endpoint)

"""Intake as a process of its own, for tests that break something beneath it."""

import json
import signal
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
from aiokafka import AIOKafkaProducer

from lethe_contracts.codec import Envelope, encode
from lethe_contracts.events import Event
from lethe_contracts.keyring import KeyRing
from lethe_contracts.topics import EVENTS
from lethe_outbox import ensure_topics, initialise_group
from lethe_relay.topics import specs
from tests.support.forked import fork_lethe
from tests.support.serving import client
from tests.support.waiting import until

GROUP = "lethe-intake"
RING = KeyRing({1: b"1" * 32})
PATH = "/v1/erasure-requests"
PATIENCE = 90.0
"""Seconds for what takes two on a machine that does nothing else."""


def environment(database_url: str, kafka: str, redis_url: str = "") -> dict[str, str]:
    """The variables of an intake on these servers, on any free port."""
    return {
        "LETHE_INTAKE_DATABASE_URL": database_url,
        "LETHE_INTAKE_KAFKA_BOOTSTRAP": kafka,
        "LETHE_INTAKE_REDIS_URL": redis_url,
        "LETHE_INTAKE_SUBJECT_REF_KEYS": RING.render(),
        "LETHE_INTAKE_SUBJECT_CIPHER_KEYS": RING.render(),
        "LETHE_INTAKE_HTTP_PORT": "0",
        "LETHE_INTAKE_LOG_LEVEL": "DEBUG",
    }


async def prepare_kafka(kafka: str) -> None:
    """Make the topics and the group, as `lethe migrate` does."""
    await ensure_topics(kafka, specs(replication_factor=1))
    await initialise_group(kafka, GROUP, [EVENTS])


class IntakeProcess:
    """One process; its log is what it said so far."""

    def __init__(self, variables: dict[str, str], log: Path) -> None:
        self._log = log
        self._process = fork_lethe(variables, "intake", "run", out=log)

    def lines(self) -> list[dict[str, Any]]:
        """What it logged so far, whole lines only."""
        whole = self._log.read_text().rpartition("\n")[0].splitlines()
        return [json.loads(line) for line in whole]

    def said(self, event: str) -> list[dict[str, Any]]:
        """The log lines of one event."""
        return [line for line in self.lines() if line["event"] == event]

    async def url(self) -> str:
        """Where it listens."""
        (line, *_) = await until(
            lambda: self.said("listening"), within=PATIENCE, what="intake's port"
        )
        return f"http://{line['host']}:{line['port']}"

    @property
    def running(self) -> bool:
        """Whether it has not ended yet."""
        return self._process.poll() is None

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self._process.send_signal(number)

    async def ended(self, within: float = PATIENCE) -> int:
        """Wait for its end and give its exit code."""
        await until(lambda: self._process.poll() is not None, within=within, what="intake's end")
        return self._process.wait()

    def kill(self) -> None:
        """End it at once, if it still runs."""
        self._process.kill()
        self._process.wait()

    @property
    def log_text(self) -> str:
        """Everything it said."""
        return self._log.read_text()


class IntakeClient:
    """Talks to one intake with one key."""

    def __init__(self, http: httpx.AsyncClient) -> None:
        self.http = http

    async def submit(self, subject: str, **headers: str) -> httpx.Response:
        """Ask for a person's erasure."""
        body = {"subject": subject, "reason": "account_withdrawn"}
        return await self.http.post(PATH, json=body, headers=headers)

    async def state(self, request_id: str) -> str:
        """Where a request stands."""
        response = await self.http.get(f"{PATH}/{request_id}")
        assert response.status_code == 200, response.text
        return str(response.json()["state"])

    async def ready(self) -> bool:
        """Whether it can do its work."""
        return (await self.http.get("/readyz")).status_code == 200

    async def healthy(self) -> bool:
        """Whether it has its database, whatever Kafka does."""
        document = (await self.http.get("/readyz")).json()
        return bool(document["dependencies"]["database"]["status"] == "ok")

    async def whole(self) -> bool:
        """Whether nothing is away, of what it can do without neither."""
        dependencies = (await self.http.get("/readyz")).json()["dependencies"]
        return all(one["status"] == "ok" for one in dependencies.values())

    async def away(self) -> dict[str, str]:
        """What it is waiting for, with the class of the error."""
        dependencies = (await self.http.get("/readyz")).json()["dependencies"]
        return {
            name: one["error_class"]
            for name, one in dependencies.items()
            if one["status"] == "away"
        }


@asynccontextmanager
async def connected(process: IntakeProcess, key: str = "") -> AsyncIterator[IntakeClient]:
    """Talk to a process, once it listens."""
    async with client(await process.url(), key, timeout=30) as http:
        yield IntakeClient(http)


async def say(kafka: str, *said: Envelope[Event]) -> None:
    """Publish what the eraser says, in this order."""
    await publish(kafka, [(e.topic, e.key.encode(), e.value, e.headers) for e in map(encode, said)])


Raw = tuple[str, bytes | None, bytes | None, Sequence[tuple[str, bytes]]]


async def publish(kafka: str, records: Sequence[Raw]) -> None:
    """Publish records as they are."""
    async with AIOKafkaProducer(bootstrap_servers=kafka, acks="all") as producer:
        for topic, key, value, headers in records:
            await producer.send_and_wait(topic, value, key=key, headers=list(headers))

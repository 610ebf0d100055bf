"""What a test holds of a running reporting."""

import asyncio
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import httpx
from aiokafka import AIOKafkaProducer
from prometheus_client import CollectorRegistry
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from lethe_contracts.codec import Envelope, encode
from lethe_contracts.events import Event
from lethe_contracts.topics import REQUESTS
from lethe_reporting.api import READ
from lethe_reporting.storage.projection import project
from lethe_runtime import database
from lethe_runtime.api_keys import create_key
from tests.support.forked import lethe
from tests.support.waiting import until


@dataclass(frozen=True, slots=True)
class Api:
    """Reporting's API and what a test wants to know of it."""

    client: httpx.AsyncClient
    engine: AsyncEngine
    log: io.StringIO

    async def get(self, path: str, **query: Any) -> httpx.Response:
        return await self.client.get(path, params=query)

    async def project(self, *envelopes: Envelope[Event]) -> None:
        async with self.engine.begin() as connection:
            await project(connection, envelopes)

    async def rows(self, query: str, **parameters: object) -> Sequence[Any]:
        async with self.engine.connect() as connection:
            return (await connection.execute(text(query), parameters)).all()

    async def run(self, statement: str, **parameters: object) -> None:
        async with self.engine.begin() as connection:
            await connection.execute(text(statement), parameters)


def make_key(url: str, *scopes: str) -> str:
    with database.connected(url, "test") as connection:
        return create_key(connection, "compliance", scopes or (READ,))


@dataclass(frozen=True, slots=True)
class Service:
    """The whole of reporting at work."""

    client: httpx.AsyncClient
    engine: AsyncEngine
    registry: CollectorRegistry
    producer: AIOKafkaProducer
    environment: dict[str, str]
    log: io.StringIO

    async def publish(self, *envelopes: Envelope[Event]) -> None:
        for envelope in envelopes:
            record = encode(envelope)
            await self.producer.send_and_wait(
                record.topic,
                record.value,
                key=record.key.encode(),
                headers=list(record.headers),
            )

    async def bury(self, asked: Envelope[Event], *headers: tuple[str, bytes]) -> int:
        """Send a dead letter of a request and give its id once it is recorded."""
        record = encode(asked)
        errors = [("error-reason", b"too_large"), ("origin-topic", REQUESTS.encode()), *headers]
        known = {each["id"] for each in await self.dead_letters("all")}
        await self.producer.send_and_wait(
            f"{REQUESTS}.DLT",
            record.value,
            key=record.key.encode(),
            headers=[*record.headers, *errors],
        )

        async def recorded() -> list[int]:
            return [each["id"] for each in await self.dead_letters() if each["id"] not in known]

        (found,) = await until(recorded, what="the dead letter")
        return int(found)

    async def state(self, request_id: object) -> str | None:
        answer = await self.client.get(f"/v1/requests/{request_id}")
        return str(answer.json()["state"]) if answer.status_code == 200 else None

    async def dead_letters(self, state: str = "open") -> list[Any]:
        answer = await self.client.get("/v1/dead-letters", params={"state": state})
        return list(answer.json()["items"]) if answer.status_code == 200 else []

    async def ready(self) -> bool:
        return (await self.client.get("/readyz")).status_code == 200

    def counted(self, name: str, **labels: str) -> float:
        return self.registry.get_sample_value(name, labels) or 0.0

    async def rows(self, query: str, **parameters: object) -> Sequence[Any]:
        async with self.engine.connect() as connection:
            return (await connection.execute(text(query), parameters)).all()

    async def lethe(self, *arguments: str) -> tuple[int, str, str]:
        """Run `lethe` as an operator would: its exit code, output and errors."""
        done = await asyncio.to_thread(lethe, self.environment, *arguments)
        return done.returncode, done.stdout, done.stderr

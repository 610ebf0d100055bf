"""What a test holds of a running reporting."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import httpx
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from lethe_contracts.codec import Envelope
from lethe_contracts.events import Event
from lethe_reporting.api import READ
from lethe_reporting.storage.projection import project
from lethe_runtime import database
from lethe_runtime.api_keys import create_key


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


def a_client(port: int, key: str | None) -> httpx.AsyncClient:
    return httpx.AsyncClient(
        base_url=f"http://127.0.0.1:{port}",
        headers={} if key is None else {"Authorization": f"Bearer {key}"},
        # No TLS here, and loading the authorities takes longer than a test.
        transport=httpx.AsyncHTTPTransport(verify=False),
    )

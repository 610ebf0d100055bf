"""An application of ours on a real socket, and clients of one."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
from starlette.types import ASGIApp

from lethe_runtime.http import HttpServer


@asynccontextmanager
async def served(app: ASGIApp) -> AsyncIterator[str]:
    """Serve an application for the block; gives its URL."""
    server = HttpServer(app, "127.0.0.1", 0, drain_seconds=20)
    stop = asyncio.Event()
    serving = asyncio.create_task(server.run(stop))
    await server.listening.wait()
    try:
        yield f"http://127.0.0.1:{server.port}"
    finally:
        stop.set()
        await serving


def client(url: str, key: str | None = None, *, timeout: float = 5) -> httpx.AsyncClient:
    """Make a client that shows an API key, if it has one."""
    return httpx.AsyncClient(
        base_url=url,
        headers={"Authorization": f"Bearer {key}"} if key else {},
        # No TLS here, and loading the authorities takes longer than a test.
        transport=httpx.AsyncHTTPTransport(verify=False),
        timeout=timeout,
    )

"""A TCP proxy that a test closes, or makes silent, and opens again."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Protocol

_CHUNK = 65536


class Watch(Protocol):
    """Sees what passes over one connection, chunk by chunk."""

    async def asks(self, data: bytes) -> None:
        """Return when the client's `data` may pass on; raises OSError to end the connection."""
        ...

    def answers(self, data: bytes) -> None:
        """Take note of the server's `data`."""
        ...


class TcpProxy:
    """Passes bytes on to a server.

    Args:
        host: the server's.
        port: the server's.
        watch: makes what sees the bytes of a new connection.

    Attributes:
        port: where it listens, on 127.0.0.1.
    """

    def __init__(self, host: str, port: int, watch: Callable[[], Watch] | None = None) -> None:
        self._target = (host, port)
        self._watch = watch
        self._open = True
        self._answers = asyncio.Event()
        self._answers.set()
        self._writers: set[asyncio.StreamWriter] = set()
        self.port = 0

    def close(self) -> None:
        """Cut every connection and take no other."""
        self._open = False
        for writer in self._writers:
            writer.transport.abort()

    def open(self) -> None:
        """Take connections again."""
        self._open = True

    def silence(self) -> None:
        """Keep back what the server answers."""
        self._answers.clear()

    def speak(self) -> None:
        """Let through what was kept back, late, and everything after it."""
        self._answers.set()

    @asynccontextmanager
    async def running(self) -> AsyncIterator["TcpProxy"]:
        """Listen until the end of the block."""
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            self.speak()
            self.close()
            server.close()
            await server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not self._open:
            writer.transport.abort()
            return
        there, to_server = await asyncio.open_connection(*self._target)
        self._writers |= {writer, to_server}
        watch = self._watch() if self._watch else None

        async def asked(data: bytes) -> None:
            if watch is not None:
                await watch.asks(data)

        async def answered(data: bytes) -> None:
            if watch is not None:
                watch.answers(data)
            await self._answers.wait()

        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pass(reader, to_server, asked))
                group.create_task(self._pass(there, writer, answered))
        finally:
            self._writers -= {writer, to_server}

    async def _pass(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        may_pass: Callable[[bytes], Awaitable[None]],
    ) -> None:
        with suppress(OSError):
            while data := await reader.read(_CHUNK):
                await may_pass(data)
                writer.write(data)
                await writer.drain()
        writer.transport.abort()

"""A TCP proxy that a test closes, or makes silent, and opens again."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

_CHUNK = 65536


class TcpProxy:
    """Passes bytes on to a server.

    Attributes:
        port: where it listens, on 127.0.0.1.
    """

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
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
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pass(reader, to_server, None))
                group.create_task(self._pass(there, writer, self._answers))
        finally:
            self._writers -= {writer, to_server}

    async def _pass(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        gate: asyncio.Event | None,
    ) -> None:
        with suppress(OSError):
            while data := await reader.read(_CHUNK):
                if gate is not None:
                    await gate.wait()
                writer.write(data)
                await writer.drain()
        writer.transport.abort()

"""A service that is told to stop while clients hold its connections: it ends in time, with 0."""

import json
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Final

from tests.support.waiting import until_sync

PROGRAM: Final = """
import asyncio, sys
import structlog
from fastapi import Request
from fastapi.responses import StreamingResponse
from prometheus_client import CollectorRegistry
from lethe_runtime import lifecycle, logging
from lethe_runtime.health import Readiness
from lethe_runtime.http import HttpServer, ops_app

DRAIN_SECONDS = float(sys.argv[1])
log = structlog.get_logger()
logging.configure("sample", "INFO")
app = ops_app("sample", Readiness([]), CollectorRegistry())

@app.post("/upload")
async def upload(request: Request) -> int:
    log.info("begun")
    return len(await request.body())

@app.get("/long")
async def long() -> StreamingResponse:
    async def pages():
        log.info("begun")
        for _ in range(1000):
            yield b"x" * 65536
    return StreamingResponse(pages())

@app.get("/stuck")
async def stuck() -> None:
    log.info("begun")
    await asyncio.Event().wait()

server = HttpServer(app, "127.0.0.1", 0, drain_seconds=DRAIN_SECONDS)
sys.exit(lifecycle.run("sample", {"http": server.run}, drain_seconds=DRAIN_SECONDS))
"""
HALF_A_HEAD: Final = b"POST /upload HTTP/1.1\r\nHost: te"
HALF_A_BODY: Final = b"POST /upload HTTP/1.1\r\nHost: test\r\nContent-Length: 100\r\n\r\nhalf"
READS_NOTHING: Final = b"GET /long HTTP/1.1\r\nHost: test\r\n\r\n"
WAITS: Final = b"GET /stuck HTTP/1.1\r\nHost: test\r\n\r\n"


class Program:
    """The program above, and the lines it logged."""

    def __init__(self, drain_seconds: float) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(drain_seconds)], stdout=subprocess.PIPE, text=True
        )
        self.lines: list[dict[str, Any]] = []
        self.until(1, "listening")

    def until(self, times: int, event: str) -> list[dict[str, Any]]:
        """Read until it was logged so often, and give those lines."""
        assert self.process.stdout is not None
        stdout = self.process.stdout

        def found() -> list[dict[str, Any]]:
            if line := stdout.readline():
                self.lines.append(json.loads(line))
            those = self.of(event)
            return those if len(those) >= times else []

        return until_sync(found, every=0, what=event)

    def of(self, event: str) -> list[dict[str, Any]]:
        return [line for line in self.lines if line["event"] == event]

    def end(self) -> int:
        """Tell it to stop, wait for that, and give its exit code."""
        self.process.send_signal(signal.SIGTERM)
        assert self.process.stdout is not None
        self.lines += [json.loads(line) for line in self.process.stdout]
        return self.process.wait(60)

    def connect(self, *sent: bytes) -> list[socket.socket]:
        """Open a connection for each, and send that."""
        (listening,) = self.of("listening")
        connections = [
            socket.create_connection((listening["host"], listening["port"])) for _ in sent
        ]
        for connection, piece in zip(connections, sent, strict=True):
            connection.sendall(piece)
        return connections


@contextmanager
def running(drain_seconds: float) -> Iterator[Program]:
    program = Program(drain_seconds)
    try:
        yield program
    finally:
        program.process.kill()
        assert program.process.stdout is not None
        program.process.stdout.close()
        program.process.wait()


def test_slow_clients_are_cut_off_within_the_drain_and_counted_in_one_line() -> None:
    with running(2.5) as program, ExitStack() as open_connections:
        for connection in program.connect(HALF_A_HEAD, HALF_A_BODY, READS_NOTHING):
            open_connections.enter_context(connection)
        program.until(2, "begun")

        assert program.end() == 0

    (told,) = program.of("clients cut off")
    # Half a head is no request yet, and nothing is waited for.
    assert told["connections"] == 2
    assert [line for line in program.lines if line["level"] in ("error", "critical")] == []


def test_what_the_service_itself_does_not_finish_is_ended_too() -> None:
    with running(2.5) as program, ExitStack() as open_connections:
        for connection in program.connect(WAITS):
            open_connections.enter_context(connection)
        program.until(1, "begun")

        assert program.end() == 0

    (told,) = program.of("clients cut off")
    assert told["connections"] == 1


def test_a_client_that_goes_on_gets_its_answer() -> None:
    with running(60) as program, ExitStack() as open_connections:
        (connection,) = program.connect(HALF_A_BODY)
        open_connections.enter_context(connection)
        program.until(1, "begun")
        program.process.send_signal(signal.SIGTERM)
        program.until(1, "draining")
        connection.sendall(b"x" * 96)

        assert connection.makefile("rb").read().startswith(b"HTTP/1.1 200 OK\r\n")
        assert program.process.wait(60) == 0

    assert program.of("clients cut off") == []

"""What is logged as critical reaches Sentry, and nothing that a driver quotes does."""

import gzip
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from pydantic import SecretStr
from sqlalchemy.ext.asyncio import create_async_engine

from lethe_outbox import Message
from lethe_runtime import sentry
from tests.support.outbox_world import append, lay

PROGRAM = """
import logging as standard, sys
import structlog
from pydantic import SecretStr
from lethe_runtime import logging, sentry

logging.configure("sample", "DEBUG")
sentry.configure("sample", SecretStr(sys.argv[1]))
person = "acct-000017"
structlog.get_logger("one").info("fine")
standard.getLogger("two").error("bad, but not critical")
structlog.get_logger("three").critical("loop failed", loop="relay", places=["a.py:1 f"])
standard.getLogger("four").critical("a row for %s was refused", "orders.v1")
try:
    raise ValueError(f"https://bucket/{person}.png") from KeyError(person)
except ValueError:
    standard.getLogger("five").critical("it broke", exc_info=True)
"""
RELAY = """
import asyncio, sys
from prometheus_client import CollectorRegistry
from pydantic import SecretStr
from lethe_outbox import Relay, RelayMetrics, RelaySettings
from lethe_runtime import logging, sentry

async def main(database, kafka, dsn):
    logging.configure("relay", "INFO")
    sentry.configure("relay", SecretStr(dsn))
    registry = CollectorRegistry()
    settings = RelaySettings(unknown_topic_seconds=0.2)
    relay = Relay("tested", database, kafka, metrics=RelayMetrics(registry), settings=settings)
    stop = asyncio.Event()
    running = asyncio.create_task(relay.run(stop))
    labels = {"outbox": "tested", "topic": "nobody.made.this"}
    while not registry.get_sample_value("relay_dlt_failed_total", labels):
        await asyncio.sleep(0.02)
    stop.set()
    await running

asyncio.run(main(*sys.argv[1:]))
"""


class Endpoint(ThreadingHTTPServer):
    """Takes Sentry's envelopes."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Envelopes)
        self.events: list[dict[str, Any]] = []
        self.bodies: list[str] = []

    @property
    def dsn(self) -> str:
        return f"http://public@127.0.0.1:{self.server_port}/1"


class Envelopes(BaseHTTPRequestHandler):
    server: Endpoint

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        self.server.bodies.append(body.decode())
        _, *items = body.decode().splitlines()
        for head, payload in zip(items[::2], items[1::2], strict=True):
            if json.loads(head)["type"] == "event":
                self.server.events.append(json.loads(payload))
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    with Endpoint() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def run(program: str, *arguments: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        env=os.environ | {"SENTRY_DSN": ""},
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr


def test_critical_lines_arrive_as_they_were_logged_and_nothing_else_does(
    endpoint: Endpoint,
) -> None:
    run(PROGRAM, endpoint.dsn)
    found = {one["logger"]: one for one in endpoint.events}
    assert found.keys() == {"three", "four", "five"}
    assert [one["logentry"]["message"] for one in found.values()] == [
        "loop failed",
        "a row for orders.v1 was refused",
        "it broke",
    ]
    assert found["three"]["extra"] == {"loop": "relay", "places": "['a.py:1 f']"}
    assert found["four"]["fingerprint"] == ["four", "a row for %s was refused"]
    assert found["five"]["extra"] == {"error_class": "ValueError"}
    assert {one["level"] for one in found.values()} == {"fatal"}
    assert {one["tags"]["service"] for one in found.values()} == {"sample"}
    assert "acct-000017" not in "".join(endpoint.bodies)


async def test_a_row_that_nobody_takes_is_told_to_sentry(
    endpoint: Endpoint, database_url: str, kafka: str
) -> None:
    lay(database_url)
    engine = create_async_engine(database_url)
    await append(engine, Message("nobody.made.this", "acct-000017", b"payload of acct-000017"))
    await engine.dispose()
    run(RELAY, database_url, kafka, endpoint.dsn)
    (event,) = endpoint.events
    assert event["tags"]["service"] == "relay"
    assert "nobody.made.this was refused (unknown_topic)" in event["logentry"]["message"]
    assert "acct-000017" not in "".join(endpoint.bodies)


def test_without_a_dsn_nothing_is_set_up() -> None:
    run(
        "from lethe_runtime import sentry; sentry.configure('x', None); import sys;"
        " assert 'sentry_sdk' not in sys.modules"
    )


def test_what_is_no_dsn_is_refused_without_quoting_it() -> None:
    with pytest.raises(sentry.SentryError, match="is none") as refused:
        sentry.configure("sample", SecretStr("secret-nonsense"))
    assert "secret-nonsense" not in str(refused.value)


def test_a_dsn_without_the_extra_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sentry_sdk", None)
    with pytest.raises(sentry.SentryError, match=r"lethe-runtime\[sentry\]"):
        sentry.configure("sample", SecretStr("http://public@127.0.0.1:9/1"))

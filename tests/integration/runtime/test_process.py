"""A service as a process: signals, logs and exit codes."""

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.waiting import until_sync

PROGRAM = """
import asyncio, sys
import structlog
from lethe_runtime import lifecycle, logging

log = structlog.get_logger()

async def obedient(stop):
    log.info("running")
    await stop.wait()
    log.info("drained")

async def deaf(stop):
    log.info("running")
    await asyncio.Event().wait()

async def broken(stop):
    raise RuntimeError("acct-000017")

class Resource:
    async def __aenter__(self):
        log.info("opened")
    async def __aexit__(self, *error):
        log.info("closed")

logging.configure("sample", "INFO")
loops = {name: globals()[name] for name in sys.argv[1:]}
sys.exit(lifecycle.run("sample", loops, drain_seconds=60, resources=[Resource()]))
"""


class Program:
    def __init__(self, *loops: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, *loops], stdout=subprocess.PIPE, text=True
        )
        self.lines: list[dict[str, Any]] = []

    def read(self) -> list[dict[str, Any]]:
        """Read one more line."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if line:
            self.lines.append(json.loads(line))
        return self.lines

    def until(self, event: str) -> None:
        until_sync(lambda: any(line["event"] == event for line in self.read()), every=0, what=event)

    def end(self) -> int:
        assert self.process.stdout is not None
        self.lines += [json.loads(line) for line in self.process.stdout]
        return self.process.wait(20)

    @property
    def events(self) -> list[str]:
        return [line["event"] for line in self.lines]


@pytest.fixture
def run() -> Iterator[Any]:
    started: list[Program] = []

    def start(*loops: str) -> Program:
        started.append(Program(*loops))
        return started[-1]

    yield start
    for program in started:
        program.process.kill()
        assert program.process.stdout is not None
        program.process.stdout.close()
        program.process.wait()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_drains_and_ends_with_0(run: Any, number: signal.Signals) -> None:
    program = run("obedient")
    program.until("running")
    program.process.send_signal(number)

    assert program.end() == 0
    assert program.events == [
        "opened",
        "started",
        "running",
        "draining",
        "drained",
        "stopped",
        "closed",
    ]
    assert all(line["service"] == "sample" for line in program.lines)


def test_a_second_signal_ends_at_once(run: Any) -> None:
    program = run("deaf")
    program.until("running")
    program.process.send_signal(signal.SIGTERM)
    program.until("draining")
    program.process.send_signal(signal.SIGTERM)

    assert program.end() == 128 + signal.SIGTERM
    assert "stopped" not in program.events


def test_a_loop_that_fails_ends_everything_with_1(run: Any) -> None:
    program = run("obedient", "broken")

    assert program.end() == 1
    assert "drained" in program.events
    (line,) = [line for line in program.lines if line["event"] == "loop failed"]
    assert (line["loop"], line["error_class"]) == ("broken", "RuntimeError")
    assert "acct-000017" not in json.dumps(program.lines)

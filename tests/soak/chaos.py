"""Relays and a consumer that are killed, frozen, stopped and cut off all the time."""

import asyncio
import random
import signal
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from lethe_sandbox.stack import Stack
from tests.support import relay_process
from tests.support.forked import Forked

ROOT: Final = Path(__file__).parents[2]

SETTINGS: Final = {
    "lease_seconds": 5,
    "renew_seconds": 1,
    "margin_seconds": 0.5,
    "publish_seconds": 3,
    "sweep_seconds": 10,
    "pause_max_seconds": 2,
}
_CUT: Final = text(
    "select count(pg_terminate_backend(pid)) from pg_stat_activity"
    " where datname = current_database() and application_name like 'relay-%'"
)


@dataclass
class Chaos:
    """Keeps `count` relays and a consumer at work, and works against them.

    Attributes:
        done: how often what was done to them.
    """

    engine: AsyncEngine
    url: str
    stack: Stack
    folder: Path
    count: int
    seed: int
    pause: float
    done: Counter[str] = field(default_factory=Counter)
    relays: list[Forked] = field(default_factory=list)
    consumer: subprocess.Popen[bytes] | None = None

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)  # noqa: S311 - a soak is repeated by its seed

    def start(self) -> None:
        """Start everybody that does not run."""
        for ended in [relay for relay in self.relays if relay.poll() is not None]:
            self.relays.remove(ended)
        while len(self.relays) < self.count:
            kafka = self.stack.addresses.kafka
            self.relays.append(
                relay_process.start(self.url, kafka, self.folder / "relay.log", SETTINGS)
            )
        if self.consumer is None or self.consumer.poll() is not None:
            self.consumer = self._start_consumer()

    async def run(self) -> None:
        """Do something to somebody, for ever."""
        doings = [self.kill, self.freeze, self.stop, self.cut, self.kill_consumer]
        weights = [60, 50, 30, 20, 7]
        while True:
            self.start()
            await asyncio.sleep(self._random.uniform(0.3, 1) * self.pause)
            (doing,) = self._random.choices(doings, weights)
            await doing()
            if self._random.random() < 0.05:
                await self.freeze_broker()

    async def kill(self) -> None:
        self._victim().kill()
        self.done["relays killed"] += 1

    async def freeze(self) -> None:
        """Stop a relay's process for less or more than its lease."""
        relay = self._victim()
        relay.send_signal(signal.SIGSTOP)
        self.done["relays frozen"] += 1
        try:
            await asyncio.sleep(self._random.uniform(0.1, 1.4) * SETTINGS["lease_seconds"])
        finally:
            relay.send_signal(signal.SIGCONT)

    async def stop(self) -> None:
        self._victim().terminate()
        self.done["relays stopped"] += 1

    async def cut(self) -> None:
        async with self.engine.connect() as connection:
            await connection.execute(_CUT)
        self.done["sessions cut"] += 1

    async def kill_consumer(self) -> None:
        if self.consumer is not None:
            self.consumer.kill()
            self.done["consumers killed"] += 1

    async def freeze_broker(self) -> None:
        self.stack.pause("kafka")
        self.done["brokers frozen"] += 1
        try:
            await asyncio.sleep(self._random.uniform(0.5, 6))
        finally:
            self.stack.resume("kafka")

    def calm(self) -> None:
        """Leave them in peace from now on, everybody at work."""
        self.start()

    def end(self) -> None:
        """Kill whoever runs."""
        everybody: list[Forked | subprocess.Popen[bytes]] = [*self.relays]
        if self.consumer is not None:
            everybody.append(self.consumer)
        for process in everybody:
            if process.poll() is None:
                process.send_signal(signal.SIGCONT)
                process.kill()
            process.wait()

    def _victim(self) -> Forked:
        return self._random.choice(self.relays)

    def _start_consumer(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "tests.soak.consumer", self.url]
        with (self.folder / "consumer.log").open("ab") as output:
            return subprocess.Popen(
                [*command, self.stack.addresses.kafka], cwd=ROOT, stdout=output, stderr=output
            )

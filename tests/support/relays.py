"""Relay processes on one outbox, traffic beside them, and what the database says of them."""

import asyncio
import signal
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from tests.support import relay_process
from tests.support.fail_points import FailPoint
from tests.support.forked import Forked
from tests.support.outbox_world import append_apart, events
from tests.support.waiting import until

KEYS: Final = [f"key-{number}" for number in range(60)]
SHORT: Final = {
    "lease_seconds": 4,
    "renew_seconds": 0.5,
    "margin_seconds": 0.5,
    "publish_seconds": 2,
    "unknown_topic_seconds": 1,
    "pause_max_seconds": 0.5,
}


class Relays:
    """Relay processes of one test; whatever is left is killed at the end."""

    def __init__(self, url: str, kafka: str, log: Path) -> None:
        self._url = url
        self._kafka = kafka
        self.log = log
        self.started: list[Forked] = []

    def start(self, *points: FailPoint, settings: dict[str, Any] | None = None) -> Forked:
        """Start one more, which kills or freezes itself at `points`."""
        told = {**SHORT, **(settings or {})}
        process = relay_process.start(self._url, self._kafka, self.log, told, points)
        self.started.append(process)
        return process

    async def die(self, *points: FailPoint) -> None:
        """Start one and wait until it kills itself."""
        await self.died(self.start(*points))

    async def died(self, process: Forked) -> None:
        """Wait until a process has killed itself."""
        code = await until(process.poll, within=30, what="a relay that kills itself")
        assert code == -signal.SIGKILL, self.log.read_text()[-4000:]

    def end(self) -> None:
        for process in self.started:
            if process.poll() is None:
                process.send_signal(signal.SIGCONT)
                process.kill()
            process.wait()


async def froze(process: Forked) -> None:
    """Wait until a process froze itself."""
    status = Path(f"/proc/{process.pid}/stat")

    def stopped() -> bool:
        return status.read_text().rpartition(")")[2].split()[0] == "T"

    await until(stopped, within=30, what="a relay that freezes itself")


@asynccontextmanager
async def traffic(
    engine: AsyncEngine, name: str, keys: Sequence[str] = KEYS
) -> AsyncIterator[None]:
    """Append all the time."""
    stop = asyncio.Event()

    async def write() -> None:
        while not stop.is_set():
            await append_apart(engine, *events(name, keys, 1))

    writing = asyncio.gather(write(), write())
    try:
        yield
    finally:
        stop.set()
        await writing


async def sent(engine: AsyncEngine) -> int:
    async with engine.connect() as connection:
        query = text("select count(*) from lethe.outbox where status = 1")
        return int(await connection.scalar(query) or 0)


async def more_sent(engine: AsyncEngine, rows: int, *, than: int | None = None) -> None:
    """Wait for so many rows more than now, or `than` were sent; without traffic, say `than`."""
    goal = (await sent(engine) if than is None else than) + rows

    async def reached() -> bool:
        return await sent(engine) >= goal

    await until(reached, within=40, what=f"{rows} more rows sent")


async def owners(engine: AsyncEngine) -> dict[str, int]:
    """Give how many buckets each relay owns."""
    async with engine.connect() as connection:
        rows = await connection.execute(
            text(
                "select owner::text, count(*) from lethe.outbox_bucket"
                " where lease_until > now() group by owner"
            )
        )
        return {row[0]: row[1] for row in rows}

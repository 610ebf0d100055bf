"""A janitor as a process, to be killed.

It waits for locks for a minute, so that a test that holds one knows where it stands.
"""

import asyncio
from pathlib import Path

from sqlalchemy.ext.asyncio import create_async_engine

from lethe_outbox.partitions.upkeep import Upkeep, UpkeepRules
from tests.support.forked import Forked


def start(url: str, log: Path) -> Forked:
    """Start one; what it says goes to `log`."""
    return Forked(_run, url, out=log)


def _run(url: str) -> None:
    asyncio.run(_janitor(url))


async def _janitor(url: str) -> None:
    engine = create_async_engine(url)
    await Upkeep(engine, rules=UpkeepRules(lock_seconds=60)).run()
    await engine.dispose()

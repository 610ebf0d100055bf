"""A janitor as a process, to be killed: `python -m tests.support.janitor_process URL`.

It waits for locks for a minute, so that a test that holds one knows where it stands.
"""

import asyncio
import subprocess
import sys
from pathlib import Path

from sqlalchemy.ext.asyncio import create_async_engine

from lethe_outbox.upkeep import Upkeep, UpkeepRules

ROOT = Path(__file__).parents[2]


async def main(url: str) -> None:
    engine = create_async_engine(url)
    await Upkeep(engine, rules=UpkeepRules(lock_seconds=60)).run()
    await engine.dispose()


def start(url: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-m", "tests.support.janitor_process", url], cwd=ROOT)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))

"""The measured end of a measured process: standard library only, for peers with their own packages.

Both ends speak lines of JSON over standard input and output: the process says `ready`, waits for
`go`, works, tells what it found, and ends with `end`.
"""

import asyncio
import json
import struct
import sys
from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

PROGRESS = struct.Struct("=qq")


def say(**told: Any) -> None:
    """Tell the other end."""
    print(json.dumps(told), flush=True)


def hear_now() -> str:
    """Wait for the other end's next word, whatever else there is to do; empty when it is gone."""
    return sys.stdin.readline().strip()


async def hear() -> str:
    """Wait for the other end's next word while other tasks go on."""
    return await asyncio.get_running_loop().run_in_executor(None, hear_now)


async def answer(work: Callable[[], Coroutine[Any, Any, Mapping[str, Any]]]) -> None:
    """Say ready, wait for the word, work, tell what came of it, and wait for the end."""
    say(ready=True)
    await hear()
    say(**await work())
    await hear()


class Progress:
    """Two numbers in a file that another process reads at any time: what is owned and done."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("r+b", buffering=0)

    def set(self, owned: int, done: int) -> None:
        """Write both."""
        self._file.seek(0)
        self._file.write(PROGRESS.pack(owned, done))

    def get(self) -> tuple[int, int]:
        """Read both."""
        self._file.seek(0)
        owned, done = PROGRESS.unpack(self._file.read(PROGRESS.size))
        return owned, done

    def __enter__(self) -> Self:
        """Use it until the end of the block."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close the file."""
        self._file.close()

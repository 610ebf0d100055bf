"""Every effect that a process has on the world, seen and held back on its way to the servers.

An effect is the commit of a transaction that wrote something, or a call to S3 that deletes: what
lies between two of them leaves nothing behind. The process itself is the product's own, unchanged.
"""

import asyncio
import re
from dataclasses import dataclass, field
from typing import Final

_COMMIT: Final = b"Q\x00\x00\x00\x0bCOMMIT\x00"
_ROLLBACK: Final = b"Q\x00\x00\x00\rROLLBACK\x00"
_WROTE: Final = re.compile(rb"C\x00\x00\x00.(?:INSERT 0|UPDATE|DELETE) [1-9][0-9]*\x00", re.DOTALL)
"""How PostgreSQL says that a statement changed rows."""


@dataclass
class Life:
    """What one process does, as far as it is let.

    Attributes:
        stop_before: the number of the effect, from 0, that waits, and every other with it; None to
            hold nothing back.
        seen: the effects that happened.
        reached: set when the effect to stop before came.
    """

    stop_before: int | None = None
    seen: list[str] = field(default_factory=list)
    reached: asyncio.Event = field(default_factory=asyncio.Event)
    _over: asyncio.Event = field(default_factory=asyncio.Event)
    _is_dead: bool = False

    def count_from_here(self, stop_before: int) -> None:
        """Forget what was seen, and hold back the effect of that number from now."""
        self.seen.clear()
        self.stop_before = stop_before

    async def about_to(self, effect: str) -> None:
        """Return when `effect` may happen.

        Raises:
            ConnectionAbortedError: the process died before it.
        """
        if self.stop_before is not None and len(self.seen) >= self.stop_before:
            self.reached.set()
            await self._over.wait()
        if self._is_dead:
            raise ConnectionAbortedError
        self.seen.append(effect)

    def go_on(self) -> None:
        """Let happen what was held back, and everything after it."""
        self.stop_before = None
        self._over.set()

    def end(self) -> None:
        """Drop what was held back: the process was killed."""
        self._is_dead = True
        self._over.set()


class OnPostgres:
    """Sees one connection's commits of something written."""

    def __init__(self, life: Life) -> None:
        self._life = life
        self._wrote = False

    async def asks(self, data: bytes) -> None:
        """Hold a commit back as long as the life says."""
        if data == _COMMIT and self._wrote:
            await self._life.about_to("commit")
        if data in (_COMMIT, _ROLLBACK):
            self._wrote = False

    def answers(self, data: bytes) -> None:
        """See whether a statement wrote."""
        self._wrote = self._wrote or _WROTE.search(data) is not None


class OnS3:
    """Sees one connection's calls that delete."""

    def __init__(self, life: Life) -> None:
        self._life = life

    async def asks(self, data: bytes) -> None:
        """Hold a deletion back as long as the life says."""
        if data.startswith(b"POST ") and b"?delete" in data.split(b"\r\n", 1)[0]:
            await self._life.about_to("DeleteObjects")

    def answers(self, data: bytes) -> None:
        """Nothing that S3 answers matters."""

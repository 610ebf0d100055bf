"""Every effect that a process has on the world, seen and held back on its way to the servers.

An effect is a call to S3 that deletes. The process itself is the product's own, unchanged.
"""

import asyncio
from dataclasses import dataclass, field


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

    async def about_to(self, effect: str) -> None:
        """Return when `effect` may happen."""
        if self.stop_before is not None and len(self.seen) >= self.stop_before:
            self.reached.set()
            await self._over.wait()
        self.seen.append(effect)

    def go_on(self) -> None:
        """Let happen what was held back, and everything after it."""
        self.stop_before = None
        self._over.set()


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

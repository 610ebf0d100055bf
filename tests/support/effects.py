"""Every effect that an eraser has on the world, in order; it may die before any of them.

An effect is a commit, a changing call to S3, or an invalidation at the edges: what lies between two
of them leaves nothing behind. Once dead, an eraser has no more effects, whatever its threads do.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Lock
from typing import Any, Final
from unittest.mock import patch

from botocore.client import BaseClient
from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncEngine

from tests.support.edges import Edges

READING: Final = ("Get", "Head", "List")


class Killed(BaseException):
    """The eraser died here; nothing after this line ran."""


@dataclass
class Effects:
    """Counts effects, and lets the eraser die before one of them.

    Attributes:
        die_before: the number of the effect, from 0, that does not happen; None for no death.
        seen: the effects that happened.
    """

    die_before: int | None = None
    seen: list[str] = field(default_factory=list)
    _dead: bool = False
    _lock: Lock = field(default_factory=Lock)

    def about_to(self, effect: str) -> None:
        """Let `effect` happen.

        Raises:
            Killed: the eraser dies before it, or has died.
        """
        with self._lock:
            self._dead = self._dead or len(self.seen) == self.die_before
            if self._dead:
                raise Killed
            self.seen.append(effect)

    @contextmanager
    def of(self, engine: AsyncEngine) -> Iterator[None]:
        """Stand before every commit of `engine` and every changing call of boto3."""
        real: Callable[..., Any] = vars(BaseClient)["_make_api_call"]

        def call(client: BaseClient, operation: str, arguments: Any) -> Any:
            if not operation.startswith(READING):
                self.about_to(operation)
            return real(client, operation, arguments)

        def commit(_connection: Any) -> None:
            self.about_to("commit")

        event.listen(engine.sync_engine, "commit", commit)
        try:
            with patch.object(BaseClient, "_make_api_call", call):
                yield
        finally:
            event.remove(engine.sync_engine, "commit", commit)


@dataclass
class MortalEdges(Edges):
    """A CDN that hears nothing of the dead."""

    effects: Effects = field(default_factory=Effects)

    async def create(self, distribution: str, reference: str, paths: tuple[str, ...]) -> str:
        self.effects.about_to("invalidation")
        return await super().create(distribution, reference, paths)

    async def is_done(self, distribution: str, invalidation_id: str) -> bool:
        assert distribution
        return invalidation_id.removeprefix("I-") in self.created

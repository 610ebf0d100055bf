"""Awaiting steps of aiokafka that never end while no broker answers."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Any, TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Attendant:
    """Awaits such a step, and asks the brokers now and then whether they are there.

    A group's first assignment is one; a rebalance and a commit are others.
    """

    ask: Callable[[], Awaitable[object]]
    """Asks the brokers anything; raises if none answers."""
    every: float
    """Seconds between two questions while a step is not done."""
    answer_seconds: float
    """How long the answer may take."""

    async def done(
        self, step: Coroutine[Any, Any, T], *, unless: asyncio.Event | None = None
    ) -> T | None:
        """Return the result of `step`; None, and `step` is cancelled, once `unless` is set.

        Raises:
            TimeoutError: the question had no answer.
            Exception: what `step` or `ask` raises.
        """
        working = asyncio.ensure_future(step)
        stopping = asyncio.ensure_future((unless or asyncio.Event()).wait())
        both = (working, stopping)
        try:
            while not await _any_done(both, self.every):
                async with asyncio.timeout(self.answer_seconds):
                    await self.ask()
            return working.result() if working.done() else None
        finally:
            for task in both:
                task.cancel()
            await asyncio.gather(*both, return_exceptions=True)


async def _any_done(tasks: tuple[asyncio.Future[Any], ...], seconds: float) -> bool:
    done, _ = await asyncio.wait(tasks, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    return bool(done)

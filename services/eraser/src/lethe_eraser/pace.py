"""How many rows a second of the product all persons together are masked: a budget of the process.

A batch or a chunk takes its rows before it begins, while nothing is locked and nothing committed.
The first that comes begins at once, whatever its size; the next waits until the rows of all before
it are paid for. So the rows whose turn falls into any stretch of time are no more than the budget
allows, and one batch.

aiolimiter was looked at: it refuses an amount above its rate, which a batch may well be, and
nobody can leave its queue for another reason than being cancelled.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Final

ROWS_PER_SECOND: Final = 10_000
"""The default; several times what one eraser was ever seen to mask."""

LOOK_SECONDS: Final = 0.25
"""How often who waits asks whether to go on: what a stop waits for at most."""

MayBegin = Callable[[], bool]


class RowBudget:
    """The rows that one process may mask; used by one event loop.

    Args:
        rows_per_second: rows of features, tasks and clients, of all persons together.
        on_waited: told how many seconds somebody waited, after each wait.
        clock: seconds that only grow.
        sleep: waits.
    """

    def __init__(
        self,
        rows_per_second: float = ROWS_PER_SECOND,
        *,
        on_waited: Callable[[float], None] = lambda _seconds: None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._rate = rows_per_second
        self._on_waited = on_waited
        self._clock = clock
        self._sleep = sleep
        self._free_at = clock()

    @property
    def is_spent(self) -> bool:
        """Whether who comes now has to wait."""
        return self._free_at > self._clock()

    async def take(self, rows: int, may_begin: MayBegin) -> bool:
        """Wait for the turn of this many rows, in the order of asking; hold no lock meanwhile.

        Returns:
            Whether to begin. False as soon as `may_begin` said no, which is asked at least once
            and last when the turn has come; the rows are given back.
        """
        came = self._clock()
        turn = max(came, self._free_at)
        self._free_at = turn + rows / self._rate
        begins = False
        try:
            while may_begin():
                left = turn - self._clock()
                if left <= 0:
                    begins = True
                    break
                await self._sleep(min(left, LOOK_SECONDS))
        finally:
            if not begins:
                self._free_at -= rows / self._rate
            if turn > came:
                self._on_waited(self._clock() - came)
        return begins

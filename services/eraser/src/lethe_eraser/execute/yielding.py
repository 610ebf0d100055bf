"""When the product's database answers slower than it did, the eraser steps back.

A mask that took twice the median of the latest ones is followed by a rest as long as it took, so
that at most half of a busy database's time is ours.
"""

from collections import deque
from statistics import median
from typing import Final

REMEMBERED: Final = 15
"""Masks that the median is taken of."""

FEWEST: Final = 4
"""Masks before which nobody knows what is usual."""

SLOWER: Final = 2.0
"""How many medians a mask takes that is followed by a rest."""

LONGEST_REST: Final = 5.0
"""Seconds; a window is short, and a mask may have waited for a lock."""


class Yielding:
    """Remembers how long the masks of one job took."""

    def __init__(self) -> None:
        self._took: deque[float] = deque(maxlen=REMEMBERED)

    def after(self, seconds: float) -> float:
        """Give how long to rest after a mask that took `seconds`; 0 for not at all."""
        is_known = len(self._took) >= FEWEST
        is_slow = is_known and seconds >= SLOWER * median(self._took)
        self._took.append(seconds)
        return min(seconds, LONGEST_REST) if is_slow else 0.0

"""Reading all buckets of a large backlog at about the same place.

Rows lie in the table as they were written, those of all buckets side by side. Buckets of few rows
that run ahead of those of many have the database read and write each page once for every bucket in
it, as soon as what lies between them is more than its memory holds. So whoever is ahead gives way.
"""

from collections.abc import Iterable
from typing import Final

AHEAD_IDS: Final = 40_000
"""Further than this before the front, a bucket gives way."""
FAR_IDS: Final = 4 * AHEAD_IDS
"""Further than this behind the middle, a bucket is waited for by nobody: a hot key, say."""
_SHARE: Final = 4


def front_of(cursors: Iterable[int]) -> int:
    """Say where reading goes on: at the hindmost bucket that is not far behind the middle one.

    Args:
        cursors: how far each bucket was read that can be read on; at least one.
    """
    ordered = sorted(cursors)
    middle = ordered[len(ordered) // 2]
    return next(one for one in ordered if one >= middle - FAR_IDS)


def rows_at(cursor: int, front: int, limit: int) -> int:
    """Give how many rows are read of a bucket: `limit`, or a quarter if it is ahead."""
    return limit if cursor <= front + AHEAD_IDS else max(1, limit // _SHARE)

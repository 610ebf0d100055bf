"""Moments as people write them on a command line."""

import re
from datetime import UTC, datetime, timedelta
from typing import Final

_AGO: Final = re.compile(r"(\d{1,6})([smhdw])")
_UNITS: Final = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def moment(text: str, now: datetime | None = None) -> datetime:
    """Read `2026-11-20T13:00` (UTC unless it says otherwise) or `90m`, `2h`, `3d`, `1w` ago.

    Raises:
        ValueError: it is neither.
    """
    ago = _AGO.fullmatch(text)
    if ago is not None:
        number, unit = ago.groups()
        try:
            return (now or datetime.now(UTC)) - timedelta(**{_UNITS[unit]: int(number)})
        except OverflowError:
            raise ValueError("that is before the first year") from None
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError("give ISO 8601, e.g. 2026-11-20T13:00, or 90m, 2h, 3d, 1w") from None
    return found if found.tzinfo is not None else found.replace(tzinfo=UTC)

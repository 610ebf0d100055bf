"""When erasing is allowed: a daily span of local time, or always.

The wall clock of the zone decides, also where it jumps: an hour that happens twice is open twice,
and a start that does not exist on some day is the first instant after the gap.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta, tzinfo
from typing import Final
from zoneinfo import ZoneInfo

ALWAYS: Final = "always"
_SPAN: Final = re.compile(r"([01]\d|2[0-3]):([0-5]\d)-(?:([01]\d|2[0-3]):([0-5]\d)|(24:00))")
_DAYS: Final = 4
"""Days looked ahead: a window may lie wholly in the hour that a spring day lacks."""


class WindowError(ValueError):
    """A window that cannot be read; the message says how to write one."""


@dataclass(frozen=True, slots=True)
class Window:
    """A half-open daily span `[start, end)` of wall-clock time in `zone`.

    It crosses midnight if `end` is not after `start`. Without a span it is always open.
    """

    zone: tzinfo
    span: tuple[time, time] | None = None

    @classmethod
    def parse(cls, text: str, zone: str) -> "Window":
        """Read `HH:MM-HH:MM` or `always`, and the name of a time zone.

        Raises:
            WindowError: The text is neither, the span is empty, or the zone is unknown.
        """
        try:
            found_zone = ZoneInfo(zone)
        except (KeyError, ValueError, OSError):
            raise WindowError("no such time zone; write one like Asia/Seoul") from None
        if text.strip().lower() == ALWAYS:
            return cls(found_zone)
        match = _SPAN.fullmatch(text.strip())
        if match is None:
            raise WindowError("write HH:MM-HH:MM, like 01:00-05:00, or always")
        start_hour, start_minute, end_hour, end_minute, _ = match.groups()
        start = time(int(start_hour), int(start_minute))
        end = time(int(end_hour or 0), int(end_minute or 0))
        if start == end:
            raise WindowError("start and end are the same; write always for the whole day")
        return cls(found_zone, (start, end))

    def is_open(self, at: datetime) -> bool:
        """Whether erasing is allowed at `at` (aware)."""
        if self.span is None:
            return True
        start, end = self.span
        wall = at.astimezone(self.zone).time()
        if start < end:
            return start <= wall < end
        return wall >= start or wall < end

    def next_open(self, at: datetime) -> datetime:
        """The first instant not before `at` at which the window is open, in UTC."""
        return self._first(at, wanted=True) or at.astimezone(UTC)

    def closes(self, at: datetime) -> datetime | None:
        """The first instant not before `at` at which the window is closed; None if it never is."""
        return self._first(at, wanted=False)

    def _first(self, at: datetime, *, wanted: bool) -> datetime | None:
        at = at.astimezone(UTC)
        if self.is_open(at) is wanted:
            return at
        if self.span is None:
            return None
        edge = self.span[0] if wanted else self.span[1]
        candidates = {*self._at_wall_time(edge, at), *self._jumps(at)}
        later = sorted(instant for instant in candidates if instant > at)
        return next((instant for instant in later if self.is_open(instant) is wanted), None)

    def _at_wall_time(self, wall: time, at: datetime) -> Iterable[datetime]:
        today = at.astimezone(self.zone).date()
        for day in range(-1, _DAYS):
            for fold in (0, 1):
                local = datetime.combine(
                    today + timedelta(days=day), wall.replace(fold=fold), self.zone
                )
                yield local.astimezone(UTC)

    def _jumps(self, at: datetime) -> Iterable[datetime]:
        """The instants, to the second, at which the zone's clock jumps in the days from `at` on."""
        # From a whole second on: halves of what is left of one would never come to an end.
        start, step = at.replace(microsecond=0), timedelta(hours=1)
        for hour in range(_DAYS * 24):
            low = start + hour * step
            high = low + step
            if self._offset(low) == self._offset(high):
                continue
            while high - low > timedelta(seconds=1):
                middle = (low + (high - low) / 2).replace(microsecond=0)
                if self._offset(middle) == self._offset(low):
                    low = middle
                else:
                    high = middle
            yield high

    def _offset(self, at: datetime) -> timedelta | None:
        return at.astimezone(self.zone).utcoffset()

"""Checking the numbers of a settings class, so that a wrong one is told by its name."""

import math
from collections.abc import Collection
from dataclasses import fields
from typing import Any


def wrong_number(settings: Any, *, may_be_zero: Collection[str] = ()) -> str | None:
    """Say of a dataclass which of its numbers makes no sense, and what it must be; None if all do.

    Whole numbers must be whole, none may be endless or no number at all, and all be positive but
    for those that `may_be_zero`.
    """
    for one in fields(settings):
        if one.type not in (int, float):
            continue
        value = getattr(settings, one.name)
        kinds = int if one.type is int else int | float
        least = "0 or more" if one.name in may_be_zero else "more than 0"
        if isinstance(value, bool) or not isinstance(value, kinds) or not math.isfinite(value):
            kind = "a whole number" if one.type is int else "a finite number"
            return f"{one.name} must be {kind}, {least}"
        if value < 0 or (value == 0 and one.name not in may_be_zero):
            return f"{one.name} must be {least}"
    return None

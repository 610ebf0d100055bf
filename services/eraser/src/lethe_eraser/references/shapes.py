"""Where a JSON value seems to name objects, as JSONPaths a person can put into a catalog."""

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

DEEPEST: Final = 64
"""Nesting beyond which a value is not looked into."""

_PLAIN: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,40}")


def parsed(text: str) -> object | None:
    """Read `text` as JSON; None if it is none."""
    try:
        value: object = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return value


def places(value: object, refers: Callable[[str], bool]) -> Iterator[str]:
    """Give the path of every string of which `refers` is true; lists become `[*]`.

    A member whose name does not look like one (an id, say) is written `*`: a path is shown to
    people, and a name that was made of data is data.
    """
    open_values: list[tuple[str, object, int]] = [("$", value, 0)]
    while open_values:
        path, one, depth = open_values.pop()
        if isinstance(one, str):
            if refers(one):
                yield path
        elif depth < DEEPEST:
            open_values += [(f"{path}{step}", v, depth + 1) for step, v in _members(one)]


def counted(values: Iterable[object], refers: Callable[[str], bool]) -> Counter[str]:
    """Count in how many of `values` each place refers to something."""
    found: Counter[str] = Counter()
    for value in values:
        found.update(set(places(value, refers)))
    return found


def parent_and_member(path: str) -> tuple[str, str]:
    """Split a path into its object and the member's name, which is empty for an item of a list."""
    if path.endswith("]") or path == "$":
        return path, ""
    parent, _, member = path.rpartition(".")
    return parent, member


def _members(value: Any) -> Iterator[tuple[str, object]]:
    if isinstance(value, dict):
        for name, member in value.items():
            yield f".{name}" if _PLAIN.fullmatch(name) else ".*", member
    elif isinstance(value, list):
        for item in value:
            yield "[*]", item

"""A JSONPath of the catalog, quick where it is plain: members by name and all items of a list."""

from collections.abc import Iterable, Sequence
from typing import Any, Final, NamedTuple

from jsonpath import JSONPath
from jsonpath.segments import JSONPathChildSegment
from jsonpath.selectors import NameSelector, WildcardSelector

_ALL: Final = None
"""The step to every member or item."""


class Hit(NamedTuple):
    """Something a path found; `parent` holds it under `part`, both None at the root."""

    obj: Any
    parent: Any = None
    part: str | int | None = None


class JsonPath:
    """One compiled path; the library answers for all that is not plain."""

    __slots__ = ("_path", "_steps")

    def __init__(self, path: JSONPath) -> None:
        self._path = path
        self._steps = _plain(path)

    def __str__(self) -> str:
        return str(self._path)

    @property
    def is_root(self) -> bool:
        """Whether it is the whole value."""
        return not self._path.segments

    def find(self, value: Any) -> Sequence[Hit]:
        """Give what the path finds in a list or an object, in order.

        Raises:
            JSONPathError: the value cannot be looked through.
        """
        if self._steps is not None:
            return _follow(value, self._steps)
        return [
            Hit(
                match.obj,
                None if match.parent is None else match.parent.obj,
                match.parts[-1] if match.parts else None,
            )
            for match in self._path.finditer(value)
        ]


def _plain(path: JSONPath) -> tuple[str | None, ...] | None:
    steps: list[str | None] = []
    for segment in path.segments:
        if type(segment) is not JSONPathChildSegment or len(segment.selectors) != 1:
            return None
        [selector] = segment.selectors
        if type(selector) is NameSelector:
            steps.append(selector.name)
        elif type(selector) is WildcardSelector:
            steps.append(_ALL)
        else:
            return None
    return None if path.pseudo_root else tuple(steps)


def _follow(value: Any, steps: tuple[str | None, ...]) -> Sequence[Hit]:
    hits = [Hit(value)]
    for step in steps:
        below = [hit.obj for hit in hits]
        if step is not _ALL:
            hits = [Hit(o[step], o, step) for o in below if isinstance(o, dict) and step in o]
        else:
            hits = [Hit(member, o, part) for o in below for part, member in _members(o)]
    return hits


def _members(value: Any) -> Iterable[tuple[str | int, Any]]:
    if isinstance(value, dict):
        return value.items()
    return enumerate(value) if isinstance(value, list) else ()

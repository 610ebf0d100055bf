"""A JSON text that may be large, read as it comes, into what of it can matter for references.

Bounded whatever comes: strings that are too long to be a key and name nothing are cut, and a text
with too much of anything is refused rather than half read.
"""

import re
from collections.abc import AsyncIterator, Callable
from typing import Any, Final

import ijson  # type: ignore[import-untyped]  # brings no types

DEEPEST: Final = 100
"""Nesting beyond which a text is refused."""

MOST_VALUES: Final = 200_000
"""Values and member names in a text."""

MOST_CHARACTERS: Final = 8_388_608
"""Characters of all strings that are kept."""

LONGEST_VALUE: Final = 8_388_608
"""Bytes that one value may take in the text."""

CUT_AT: Final = 1_200
"""Characters that are kept of a string that refers to nothing: more than the longest key has."""

_BOM: Final = b"\xef\xbb\xbf"

_HALF: Final = re.compile(rb"\\(?<!\\\\)(?:\\\\)*+u[dD][89abAB]..(?!\\u[dD][c-fC-F])", re.DOTALL)
"""The first half of a character without its second, which ijson's C part takes for another one.

Its backslash is the last of an odd number: of an even number, each second one is text.
"""
_WHOLE: Final = len(rb"\ud83d\ude00")


class UnreadableError(Exception):
    """The text is no JSON, or holds more than is read; nothing of it is to be used."""


async def read_streamed(chunks: AsyncIterator[bytes], refers: Callable[[str], bool]) -> object:
    """Read JSON from `chunks`; strings of which `refers` is true are kept whole.

    Raises:
        UnreadableError: It is no JSON, a name stands twice in an object, or it is too much.
    """
    events = ijson.sendable_list()
    parser = ijson.basic_parse_coro(events, use_float=True)
    reduction = _Reduction(refers)
    silent = 0
    try:
        async for chunk in _without_halves(_without_mark(chunks)):
            parser.send(chunk)
            silent = 0 if events else silent + len(chunk)
            if silent > LONGEST_VALUE:
                raise UnreadableError
            reduction.take(events)
            del events[:]
        parser.close()
    # A number of thousands of digits ends in a SystemError of ijson's C part.
    except (ijson.JSONError, ValueError, OverflowError, SystemError):
        raise UnreadableError from None
    reduction.take(events)
    return reduction.whole()


async def _without_mark(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Leave out a byte order mark, and empty chunks, which the parser takes for the end."""
    head: bytes | None = b""
    async for chunk in chunks:
        text = chunk
        if head is not None:
            head += chunk
            if len(head) < len(_BOM):
                continue
            text, head = head.removeprefix(_BOM), None
        if text:
            yield text
    if head:
        yield head


async def _without_halves(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Refuse half a character: what is read instead of it would be another name."""
    tail = b""
    async for chunk in chunks:
        tail += chunk
        half = _HALF.search(tail)
        if half is not None and half.end() + _WHOLE // 2 <= len(tail):
            raise UnreadableError
        before, tail = tail[: 1 - _WHOLE], tail[1 - _WHOLE :]
        # Of the backslashes that end here only their being odd matters.
        tail = b"\\" * ((len(before) - len(before.rstrip(b"\\"))) % 2) + tail
        yield chunk
    if _HALF.search(tail):
        raise UnreadableError


class _Reduction:
    """The value as far as it has come."""

    def __init__(self, refers: Callable[[str], bool]) -> None:
        self._refers = refers
        self._open: list[dict[str, Any] | list[Any]] = []
        self._names: list[str] = []
        self._done: list[object] = []
        self._values = 0
        self._characters = 0

    def take(self, events: list[tuple[str, Any]]) -> None:
        """Go on with the next events of the parser."""
        self._values += len(events)
        if self._values > MOST_VALUES:
            raise UnreadableError
        for event, value in events:
            match event:
                case "start_map" | "start_array":
                    self._begin({} if event == "start_map" else [])
                case "end_map" | "end_array":
                    self._open.pop()
                    self._names.pop()
                case "map_key":
                    self._names[-1] = self._kept(value)
                case "string":
                    self._put(self._kept(value))
                case _:
                    self._put(value)

    def whole(self) -> object:
        """The value, once the text has ended."""
        if len(self._done) != 1 or self._open:
            raise UnreadableError
        return self._done[0]

    def _begin(self, value: dict[str, Any] | list[Any]) -> None:
        if len(self._open) >= DEEPEST:
            raise UnreadableError
        self._put(value)
        self._open.append(value)
        self._names.append("")

    def _put(self, value: object) -> None:
        if not self._open:
            self._done.append(value)
            return
        parent = self._open[-1]
        if isinstance(parent, list):
            parent.append(value)
        elif self._names[-1] in parent:
            raise UnreadableError
        else:
            parent[self._names[-1]] = value

    def _kept(self, text: str) -> str:
        if len(text) > CUT_AT and not self._refers(text):
            text = text[:CUT_AT]
        self._characters += len(text)
        if self._characters > MOST_CHARACTERS:
            raise UnreadableError
        return text

"""What a PromQL expression asks for: which metrics, which of their labels. A reader, not a parser.

It knows what our rules and panels use: selectors, functions, `aggregation by (labels) (...)` and
`on (labels)`. promtool judges the syntax; this only says which names must exist.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

_TOKEN = re.compile(
    r"""
      (?P<string>"(?:[^"\\]|\\.)*")
    | (?P<range>\[[^\]]*\])
    | (?P<number>[+-]?Inf\b|\d[\w.]*)
    | (?P<name>[a-zA-Z_:][\w:]*)
    | (?P<punctuation>=~|!~|!=|>=|<=|==|[-+*/%^(){},<>=])
    | (?P<space>\s+)
    """,
    re.VERBOSE,
)
_GROUPING = {"by", "without"}
_MATCHING = {"on", "ignoring", "group_left", "group_right"}
_WORDS = {"and", "or", "unless", "bool", "offset"}


@dataclass(frozen=True, slots=True)
class Use:
    """A metric that an expression names, and every label asked of it."""

    metric: str
    labels: frozenset[str]


class UnreadableError(Exception):
    """The expression has something this reader does not know."""


def uses(expression: str) -> list[Use]:
    """Name every metric of `expression` with the labels that matchers and `by` ask of it."""
    return list(_read(_tokens(expression), frozenset()))


def _tokens(expression: str) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    at = 0
    while at < len(expression):
        match = _TOKEN.match(expression, at)
        if match is None:
            raise UnreadableError(f"at {at}: {expression[at:]}")
        at = match.end()
        kind = match.lastgroup or ""
        if kind != "space":
            found.append((kind, match.group()))
    return found


def _read(tokens: list[tuple[str, str]], asked: frozenset[str]) -> Iterator[Use]:
    at = 0
    while at < len(tokens):
        kind, text = tokens[at]
        following = tokens[at + 1][1] if at + 1 < len(tokens) else ""
        if kind != "name" or text in _WORDS:
            at += 1
        elif text in _GROUPING | _MATCHING:
            labels, at = _labels(tokens, at + 1)
            if text in _GROUPING:
                end = _closing(tokens, at)
                yield from _read(tokens[at + 1 : end], asked | labels)
                at = end + 1
        elif following == "(" or following in _GROUPING:
            at += 1
        else:
            matched: frozenset[str] = frozenset()
            at += 1
            if following == "{":
                end = next(i for i in range(at, len(tokens)) if tokens[i][1] == "}")
                matched = frozenset(word for what, word in tokens[at:end] if what == "name")
                at = end + 1
            yield Use(text, asked | matched)


def _labels(tokens: list[tuple[str, str]], at: int) -> tuple[frozenset[str], int]:
    if tokens[at][1] != "(":
        raise UnreadableError("a list of labels is expected")
    end = _closing(tokens, at)
    return frozenset(word for what, word in tokens[at:end] if what == "name"), end + 1


def _closing(tokens: list[tuple[str, str]], at: int) -> int:
    depth = 0
    for place in range(at, len(tokens)):
        depth += {"(": 1, ")": -1}.get(tokens[place][1], 0)
        if depth == 0:
            return place
    raise UnreadableError("a parenthesis is not closed")

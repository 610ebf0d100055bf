"""Waiting in tests: for a condition, with a deadline, never for a fixed time."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from inspect import isawaitable
from typing import Any, TypeVar, overload

T = TypeVar("T")


@overload
async def until(
    condition: Callable[[], Awaitable[T]],
    *,
    within: float = 20,
    every: float = 0.02,
    what: str = "the condition",
) -> T: ...


@overload
async def until(
    condition: Callable[[], T],
    *,
    within: float = 20,
    every: float = 0.02,
    what: str = "the condition",
) -> T: ...


async def until(
    condition: Callable[[], Any],
    *,
    within: float = 20,
    every: float = 0.02,
    what: str = "the condition",
) -> Any:
    """Poll `condition`, sync or async, and give its first truthy answer.

    What `condition` raises passes through. Raises AssertionError, with the last answer, when none
    was truthy within `within` seconds.
    """
    deadline = time.monotonic() + within
    while True:
        answer = condition()
        value = await answer if isawaitable(answer) else answer
        if value:
            return value
        assert time.monotonic() < deadline, f"{what} did not come within {within} s: last {value!r}"
        await asyncio.sleep(every)


def until_sync(
    condition: Callable[[], T],
    *,
    within: float = 20,
    every: float = 0.02,
    what: str = "the condition",
) -> T:
    """Poll like `until`, for tests without an event loop."""
    deadline = time.monotonic() + within
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < deadline, f"{what} did not come within {within} s: last {value!r}"
        time.sleep(every)

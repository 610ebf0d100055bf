"""Blocking calls in one bounded pool of threads."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

T = TypeVar("T")


class Threads:
    """At most `count` calls at once."""

    def __init__(self, count: int) -> None:
        self._pool = ThreadPoolExecutor(count, thread_name_prefix="s3")

    async def run(self, function: Callable[..., T], *arguments: Any) -> T:
        """Call `function` on one of the threads."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, function, *arguments)

    async def close(self) -> None:
        """Wait for calls under way and release the threads."""
        await asyncio.get_running_loop().run_in_executor(None, self._pool.shutdown)


async def every(awaitables: Iterable[Awaitable[T]]) -> list[T]:
    """Wait for all, and only then raise the first error: nothing goes on unseen."""
    results = await asyncio.gather(*awaitables, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return [result for result in results if not isinstance(result, BaseException)]

"""The life of a service: start, run every loop, drain on SIGTERM, leave.

A loop is a coroutine function that takes the stop event and returns, having finished what it began,
soon after the event is set. SIGTERM and SIGINT set it; a second signal exits at once, which is safe
because everything in Lethe may be killed at any line.
"""

import asyncio
import gc
import os
import signal
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, contextmanager
from typing import Final

import structlog

from lethe_runtime.errors import LetheRuntimeError, is_ours
from lethe_runtime.logging import error_class, places

Loop = Callable[[asyncio.Event], Awaitable[None]]

YOUNG_OBJECTS: Final = 20_000
"""Allocations after which the garbage collector scans its youngest generation."""


class CancelledByDriverError(LetheRuntimeError):
    """Something that a loop awaited was cancelled beneath it; the message says where."""


_log = structlog.get_logger(__name__)


def run(
    service: str,
    loops: Mapping[str, Loop],
    *,
    drain_seconds: float,
    resources: Iterable[AbstractAsyncContextManager[object]] = (),
) -> int:
    """Run every loop until a signal, and return the exit code.

    Args:
        service: named in the log lines.
        loops: by name; each runs until the stop event is set.
        drain_seconds: how long the loops may take to finish after that.
        resources: entered in order before the loops, left in reverse after them. They must not wait
            for a server that is away; loops do.

    Returns:
        0 after a drained stop; 1 if a loop failed, ended by itself, or did not finish in time.
    """

    async def main() -> int:
        stop = asyncio.Event()
        _on_signals(service, stop)
        async with AsyncExitStack() as stack:
            for resource in resources:
                await stack.enter_async_context(resource)
            with _rarely_collected():
                return await run_loops(service, loops, stop=stop, drain_seconds=drain_seconds)

    return asyncio.run(main())


async def run_loops(
    service: str, loops: Mapping[str, Loop], *, stop: asyncio.Event, drain_seconds: float
) -> int:
    """Run every loop until `stop` is set or one of them ends; see `run` for the exit code."""
    tasks = {
        asyncio.create_task(_awaited(loop, stop), name=name): name for name, loop in loops.items()
    }
    stopped = asyncio.create_task(stop.wait())
    _log.info("started", program=service, loops=sorted(loops))
    try:
        await asyncio.wait({stopped, *tasks}, return_when=asyncio.FIRST_COMPLETED)
        failed = not stop.is_set() and any(task.done() for task in tasks)
        for task in [task for task in tasks if task.done() and not stop.is_set()]:
            if not task.cancelled() and task.exception() is None:
                _log.error("loop ended by itself", loop=tasks[task])
        stop.set()
        _, unfinished = await asyncio.wait(tasks, timeout=drain_seconds)
        for task in unfinished:
            _log.error("loop did not finish in time", loop=tasks[task], seconds=drain_seconds)
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    finally:
        stopped.cancel()
        for task in tasks:
            task.cancel()
    for task, name in tasks.items():
        if not task.cancelled() and (error := task.exception()) is not None:
            _tell(name, error)
            failed = True
    failed = failed or bool(unfinished)
    _log.info("stopped", program=service, exit_code=int(failed))
    return int(failed)


@contextmanager
def _rarely_collected() -> Iterator[None]:
    """Run the garbage collector rarely, and never over what was there before.

    Hardly anything of ours is cyclic. To scan the hundreds of thousands of objects of libraries
    again and again took a fifth of a busy eraser's CPU, to scan its batches a tenth.
    """
    thresholds = gc.get_threshold()
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG_OBJECTS, *thresholds[1:])
    try:
        yield
    finally:
        gc.set_threshold(*thresholds)
        gc.unfreeze()


async def _awaited(loop: Loop, stop: asyncio.Event) -> None:
    """Run a loop; a cancellation that nobody asked for (a driver's own) is an error like others."""
    try:
        await loop(stop)
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise
        raise CancelledByDriverError(" < ".join(reversed(places(error.__traceback__)))) from error


def _tell(name: str, error: BaseException) -> None:
    # The words of our own errors are written to be shown; a driver's may quote what it was given.
    detail = {"detail": str(error)} if is_ours(error) else {}
    _log.critical(
        "loop failed",
        loop=name,
        error_class=error_class(error),
        error_at=places(error.__traceback__),
        **detail,
    )


def _on_signals(service: str, stop: asyncio.Event) -> None:
    loop = asyncio.get_running_loop()

    def received(number: signal.Signals) -> None:
        if stop.is_set():
            os._exit(128 + number)
        _log.info("draining", program=service, signal=number.name)
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, received, number)

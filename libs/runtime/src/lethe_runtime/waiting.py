"""Waiting for a dependency that is away: growing pauses, one log line per step, readiness told."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final, TypeVar

import structlog
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type
from tenacity.wait import wait_exponential, wait_random

from lethe_runtime.database_away import reason_of
from lethe_runtime.errors import LetheRuntimeError
from lethe_runtime.health import Readiness

PAUSES: Final = wait_exponential(multiplier=0.25, max=30) + wait_random(0, 0.25)
"""Between two questions to a dependency: from a quarter of a second to half a minute."""

T = TypeVar("T")
_log = structlog.get_logger(__name__)


class StoppedError(LetheRuntimeError):
    """The service was asked to stop while it waited."""


def tell_away(
    dependency: str, state: RetryCallState, *, readiness: Readiness | None = None
) -> None:
    """Log that a dependency is away, and note it in `readiness`."""
    error = state.outcome.exception() if state.outcome else None
    name = reason_of(error) if error else "unknown"
    if readiness is not None:
        readiness.away(dependency, name)
    _log.warning(
        "dependency away",
        dependency=dependency,
        error_class=name,
        attempt=state.attempt_number,
        retry_in_seconds=round(state.next_action.sleep, 2) if state.next_action else 0.0,
    )


async def pause(seconds: float, stop: asyncio.Event) -> bool:
    """Wait `seconds`, or less if `stop` is set; says whether it is set."""
    try:
        await asyncio.wait_for(stop.wait(), timeout=seconds)
    except TimeoutError:
        return False
    return True


async def until_available(
    dependency: str,
    attempt: Callable[[], Awaitable[T]],
    *,
    readiness: Readiness,
    stop: asyncio.Event,
    transient: tuple[type[BaseException], ...],
) -> T:
    """Repeat `attempt` until it succeeds and return what it returned.

    Pauses double from a quarter of a second to 30 seconds; `readiness` is kept true.

    Raises:
        StoppedError: `stop` was set first.
        BaseException: any error of `attempt` that is not `transient`, at once.
    """

    async def wait_unless_stopped(seconds: float) -> None:
        if await pause(seconds, stop):
            raise StoppedError(f"stopped while waiting for {dependency}")

    retrying = AsyncRetrying(
        sleep=wait_unless_stopped,
        retry=retry_if_exception_type(transient),
        wait=PAUSES,
        before_sleep=partial(tell_away, dependency, readiness=readiness),
        reraise=True,
    )
    waited = False
    async for one in retrying:
        with one:
            result = await attempt()
        waited = one.retry_state.attempt_number > 1
    readiness.ok(dependency)
    if waited:
        _log.info("dependency back", dependency=dependency)
    return result


class Watch:
    """Keeps `readiness` true for a dependency that may go away later, by asking it now and then.

    Args:
        dependency: its name in `readiness`.
        probe: a cheap question that raises one of `transient` while the dependency is away.
        readiness: what is kept true.
        transient: the errors that mean "away".
        interval: seconds between questions while it is well.
    """

    def __init__(
        self,
        dependency: str,
        probe: Callable[[], Awaitable[object]],
        *,
        readiness: Readiness,
        transient: tuple[type[BaseException], ...],
        interval: float = 5.0,
    ) -> None:
        self._dependency = dependency
        self._probe = probe
        self._readiness = readiness
        self._transient = transient
        self._interval = interval

    async def run(self, stop: asyncio.Event) -> None:
        """Ask until `stop` is set."""
        while not stop.is_set():
            try:
                await until_available(
                    self._dependency,
                    self._probe,
                    readiness=self._readiness,
                    stop=stop,
                    transient=self._transient,
                )
            except StoppedError:
                return
            await pause(self._interval, stop)


@dataclass(frozen=True, slots=True)
class Gate:
    """Something that must be there before a loop may begin."""

    dependency: str
    """Its name in the readiness."""
    ask: Callable[[], Awaitable[object]]
    """Raises one of `transient` while it is not there."""
    transient: tuple[type[BaseException], ...]


class Gated:
    """Runs a loop once every gate was found open, one after the other.

    Args:
        run: the loop.
        gates: what is waited for, in this order.
        readiness: told while waiting.
    """

    def __init__(
        self,
        run: Callable[[asyncio.Event], Awaitable[None]],
        gates: Sequence[Gate],
        readiness: Readiness,
    ) -> None:
        self._run = run
        self._gates = tuple(gates)
        self._readiness = readiness

    async def run(self, stop: asyncio.Event) -> None:
        """Wait, then run the loop until `stop`; raises what a gate or the loop raises."""
        try:
            for gate in self._gates:
                await until_available(
                    gate.dependency,
                    gate.ask,
                    readiness=self._readiness,
                    stop=stop,
                    transient=gate.transient,
                )
        except StoppedError:
            return
        await self._run(stop)

"""Virtual time, and event loops that are driven by hand."""

import asyncio
import heapq
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

BEGIN = 1000.0
_TICK = 1e-9


class _NoSelector:
    """Nothing comes from outside."""

    def select(self, _timeout: float | None) -> list[Any]:
        return []

    def close(self) -> None:
        pass


class Loop(asyncio.BaseEventLoop):
    """A process: frozen it stands still while time goes on, dead it never goes on."""

    def __init__(self, world: "World") -> None:
        super().__init__()
        self._selector = _NoSelector()
        self._world = world
        self.frozen = False
        self.dead = False
        self.set_exception_handler(lambda _, context: world.errors.append(context))

    def time(self) -> float:
        return self._world.now

    def _process_events(self, event_list: list[Any]) -> None:
        pass

    def _write_to_self(self) -> None:
        pass

    def next_timer(self) -> float:
        """When the next timer is due."""
        timers: list[Any] = self._scheduled  # type: ignore[attr-defined] # asyncio's own
        while timers and timers[0].cancelled():
            heapq.heappop(timers)._scheduled = False
        return timers[0].when() if timers else float("inf")

    def can_go_on(self) -> bool:
        if self.frozen or self.dead:
            return False
        return bool(self._ready) or self.next_timer() <= self._world.now  # type: ignore[attr-defined] # likewise

    @contextmanager
    def running(self) -> Iterator[None]:
        """Make it the loop that code sees as running."""
        before = asyncio._get_running_loop()
        asyncio._set_running_loop(self)
        try:
            yield
        finally:
            asyncio._set_running_loop(before)

    def step(self) -> None:
        with self.running():
            self._run_once()  # type: ignore[attr-defined] # likewise

    def tell(self, call: Callable[..., Any], *values: Any) -> None:
        """Let it hear of something, once it can."""
        if not self.dead:
            self.call_soon(call, *values)


class World:
    """The clock, the loops, and the one source of chance."""

    def __init__(self, seed: int) -> None:
        self.now = BEGIN
        self.random = random.Random(seed)  # noqa: S311 - a run is repeated by its seed
        self.loops: list[Loop] = []
        self.errors: list[dict[str, Any]] = []
        self.outside = self.loop()

    def loop(self) -> Loop:
        self.loops.append(Loop(self))
        return self.loops[-1]

    def later(self, seconds: float, call: Callable[..., Any], *values: Any) -> None:
        """Let something happen outside of all processes."""
        self.outside.call_at(self.now + seconds, call, *values)

    def soon(self) -> float:
        """How long a message between two processes takes; now and then long."""
        share = self.random.random()
        return share * 0.002 if share < 0.97 else share * 0.05

    def run(self, seconds: float) -> None:
        """Let time pass, whoever can go on going on in any order."""
        end = self.now + seconds
        with self._as_the_clock():
            while self.now < end:
                ready = [loop for loop in self.loops if loop.can_go_on()]
                if ready:
                    self.random.choice(ready).step()
                    continue
                live = [loop for loop in self.loops if not loop.frozen and not loop.dead]
                due = min((loop.next_timer() for loop in live), default=end)
                self.now = max(self.now, min(end, due)) + _TICK

    def close(self) -> None:
        """End what still runs in every loop, whatever state it was left in."""
        with self._as_the_clock():
            for loop in self.loops:
                with loop.running():
                    tasks = asyncio.all_tasks(loop)
                while tasks := {task for task in tasks if not task.done()}:
                    for task in tasks:
                        task.cancel()
                    loop.step()
                loop.close()

    @contextmanager
    def _as_the_clock(self) -> Iterator[None]:
        real = time.monotonic, time.clock_gettime
        time.monotonic = lambda: self.now
        time.clock_gettime = lambda _: self.now
        try:
            yield
        finally:
            time.monotonic, time.clock_gettime = real

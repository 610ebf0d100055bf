"""Points of the relay's pipeline at which a process of the tests kills or freezes itself.

The product knows nothing of them: `arm` wraps a method of one of its classes in this process.
"""

import functools
import inspect
import os
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from lethe_outbox.relay.acknowledge import Acknowledger
from lethe_outbox.relay.lease_storage import LeaseStorage
from lethe_outbox.relay.producer import Producer
from lethe_outbox.relay.storage import RelayStorage

STEPS: Final[dict[str, tuple[type, str]]] = {
    "register": (LeaseStorage, "register"),
    "claim": (LeaseStorage, "claim"),
    "renew": (LeaseStorage, "renew"),
    "look": (RelayStorage, "look"),
    "fetch": (RelayStorage, "_read"),
    "hand over": (Producer, "hand_over"),
    "arrive": (Acknowledger, "delivered"),
    "acknowledge": (RelayStorage, "acknowledge"),
    "dead letter": (Producer, "send"),
    "bury": (RelayStorage, "bury"),
    "release": (LeaseStorage, "release"),
    "deregister": (LeaseStorage, "deregister"),
}
"""Every step that changes something outside the process or what the process believes of it."""

READS: Final[dict[str, tuple[type, str]]] = {"payloads": (RelayStorage, "payloads")}
"""Steps at which a death changes nothing; what happens elsewhere during one may."""

_OF_A_RELAY: Final = {**STEPS, **READS}

Side = Literal["before", "after"]


@dataclass(frozen=True, slots=True)
class FailPoint:
    """Just before or just after the `call`-th call of a step, a signal to oneself.

    Attributes:
        suspended: a stop is that of the whole machine: its monotonic clock stands still meanwhile.
    """

    step: str
    when: Side
    call: int = 1
    send: str = "SIGKILL"
    suspended: bool = False


def arm(point: FailPoint, steps: Mapping[str, tuple[type, str]] = _OF_A_RELAY) -> None:
    """Wrap the method of `point`, for this process."""
    owner, name = steps[point.step]
    method = getattr(owner, name)
    calls = 0

    def reached(when: str) -> None:
        nonlocal calls
        calls += when == "before"
        if when == point.when and calls == point.call:
            _send(point)

    setattr(owner, name, _wrapped(method, reached))


def _send(point: FailPoint) -> None:
    real, began = time.monotonic, time.monotonic()
    os.kill(os.getpid(), signal.Signals[point.send])
    if point.suspended:
        stopped = real() - began
        time.monotonic = lambda: real() - stopped


def _wrapped(method: Callable[..., Any], reached: Callable[[str], None]) -> Callable[..., Any]:
    if inspect.iscoroutinefunction(method):

        @functools.wraps(method)
        async def waiting(*args: Any, **kwargs: Any) -> Any:
            reached("before")
            found = await method(*args, **kwargs)
            reached("after")
            return found

        return waiting

    @functools.wraps(method)
    def direct(*args: Any, **kwargs: Any) -> Any:
        reached("before")
        found = method(*args, **kwargs)
        reached("after")
        return found

    return direct

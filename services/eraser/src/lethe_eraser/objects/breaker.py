"""Circuit breakers: a service that fails again and again is left alone for a while.

One per dependency (S3 in one region, the CDN), never around the database or Kafka. Only what says
that the service is away counts: a refusal or a request to slow down is an answer.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from pybreaker import (
    STATE_OPEN,
    CircuitBreaker,
    CircuitBreakerError,
    CircuitBreakerListener,
    CircuitBreakerState,
)

from lethe_eraser.objects.outcomes import CircuitOpenError

FAILURES: Final = 20
"""Failures in a row that open the circuit: some calls' worth of tries on every thread."""

SECONDS: Final = 10.0
"""How long nothing is sent before one call may try again."""

OnState = Callable[[str, bool], None]
"""Told the dependency, and whether its circuit is open now."""


class _Told(CircuitBreakerListener):
    def __init__(self, name: str, on_state: OnState) -> None:
        self._name = name
        self._on_state = on_state

    def state_change(
        self,
        cb: CircuitBreaker,
        old_state: CircuitBreakerState | None,
        new_state: CircuitBreakerState,
    ) -> None:
        """Pass it on."""
        del cb, old_state
        self._on_state(self._name, new_state.name == STATE_OPEN)


class Breaker:
    """The circuit of one dependency; any number of threads may be in it at once.

    Args:
        name: the dependency.
        is_outage: whether an error says that the dependency is away.
        on_state: told every change, and the state of the beginning.
        seconds: how long an open circuit stays open.
    """

    def __init__(
        self,
        name: str,
        *,
        is_outage: Callable[[BaseException], bool],
        on_state: OnState = lambda _name, _is_open: None,
        seconds: float = SECONDS,
    ) -> None:
        self._circuit = CircuitBreaker(
            fail_max=FAILURES,
            reset_timeout=seconds,
            exclude=[lambda error: not is_outage(error)],
            listeners=[_Told(name, on_state)],
            name=name,
            throw_new_error_on_trip=False,
        )
        on_state(name, False)

    @contextmanager
    def guarding(self) -> Iterator[None]:
        """Let the block run, and judge by its end.

        Raises:
            CircuitOpenError: The circuit is open; the block did not run.
        """
        try:
            # `call` would hold the circuit's lock while it waits for the answer; this does not.
            with self._circuit.calling():
                yield
        except CircuitBreakerError:
            raise CircuitOpenError from None

"""Whether the brokers take anything, from what all producers of a relay meet.

A batch that nobody took says little by itself: while others are taken, one partition is in trouble
and not the broker. And who gives up for good, as a dead letter does, tells nobody that the broker
is well again; so it counts as well after a silence that is longer than any attempt.
"""

import asyncio
import math
import time
from collections.abc import Callable
from typing import Final

from lethe_outbox.relay.settings import RelaySettings

_PUBLISHES_OF_AN_ATTEMPT: Final = 5
"""To connect, to ask twice for metadata, to hand over and to be answered."""


class Reach:
    """Tells when the brokers come or go.

    Args:
        settings: of the relay.
        on_state: told `ok` or `away`, and the class of the error.
    """

    def __init__(self, settings: RelaySettings, on_state: Callable[[str, str], None]) -> None:
        self._publish_seconds = settings.publish_seconds
        self._attempt = (
            settings.pause_max_seconds + _PUBLISHES_OF_AN_ATTEMPT * settings.publish_seconds
        )
        self._on_state = on_state
        self._taken_at = -math.inf
        self._is_ok: bool | None = None
        self._silence: asyncio.TimerHandle | None = None

    def connected(self) -> None:
        """Note that a broker let a producer in; that says nothing once one was away."""
        if self._is_ok is None:
            self._ok()

    def taken(self) -> None:
        """Note that a broker took something."""
        self._taken_at = time.monotonic()
        if not self._is_ok:
            self._ok()

    def calm(self) -> None:
        """Note that nothing fails any more, though nothing was there to be taken."""
        if not self._is_ok:
            self._ok()

    def untaken(self, error_class: str) -> None:
        """Note that a batch was not taken in its time."""
        if time.monotonic() - self._taken_at >= self._publish_seconds:
            self.away(error_class)

    def away(self, error_class: str) -> None:
        """Note that no broker takes anything."""
        self.close()
        self._silence = asyncio.get_running_loop().call_later(self._attempt, self.calm)
        self._is_ok = False
        self._on_state("away", error_class)

    def close(self) -> None:
        """Wait for no silence any more."""
        if self._silence is not None:
            self._silence.cancel()
            self._silence = None

    def _ok(self) -> None:
        self.close()
        self._is_ok = True
        self._on_state("ok", "")

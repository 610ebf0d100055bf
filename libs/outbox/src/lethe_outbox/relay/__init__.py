"""The relay that publishes an outbox: see `Relay`."""

from lethe_outbox.relay.relay import OnState, Relay
from lethe_outbox.relay.settings import RelaySettings

__all__ = ["OnState", "Relay", "RelaySettings"]

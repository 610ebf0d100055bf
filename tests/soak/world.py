"""What the processes of a soak agree on."""

from dataclasses import dataclass
from typing import Final

from alembic.operations import Operations

TOPIC: Final = "soak"
GROUP: Final = "soak"
PARTITIONS: Final = 16
LARGEST_RECORD: Final = 400_000
"""What the topic takes, in bytes; above a batch of the relay, so that only poison is refused."""


@dataclass(frozen=True, slots=True)
class Event:
    """One event of a key: which of its key it is, 1 being the first."""

    key: str
    number: int

    def payload(self, size: int) -> bytes:
        """Write it into `size` bytes or a few more."""
        return f"{self.number}:".encode().ljust(size, b"x")


def number_in(payload: bytes) -> int:
    """Read what `Event.payload` wrote."""
    return int(payload[: payload.index(b":")])


def lay(op: Operations) -> None:
    """Create the consumer's table."""
    op.execute(
        "CREATE TABLE soak_effect (key text PRIMARY KEY, last bigint NOT NULL,"
        " count bigint NOT NULL, backwards bigint NOT NULL)"
    )

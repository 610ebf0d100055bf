"""What comes in from Kafka: the eraser's events, applied to intake's requests.

The runner opens one transaction per batch, in which the inbox drops what was handled before.
"""

from collections.abc import Sequence
from typing import Final

from sqlalchemy.ext.asyncio import AsyncConnection

from lethe_contracts.codec import decode
from lethe_contracts.errors import RecordError
from lethe_contracts.topics import EVENTS
from lethe_intake.domain import Move, moves
from lethe_intake.storage import apply_moves
from lethe_outbox import PoisonError, Record

GROUP: Final = "lethe-intake"
TOPICS: Final = (EVENTS,)


async def handle(connection: AsyncConnection, records: Sequence[Record]) -> None:
    """Apply a batch in the caller's transaction.

    Raises:
        PoisonError: a record can never be read; its reason is the contract's code.
    """
    said: list[Move] = []
    for record in records:
        try:
            said.extend(moves(decode(record.headers, record.value)))
        except RecordError as error:
            raise PoisonError(error.reason) from error
    await apply_moves(connection, said)

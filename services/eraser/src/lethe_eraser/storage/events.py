"""What jobs say, written to the outbox in the caller's transaction."""

from collections.abc import Sequence
from datetime import UTC, datetime

from sqlalchemy.ext.asyncio import AsyncConnection
from uuid_utils.compat import uuid7

from lethe_contracts.codec import Envelope, encode
from lethe_contracts.sources import ERASER
from lethe_eraser.domain import Said
from lethe_outbox import Message, Outbox


class Announcer:
    """Appends events of jobs to the outbox; never commits."""

    def __init__(self, outbox: Outbox) -> None:
        self._outbox = outbox

    async def announce(self, connection: AsyncConnection, said: Sequence[Said]) -> None:
        """Append `said`, in order."""
        if said:
            now = datetime.now(UTC)
            await self._outbox.append_async(connection, *(_message(one, now) for one in said))


def _message(said: Said, now: datetime) -> Message:
    envelope = Envelope(
        id=uuid7(),
        source=ERASER,
        aggregate=said.event.job_id,
        sequence=said.sequence,
        time=now,
        subject_ref=said.subject_ref,
        event=said.event,
        traceparent=said.traceparent,
    )
    encoded = encode(envelope)
    return Message(
        topic=encoded.topic,
        key=encoded.key,
        payload=encoded.value,
        headers=encoded.headers,
        event_id=envelope.id,
    )

"""What comes in from Kafka, at any hour: intake's decisions become jobs, holds and tombstones.

The runner opens one transaction per batch, in which the inbox drops what was handled before; job
rows and the answers to intake are written in the same one. Nothing is erased here.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Final

from sqlalchemy.ext.asyncio import AsyncConnection
from uuid_utils.compat import uuid7

from lethe_contracts.cipher import Cipher
from lethe_contracts.codec import Envelope, decode
from lethe_contracts.errors import (
    InvalidEventError,
    RecordError,
    UndecryptableError,
    UnknownTypeError,
)
from lethe_contracts.events import CancelRequested, Event, Held, Released, Requested, Watermark
from lethe_contracts.topics import PARTITIONS, REQUESTS
from lethe_eraser.domain import Moment, Person, Said, decide
from lethe_eraser.storage import control, people
from lethe_eraser.storage.control import SetAside
from lethe_eraser.storage.events import Announcer
from lethe_eraser.window import Window
from lethe_outbox import DeadRecord, PoisonError, Record, bucket_of

GROUP: Final = "lethe-eraser"
TOPICS: Final = (REQUESTS,)


class Acceptance:
    """Applies batches of intake's events.

    Args:
        cipher: proves that a subject can be opened before its request is accepted.
        announcer: appends events.
        window: when a job may start.
        clock: the time.
    """

    def __init__(
        self, cipher: Cipher, announcer: Announcer, window: Window, clock: Callable[[], datetime]
    ) -> None:
        self._cipher = cipher
        self._announcer = announcer
        self._window = window
        self._clock = clock

    async def handle(self, connection: AsyncConnection, records: Sequence[Record]) -> None:
        """Apply a batch in the caller's transaction.

        Raises:
            PoisonError: a record can never be handled; its reason is the contract's code.
        """
        try:
            envelopes = [self._read(record) for record in records]
        except RecordError as error:
            raise PoisonError(error.reason) from error
        await control.save_watermarks(connection, _marks(envelopes))
        await control.release_handled(connection, [envelope.id for envelope in envelopes])
        of_people = [one for one in envelopes if not isinstance(one.event, Watermark)]
        known = await people.load(connection, (one.subject_ref for one in of_people))
        now = dict(known)
        said: list[Said] = []
        for envelope in of_people:
            person, answers = self._apply(now[envelope.subject_ref], envelope)
            now[envelope.subject_ref] = person
            said += answers
        for ref, person in now.items():
            await people.save(connection, known[ref], person, bucket_of(ref))
        # Only now: whoever writes a request has waited for whoever else writes it.
        await self._refuse_others_requests(connection, envelopes)
        await self._announcer.announce(connection, said)

    async def set_aside(self, connection: AsyncConnection, dead: DeadRecord) -> None:
        """Stop the bucket of a record that could not be handled: it may have been a hold.

        A record without a key stops its whole partition.
        """
        await control.set_aside(
            connection,
            SetAside(
                topic=dead.topic,
                partition=dead.partition,
                offset=dead.offset,
                bucket=None if dead.key is None else bucket_of(dead.key.decode(errors="replace")),
                event_id=dead.event_id,
                reason=dead.reason,
            ),
        )

    def _read(self, record: Record) -> Envelope[Event]:
        envelope = decode(record.headers, record.value)
        # One consumer handles one person only while the key names the person.
        if record.key != envelope.subject_ref.encode():
            raise InvalidEventError("the record's key is not its person")
        match envelope.event:
            case Requested(subject=token):
                self._prove(token, envelope.subject_ref)
            case Watermark(settled_until=marks):
                partition = bucket_of(envelope.subject_ref) % PARTITIONS
                if any(bucket % PARTITIONS != partition for bucket in marks):
                    raise InvalidEventError("a watermark speaks of another partition's bucket")
            case CancelRequested() | Held() | Released():
                pass
            case _:
                raise UnknownTypeError("this event is not one that intake says")
        return envelope

    def _prove(self, token: str, subject_ref: str) -> None:
        try:
            subject = self._cipher.decrypt(token, context=subject_ref).decode()
        except UnicodeDecodeError:
            raise UndecryptableError("the subject is no text") from None
        if not subject or "\0" in subject:
            raise UndecryptableError("the subject is no account id")

    def _apply(self, person: Person, envelope: Envelope[Event]) -> tuple[Person, Sequence[Said]]:
        event = envelope.event
        if not isinstance(event, Requested | CancelRequested | Held | Released):
            return person, ()
        now = self._clock()
        moment = Moment(
            now=now,
            not_before=self._window.next_open(now),
            new_job_id=uuid7,
            traceparent=envelope.traceparent,
        )
        decision = decide(person, event, moment)
        return decision.person, decision.said

    async def _refuse_others_requests(
        self, connection: AsyncConnection, envelopes: Sequence[Envelope[Event]]
    ) -> None:
        said = {
            (one.event.request_id, one.subject_ref)
            for one in envelopes
            if isinstance(one.event, Requested | CancelRequested)
        }
        said_of = dict(said)
        # Of two in this batch only one is looked up.
        if len(said_of) < len(said) or (
            said_of and await people.others_requests(connection, said_of)
        ):
            # The request is another person's.
            raise PoisonError(InvalidEventError.reason)


def _marks(envelopes: Sequence[Envelope[Event]]) -> list[Mapping[int, datetime]]:
    return [one.event.settled_until for one in envelopes if isinstance(one.event, Watermark)]

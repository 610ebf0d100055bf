"""The writers of a soak: bulk and single, quick and slow, committed and rolled back."""

import asyncio
import random
from collections import Counter
from dataclasses import dataclass, field

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from lethe_outbox import Message, Outbox
from tests.soak.world import LARGEST_RECORD, TOPIC, Event

_OUTBOX = Outbox()
_PAYLOAD = 200
_BULK = 250
_SLOW_SHARE = 0.02
_ROLLED_BACK = 0.02


@dataclass(slots=True)
class Ledger:
    """What was committed: by key how many events, and which of them no broker will take."""

    written: Counter[str] = field(default_factory=Counter)
    refused: dict[str, set[int]] = field(default_factory=dict)
    rows: int = 0

    def note(self, events: list[Event], poison: list[Event]) -> None:
        for event in events:
            self.written[event.key] = event.number
        for event in poison:
            self.refused.setdefault(event.key, set()).add(event.number)
        self.rows += len(events)


class Writer:
    """Writes events of its own keys, so that it alone numbers them."""

    def __init__(self, engine: AsyncEngine, keys: list[str], ledger: Ledger, seed: int) -> None:
        self._engine = engine
        self._keys = keys
        self._ledger = ledger
        self._random = random.Random(seed)  # noqa: S311 - a soak is repeated by its seed

    async def run(self, rows: int, poison_every: int) -> None:
        """Commit `rows` events."""
        done = 0
        until_poison = poison_every
        while done < rows:
            events = self._next(min(_BULK, rows - done))
            poison = []
            if 0 < until_poison <= len(events):
                poison = [self._random.choice(events)]
            if await self._write(events, poison):
                done += len(events)
                until_poison = poison_every if poison else until_poison - len(events)
                self._ledger.note(events, poison)

    def _next(self, count: int) -> list[Event]:
        last = dict(self._ledger.written)
        events = []
        # Few keys at a time follow each other closely, as a person's events do.
        for key in self._random.choices(self._keys, k=count):
            last[key] = last.get(key, 0) + 1
            events.append(Event(key, last[key]))
        return events

    async def _write(self, events: list[Event], poison: list[Event]) -> bool:
        async with self._engine.connect() as connection:
            await connection.begin()
            await self._append(connection, events, poison)
            if self._random.random() < _SLOW_SHARE:
                # Everybody else commits meanwhile: these rows appear below what was read.
                await asyncio.sleep(self._random.uniform(0.05, 1.5))
            if self._random.random() < _ROLLED_BACK:
                await connection.rollback()
                return False
            await connection.commit()
            return True

    async def _append(
        self, connection: AsyncConnection, events: list[Event], poison: list[Event]
    ) -> None:
        messages = [
            Message(TOPIC, event.key, self._payload(event, event in poison)) for event in events
        ]
        if self._random.random() < _SLOW_SHARE:
            for message in messages:
                await _OUTBOX.append_async(connection, message)
        else:
            await _OUTBOX.append_async(connection, *messages)

    def _payload(self, event: Event, poisoned: bool) -> bytes:  # noqa: FBT001 - one of two
        payload = event.payload(_PAYLOAD)
        if poisoned:
            payload += self._random.randbytes(LARGEST_RECORD * 2)
        return payload

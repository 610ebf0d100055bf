"""What intake and the eraser say of one request, with sequences that grow."""

import itertools
import secrets
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from uuid_utils.compat import uuid7

from lethe_contracts.codec import Envelope
from lethe_contracts.events import (
    Accepted,
    BatchErased,
    Blocked,
    CancelRequested,
    Erased,
    Event,
    Held,
    JobEvent,
    Requested,
    Started,
    TypeTotals,
    Verified,
)
from lethe_contracts.sources import ERASER, INTAKE
from lethe_contracts.states import BlockReason

CIPHERTEXT = "1.never-to-be-kept"


class Story:
    """One request of one person and its job."""

    def __init__(self, *, team: str = "support", due_in: timedelta = timedelta(days=5)) -> None:
        self.request_id: UUID = uuid7()
        self.job_id: UUID = uuid7()
        self.ref = f"1.{secrets.token_hex(32)}"
        self.team = team
        self.begun = datetime.now(UTC).replace(microsecond=0) - timedelta(hours=1)
        self.deadline = self.begun + timedelta(hours=1) + due_in
        self._ticks = itertools.count()
        self._intake = itertools.count(1)
        self._eraser = itertools.count(1)

    def asked(self, attempt: int = 1) -> Envelope[Event]:
        event = Requested(
            request_id=self.request_id,
            attempt=attempt,
            team=self.team,
            reason="withdrawn",
            regulation="pipa",
            requested_at=self.begun,
            deadline=self.deadline,
            subject=CIPHERTEXT,
        )
        return self._envelope(INTAKE, self.request_id, next(self._intake), event)

    def cancel_asked(self) -> Envelope[Event]:
        event = CancelRequested(request_id=self.request_id)
        return self._envelope(INTAKE, self.request_id, next(self._intake), event)

    def held(self) -> Envelope[Event]:
        hold_id = uuid7()
        return self._envelope(INTAKE, hold_id, 1, Held(hold_id=hold_id))

    def says(self, model: type[JobEvent], rows: int = 0, **more: Any) -> Envelope[Event]:
        event = model.model_validate(
            {
                "job_id": self.job_id,
                "request_ids": (self.request_id,),
                "totals": {"upscale": TypeTotals(feature_rows=rows, objects_gone=2 * rows)},
                **more,
            }
        )
        return self._envelope(ERASER, self.job_id, next(self._eraser), event)

    def life(self, *, blocked: bool = False) -> list[Envelope[Event]]:
        """The whole life, in order."""
        return [
            self.asked(),
            self.says(Accepted, not_before=self.begun + timedelta(minutes=5)),
            self.says(Started),
            self.says(BatchErased, 5, request_type="upscale", batch=1),
            self.says(BatchErased, 9, request_type="upscale", batch=2),
            self.says(Erased, 9),
            self.says(Blocked, 9, reasons={BlockReason.UNCOVERED: 3})
            if blocked
            else self.says(Verified, 9),
        ]

    def _envelope(
        self, source: str, aggregate: UUID, sequence: int, event: Event
    ) -> Envelope[Event]:
        return Envelope(
            id=uuid7(),
            source=source,
            aggregate=aggregate,
            sequence=sequence,
            time=self.begun + timedelta(minutes=next(self._ticks)),
            subject_ref=self.ref,
            event=event,
            traceparent=f"00-{'a' * 32}-{'b' * 16}-01",
        )

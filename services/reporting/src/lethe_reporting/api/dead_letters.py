"""`/v1/dead-letters`: records that could not be published or handled, without what they hold."""

import re
from datetime import datetime
from typing import Annotated, Final, Literal, Self
from uuid import UUID

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, Field

from lethe_outbox import Which
from lethe_outbox.dead_letters.reader import OPEN, State
from lethe_reporting.api import cursors
from lethe_reporting.storage.dead_letters import DeadLetter, DeadLetters, Wanted
from lethe_runtime.problems import responses

PATH: Final = "/v1/dead-letters"

_SUBJECT_REF: Final = re.compile(r"[1-9][0-9]{0,8}\.[0-9a-f]{64}")
_CODE: Final = re.compile(r"[A-Za-z0-9_.-]{1,100}")


class ListQuery(BaseModel):
    """Which dead letters are listed. An unknown parameter is refused, not ignored."""

    model_config = ConfigDict(extra="forbid")

    state: State | Literal["all"] = Field(default=OPEN, description="`open` waits for somebody.")
    topic: str | None = Field(
        default=None,
        pattern=r"^[A-Za-z0-9._-]{1,249}$",
        description="The dead-letter topic, `<topic>.DLT`.",
    )
    cursor: str | None = Field(
        default=None, max_length=64, description="`next_cursor` of the page before."
    )
    limit: int = Field(default=50, ge=1, le=200, description="Dead letters per page.")


class DeadLetterDocument(BaseModel):
    """A dead letter: where it came from and why, never its payload."""

    id: int = Field(description="What `lethe dlt replay` takes.")
    state: State
    topic: str
    partition: int
    offset: int
    reason: str = Field(description="Why nobody could handle it, as a code.")
    error_class: str | None
    refused_by: str | None = Field(description="The consumer group, or the relay, that refused it.")
    attempts: int | None
    event_id: UUID | None
    subject_ref: str | None = Field(description="The record's key, if it is a subject_ref.")
    origin_topic: str | None
    origin_partition: int | None
    origin_offset: int | None
    first_failed_at: datetime | None
    last_failed_at: datetime | None
    recorded_at: datetime
    state_changed_at: datetime | None

    @classmethod
    def of(cls, letter: DeadLetter) -> Self:
        """Show a dead letter; its key, reason and class only if they can name nobody."""
        return cls(
            id=letter.id,
            state=letter.state,
            topic=letter.topic,
            partition=letter.partition,
            offset=letter.offset,
            reason=_code(letter.reason) or "unknown",
            error_class=_code(letter.error_class),
            refused_by=_code(letter.refused_by),
            attempts=letter.attempts,
            event_id=letter.event_id,
            subject_ref=_subject_ref(letter.key),
            origin_topic=letter.origin_topic,
            origin_partition=letter.origin_partition,
            origin_offset=letter.origin_offset,
            first_failed_at=letter.first_failed_at,
            last_failed_at=letter.last_failed_at,
            recorded_at=letter.recorded_at,
            state_changed_at=letter.state_changed_at,
        )


class DeadLetterPage(BaseModel):
    """Dead letters, the newest first."""

    items: list[DeadLetterDocument]
    next_cursor: str | None = Field(description="For the next page; null: this is the last one.")


def routes(letters: DeadLetters) -> APIRouter:
    """Make the routes."""
    router = APIRouter(tags=["dead letters"])

    @router.get(
        PATH,
        summary="List records that nobody could handle",
        responses=responses(401, 403, 422, 503),
    )
    async def listed(query: Annotated[ListQuery, Query()]) -> DeadLetterPage:
        found = await letters.page(
            Wanted(
                Which(state=None if query.state == "all" else query.state, topic=query.topic),
                before=None if query.cursor is None else cursors.dead_letter_of(query.cursor),
                # One more than is shown tells whether there is another page.
                limit=query.limit + 1,
            )
        )
        shown = found[: query.limit]
        more = len(found) > len(shown)
        return DeadLetterPage(
            items=[DeadLetterDocument.of(each) for each in shown],
            next_cursor=cursors.after_dead_letter(shown[-1].id) if more else None,
        )

    return router


def _code(text: str | None) -> str | None:
    return text if text is not None and _CODE.fullmatch(text) else None


def _subject_ref(key: bytes | None) -> str | None:
    text = (key or b"").decode("ascii", errors="replace")
    return text if _SUBJECT_REF.fullmatch(text) else None

"""Follows the requests of the demo until each has ended as the ground truth expects."""

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final

from lethe_sandbox.clients import Clients, Reported
from lethe_sandbox.ground_truth import GroundTruth, Person, Row
from lethe_sandbox.product import TABLES
from lethe_sandbox.progress import Done

_POLL_SECONDS: Final = 0.25
"""Between two looks: reporting is asked, as a product team would, and tells nobody by itself."""
_ACTIVE: Final = "subject_active"
_BEFORE: Final = timedelta(days=1)
_FINAL: Final = frozenset({"verified", "blocked", "cancelled", "failed"})


class JourneyError(Exception):
    """Requests did not end as they should, or nothing moves any more."""


@dataclass(slots=True)
class Journey:
    """One person's request."""

    person: Person
    request_id: str
    intake: str | None = None
    """The state intake knows."""
    reported: Reported = field(default_factory=lambda: Reported("unknown"))
    heard: str | None = None
    """When reporting last heard of it, as of the last look."""

    @property
    def ended(self) -> bool:
        """Whether both services know an end."""
        return self.reported.state in _FINAL and self.intake == self.reported.state

    @property
    def as_expected(self) -> bool:
        """Whether it ended as the ground truth says, with exactly its reasons."""
        return self.reported.state == self.person.end and dict(self.reported.reasons) == dict(
            self.person.reasons
        )


def submit(clients: Clients, truth: GroundTruth) -> list[Journey]:
    """Ask for the erasure of everybody the ground truth wants erased."""
    return [
        Journey(person, clients.submit(person.key, f"demo-{truth.seed}-{number}", _asked(person)))
        for number, person in enumerate(truth.requested)
    ]


def _asked(person: Person) -> datetime | None:
    """Who is a customer again had asked before: the account was opened when it was seeded."""
    return datetime.now(UTC) - _BEFORE if _ACTIVE in person.reasons else None


def expected_rows(truth: GroundTruth) -> dict[str, int]:
    """Count the rows to be masked per request type; a row that held nothing needs no masking."""
    counts = Counter(
        row.type for row in truth.all_rows() if row.fate == "erased" and not _is_masked(row)
    )
    return dict(sorted(counts.items()))


def _is_masked(row: Row) -> bool:
    """Whether every column to be masked held its mask to begin with."""
    masks = TABLES[row.table].masks
    return all(column in row.empty and row.empty[column] == masks[column] for column in masks)


def expected_objects(truth: GroundTruth) -> int:
    """Count the objects to be deleted."""
    return sum(stored.fate == "erased" for stored in truth.all_objects())


def follow(
    clients: Clients,
    journeys: Sequence[Journey],
    *,
    show: Callable[[Done], None],
    watch: Callable[[Done], None],
    patience: float,
) -> None:
    """Ask both services until every request has ended.

    Args:
        clients: the APIs.
        journeys: the requests; brought up to date.
        show: told how far it is, after every round.
        watch: called after every round; what it raises ends the following.
        patience: seconds without any change after which it is given up.

    Raises:
        JourneyError: some ended otherwise than expected, or nothing changed for `patience` seconds.
    """
    changed = time.monotonic()
    while waiting := [journey for journey in journeys if not journey.ended]:
        newest = clients.newest()
        news = [_ask(clients, journey, newest.get(journey.request_id)) for journey in waiting]
        if any(news):
            changed = time.monotonic()
        done = _done(journeys)
        show(done)
        watch(done)
        if time.monotonic() - changed > patience:
            raise JourneyError(_stuck(waiting, patience))
        time.sleep(_POLL_SECONDS)
    if wrong := [journey for journey in journeys if not journey.as_expected]:
        raise JourneyError("\n".join(map(_difference, wrong)))


def _ask(clients: Clients, journey: Journey, newest: str | None) -> bool:
    """Bring one journey up to date; say whether anything is new."""
    before = (journey.intake, journey.reported)
    if newest not in (None, journey.heard) and (reported := clients.reported(journey.request_id)):
        journey.reported = reported
        journey.heard = newest
    # Intake is asked once reporting has the end: it hears of it from the same topic.
    if journey.reported.state in _FINAL:
        journey.intake = clients.intake_state(journey.request_id) or journey.intake
    return before != (journey.intake, journey.reported)


def _done(journeys: Sequence[Journey]) -> Done:
    rows: Counter[str] = Counter()
    for journey in journeys:
        rows.update(journey.reported.rows)
    return Done(
        rows=rows,
        objects=sum(journey.reported.objects for journey in journeys),
        persons=sum(journey.ended and journey.as_expected for journey in journeys),
    )


def _stuck(waiting: Sequence[Journey], patience: float) -> str:
    states = Counter(
        f"{journey.reported.state} (intake: {journey.intake or 'not asked'})" for journey in waiting
    )
    listed = ", ".join(f"{count} {state}" for state, count in states.most_common())
    return f"nothing has moved for {patience:.0f} s; requests that have not ended: {listed}"


def _difference(journey: Journey) -> str:
    return (
        f"{journey.person.role}: expected {_end(journey.person.end, journey.person.reasons)},"
        f" but reporting says {_end(journey.reported.state, journey.reported.reasons)}"
        f" (request {journey.request_id})"
    )


def _end(state: str | None, reasons: Mapping[str, int]) -> str:
    listed = ", ".join(f"{reason} x {count}" for reason, count in sorted(reasons.items()))
    return f"{state} [{listed}]" if listed else str(state)

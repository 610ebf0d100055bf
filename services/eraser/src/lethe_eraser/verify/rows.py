"""What the database says of a person, read by the stretch: memory does not grow with the person."""

import hashlib
from array import array
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from lethe_contracts.states import BlockReason
from lethe_eraser.catalog import Catalog
from lethe_eraser.domain import RowKind
from lethe_eraser.storage import leftovers, progress
from lethe_eraser.storage.client_rows import PrimaryKey
from lethe_eraser.storage.progress import Blocked
from lethe_eraser.verify.settling import settling

AT_ONCE: Final = 2000
"""Client rows that are masked in one transaction, and requests that are asked for at once."""


_PARTS: Final = 16


class Covered:
    """The client rows that a scan saw: 8 bytes for each, whatever their keys are."""

    def __init__(self) -> None:
        # Sorted part by part: to sort, every number is an object for a while.
        self._parts = [array("Q") for _ in range(_PARTS)]
        self._is_sorted = True

    def __len__(self) -> int:
        """How many they are."""
        return sum(map(len, self._parts))

    def add(self, source: str, primary_key: PrimaryKey) -> None:
        """Note a client row that the scan sees."""
        seen = digest(source, primary_key)
        self._parts[seen % _PARTS].append(seen)
        self._is_sorted = False

    def holds(self, source: str, primary_key: PrimaryKey) -> bool:
        """Whether the scan saw this client row."""
        if not self._is_sorted:
            self._parts = [array("Q", sorted(part)) for part in self._parts]
            self._is_sorted = True
        wanted = digest(source, primary_key)
        part = self._parts[wanted % _PARTS]
        at = bisect_left(part, wanted)
        return at < len(part) and part[at] == wanted


def digest(source: str, primary_key: PrimaryKey) -> int:
    """Give what `Covered` knows of a client row."""
    name = f"{source}\0{progress.row_key(primary_key)}".encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(name, digest_size=8).digest(), "big")


@dataclass(frozen=True, slots=True)
class Survivor:
    """A row in which something of the person is left."""

    kind: RowKind
    table: str
    row_id: int
    request_type: str
    request_id: int

    def blocked(self, reason: BlockReason) -> Blocked:
        """Leave it, and say why."""
        return Blocked(
            kind=self.kind,
            table=self.table,
            row_key=str(self.row_id),
            request_type=self.request_type,
            request_id=self.request_id,
            reason=reason,
        )


@dataclass(frozen=True, slots=True)
class Known:
    """What a job leaves behind, as far as it is known already."""

    requests: frozenset[tuple[str, int | None]]
    """Requests of which a row is left: their client rows stay, too."""
    rows: frozenset[tuple[str, str]]
    """Rows that are left, by table and key."""


async def known(connection: AsyncConnection, job_id: UUID) -> Known:
    """Read what the job leaves behind."""
    blocked = await progress.blocked(connection, job_id)
    return Known(
        requests=frozenset(
            (row.request_type, row.request_id) for row in blocked if row.kind in {"feature", "task"}
        ),
        rows=frozenset((row.table, row.row_key) for row in blocked),
    )


async def survivors(
    connection: AsyncConnection,
    catalog: Catalog,
    request_type: str,
    request_ids: Iterable[int],
    known: Known,
) -> list[Survivor]:
    """Give the rows of these requests in which something is left that is not known to be."""
    ids = sorted(set(request_ids))
    return [
        Survivor(table.kind, str(table.table), row_id, request_type, request_id)
        for table in catalog.features[request_type].tables
        for row_id, request_id in await leftovers.survivors(connection, table, ids)
        if (str(table.table), str(row_id)) not in known.rows
    ]


@dataclass(slots=True)
class Rows:
    """What of a person is there."""

    covered: Covered = field(default_factory=Covered)
    """Every client row that is to be masked: no blocked request among them."""
    to_mask: int = 0
    """How many of them an earlier scan saw, too."""
    few: dict[str, defaultdict[str, list[PrimaryKey]]] = field(default_factory=dict)
    """Those by source and type, if they are no more than `AT_ONCE`."""
    late: list[Blocked] = field(default_factory=list)
    """Client rows that the earlier scan did not see."""
    survivors: list[Survivor] = field(default_factory=list)
    unclaimed: list[Blocked] = field(default_factory=list)
    """Client rows of unknown types that no round has seen."""
    again_in: timedelta | None = None
    """When to look again, if the product may still write to a row."""
    overdue: list[Blocked] = field(default_factory=list)
    """Rows that are unfinished for longer than is waited."""


@dataclass(slots=True)
class _Reading:
    """One pass over a person's client rows."""

    connection: AsyncConnection
    catalog: Catalog
    known: Known
    settle: bool
    seen: Covered | None
    rows: Rows = field(default_factory=Rows)
    wanted: defaultdict[str, set[int]] = field(default_factory=lambda: defaultdict(set))

    async def run(self, subject: str) -> Rows:
        for source in self.catalog.client_tables:
            self.rows.few[source.name] = defaultdict(list)
            async for claim in leftovers.claims(self.connection, source, subject):
                if claim.request_type not in self.catalog.features:
                    row = client_row(str(source.table), claim, BlockReason.UNKNOWN_TYPE)
                    if (row.table, row.row_key) not in self.known.rows:
                        self.rows.unclaimed.append(row)
                    continue
                if (claim.request_type, claim.request_id) not in self.known.requests:
                    self._to_mask(source.name, str(source.table), claim)
                if claim.request_id is not None:
                    await self._want(claim.request_type, claim.request_id)
        for request_type in sorted(self.wanted):
            await self._look(request_type)
        return self.rows

    def _to_mask(self, source: str, table: str, claim: leftovers.Claim) -> None:
        self.rows.covered.add(source, claim.primary_key)
        if self.seen is not None and not self.seen.holds(source, claim.primary_key):
            # Its request is looked at by another round: this one may have come before its rows.
            self.rows.late.append(client_row(table, claim, BlockReason.STILL_WRITING))
            return
        self.rows.to_mask += 1
        if self.rows.to_mask <= AT_ONCE:
            self.rows.few[source][claim.request_type].append(claim.primary_key)
        elif self.rows.to_mask == AT_ONCE + 1:
            self.rows.few = {name: defaultdict(list) for name in self.rows.few}

    async def _want(self, request_type: str, request_id: int) -> None:
        self.wanted[request_type].add(request_id)
        if len(self.wanted[request_type]) >= AT_ONCE:
            await self._look(request_type)

    async def _look(self, request_type: str) -> None:
        """Ask for the rows of the requests that were gathered."""
        ids = self.wanted.pop(request_type)
        self.rows.survivors += await survivors(
            self.connection, self.catalog, request_type, ids, self.known
        )
        if self.settle:
            found = await settling(self.connection, self.catalog, {request_type: ids})
            self.rows.overdue += found.overdue
            waits = [one for one in (self.rows.again_in, found.again_in) if one is not None]
            self.rows.again_in = max(waits, default=None)


async def read_rows(
    connection: AsyncConnection,
    catalog: Catalog,
    job_id: UUID,
    subject: str,
    *,
    seen: Covered | None = None,
    settle: bool = False,
) -> Rows:
    """Read every client row of the person and ask for the rows of their requests.

    Args:
        connection: in a transaction.
        catalog: which tables and columns there are.
        job_id: whose blocked rows are known.
        subject: the person.
        seen: what the scan covered before this; None if this is the scan.
        settle: whether to ask which rows the product may still write to.
    """
    left = await known(connection, job_id)
    return await _Reading(connection, catalog, left, settle, seen).run(subject)


def client_row(table: str, claim: leftovers.Claim, reason: BlockReason) -> Blocked:
    """A client row that is left, and why."""
    return Blocked(
        kind="client",
        table=table,
        row_key=progress.row_key(claim.primary_key),
        request_type=claim.request_type,
        request_id=claim.request_id,
        reason=reason,
    )

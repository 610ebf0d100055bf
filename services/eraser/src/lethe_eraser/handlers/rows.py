"""What handlers share: rows of catalogued tables, read, decided upon and masked."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from weakref import WeakKeyDictionary

from sqlalchemy.ext.asyncio import AsyncConnection

from lethe_contracts.states import BlockReason
from lethe_eraser.catalog import Catalog, Feature, ProductTable
from lethe_eraser.domain import AsRead, BlockedRow, Masked, ObjectRef, RowTarget, Targets
from lethe_eraser.handlers.protocol import Objects
from lethe_eraser.references import UNTAGGED, Found, RowReader, Sorted, Tagged
from lethe_eraser.storage.product_schema import columns_beyond
from lethe_eraser.storage.request_rows import StoredRow, mask_rows, unmasked_rows


@dataclass(frozen=True, slots=True)
class ReadRow:
    """A row and what each of its columns names."""

    product: ProductTable
    row: StoredRow
    found: Mapping[str, tuple[Found, ...]]

    def blocked(self, reason: BlockReason, missing: ObjectRef | None = None) -> BlockedRow:
        """Leave the row as it is."""
        return BlockedRow(
            kind=self.product.kind,
            table=str(self.product.table),
            row_id=self.row.row_id,
            request_id=self.row.request_id,
            reason=reason,
            missing=missing,
            row_version=self.row.row_version,
        )

    def target(
        self,
        objects: Sorted,
        delete_last: Iterable[ObjectRef] = (),
        as_read: Iterable[AsRead] = (),
    ) -> RowTarget:
        """Mask the row once these objects are gone; some only after all others, and as read."""
        last = tuple(delete_last)
        return RowTarget(
            kind=self.product.kind,
            table=str(self.product.table),
            row_id=self.row.row_id,
            row_version=self.row.row_version,
            request_id=self.row.request_id,
            delete=tuple(ref for ref in objects.delete if ref not in last),
            delete_last=last,
            kept=objects.kept,
            unless_referenced=objects.unless_referenced,
            as_read=tuple(as_read),
        )


class CataloguedRows:
    """Rows of a feature's tables, by the catalog alone."""

    def __init__(self, catalog: Catalog, objects: Objects) -> None:
        self._objects = objects
        self._claimed: dict[tuple[str, str], frozenset[str]] = {}
        for feature in catalog.features.values():
            for product in feature.tables:
                name = (product.table.schema, product.table.name)
                self._claimed[name] = product.columns
        self._asked: WeakKeyDictionary[AsyncConnection, Mapping[tuple[str, str], Sequence[str]]] = (
            WeakKeyDictionary()
        )
        self.reader = RowReader(catalog)

    async def collect(
        self,
        connection: AsyncConnection,
        feature: Feature,
        request_ids: Sequence[int],
        subject: str,
    ) -> tuple[list[ReadRow], list[BlockedRow]]:
        """Read the rows that are not masked yet, one statement per table, and their references."""
        rows: list[ReadRow] = []
        blocked: list[BlockedRow] = []
        beyond = await self._beyond(connection)
        for product in feature.tables:
            unclaimed = beyond.get((product.table.schema, product.table.name), ())
            for stored in await unmasked_rows(connection, product, request_ids, unclaimed):
                found = self._read(product, stored, subject)
                if isinstance(found, BlockReason):
                    blocked.append(ReadRow(product, stored, {}).blocked(found))
                else:
                    rows.append(ReadRow(product, stored, found))
        return rows, blocked

    async def _beyond(self, connection: AsyncConnection) -> Mapping[tuple[str, str], Sequence[str]]:
        """Ask once per connection, so per batch, which columns of all tables nobody claims.

        A column that was added since the start is nobody's, too.
        """
        if connection not in self._asked:
            self._asked[connection] = await columns_beyond(connection, self._claimed)
        return self._asked[connection]

    async def existing(self, references: Iterable[Found]) -> frozenset[ObjectRef]:
        """Ask S3 about references that may mean one object or another; seldom any."""
        undecided = frozenset(self.reader.undecided(references))
        return await self._objects.remaining(undecided) if undecided else undecided

    async def tagged(self, references: Iterable[Found], subject: str) -> Tagged:
        """Ask S3 for the tags of objects that these may make shared; seldom any."""
        wanted = self.reader.shared_by_tag(references, subject)
        if not wanted:
            return UNTAGGED
        told = await self._objects.tags(wanted)
        return Tagged(
            shared=frozenset(
                ref for ref, tags in told.items() if tags and wanted[ref] & tags.items()
            ),
            untold=frozenset(ref for ref, tags in told.items() if tags is None),
        )

    async def decide(self, rows: Sequence[ReadRow], subject: str) -> Targets:
        """Say of each row which objects go with it, by the ownership rules."""
        flat = [[found for column in row.found.values() for found in column] for row in rows]
        existing = await self.existing(found for references in flat for found in references)
        tagged = await self.tagged((found for references in flat for found in references), subject)
        targets: list[RowTarget] = []
        blocked: list[BlockedRow] = []
        for row, references in zip(rows, flat, strict=True):
            objects = self.reader.sort(references, subject, existing, tagged)
            if isinstance(objects, BlockReason):
                blocked.append(row.blocked(objects))
            else:
                targets.append(row.target(objects))
        return Targets(tuple(targets), tuple(blocked))

    async def sort(self, references: Sequence[Found], subject: str) -> Sorted | BlockReason:
        """Say which of these objects are the person's, asking S3 where that decides it."""
        existing = await self.existing(references)
        return self.reader.sort(
            references, subject, existing, await self.tagged(references, subject)
        )

    async def mask(
        self, connection: AsyncConnection, feature: Feature, rows: Sequence[RowTarget]
    ) -> Masked:
        """Mask rows whose version is still the one that was read, one statement per table."""
        counts = {"feature": 0, "task": 0}
        changed: list[RowTarget] = []
        for product in feature.tables:
            wanted = {row.row_id: row for row in rows if row.table == str(product.table)}
            versions = {row_id: row.row_version for row_id, row in wanted.items()}
            masked = await mask_rows(connection, product, versions)
            counts[product.kind] += len(masked)
            changed += [row for row_id, row in wanted.items() if row_id not in masked]
        return Masked(counts["feature"], counts["task"], tuple(changed))

    def _read(
        self, product: ProductTable, stored: StoredRow, subject: str
    ) -> Mapping[str, tuple[Found, ...]] | BlockReason:
        if stored.uncovered:
            return BlockReason.UNCOVERED
        if stored.is_cut:
            return BlockReason.MALFORMED_JSON
        return self.reader.read(product, stored.values, subject)

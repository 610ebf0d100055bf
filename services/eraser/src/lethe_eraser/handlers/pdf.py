"""Rows that hold no more than the path of a manifest, whose files are named only inside it.

The manifest is read first and deleted last: as long as one of its files is left, it can be found.
All its versions go with it, and so do the files that only an earlier one names. It goes as it was
read: one that was written anew meanwhile is read again first.
"""

import asyncio
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from sys import maxsize
from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from sqlalchemy.ext.asyncio import AsyncConnection

from lethe_contracts.states import BlockReason
from lethe_eraser.catalog import Catalog, CatalogError, Feature, ReferenceRule, Rules
from lethe_eraser.domain import (
    AsRead,
    BlockedRow,
    Masked,
    ObjectRef,
    RowTarget,
    Source,
    Targets,
)
from lethe_eraser.handlers.protocol import HandlerFactory, Objects
from lethe_eraser.handlers.rows import CataloguedRows, ReadRow
from lethe_eraser.objects import ObjectMissingError, ObjectRefusedError, ObjectTooLargeError
from lethe_eraser.references import Found, Sorted
from lethe_eraser.references.streamed import MOST_VALUES, UnreadableError, read_streamed

Versions = Mapping[ObjectRef, Sequence[ObjectRef]]

READ_AT_ONCE: Final = 4
"""Manifests that are read at the same time."""

MOST_VERSIONS: Final = 100
"""Versions of a manifest that are read; a row whose manifest has more is blocked."""

MOST_FILES: Final = MOST_VALUES
"""Files that all versions of a manifest may name together."""


class PdfOptions(BaseModel):
    """`options` of a feature with `handler: pdf`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    manifest: str
    """Column whose reference names the manifest."""
    files: str
    """Reference set that says where the manifest names its files."""
    limit_bytes: Annotated[int, Field(gt=0, le=268_435_456)] = 67_108_864
    """A larger manifest is not read, and its row is blocked. Memory does not grow with it."""


class Pdf:
    """Erases extractions: the files of the manifest, the manifest, the row."""

    def __init__(self, features: Mapping[str, Feature], catalog: Catalog, objects: Objects) -> None:
        self._features = features
        self._options = {name: _options(feature, catalog) for name, feature in features.items()}
        self._sets: Mapping[str, Rules] = catalog.reference_sets
        self._objects = objects
        self._rows = CataloguedRows(catalog, objects)
        self._reading = asyncio.Semaphore(READ_AT_ONCE)

    def supports(self, request_type: str) -> bool:
        """Whether the catalog gives `request_type` to this handler."""
        return request_type in self._features

    async def find_targets(
        self,
        connection: AsyncConnection,
        request_type: str,
        request_ids: Sequence[int],
        subject: str,
    ) -> Targets:
        """Read rows and their manifests; a row whose manifest cannot be read is blocked."""
        return await self.find_some(connection, request_type, request_ids, subject, enough=maxsize)

    async def find_some(
        self,
        connection: AsyncConnection,
        request_type: str,
        request_ids: Sequence[int],
        subject: str,
        *,
        enough: int,
    ) -> Targets:
        """Read the rows, and manifests until they name `enough`; the other requests are `later`."""
        feature, options = self._features[request_type], self._options[request_type]
        rows, blocked = await self._rows.collect(connection, feature, request_ids, subject)
        by_row = {(row.product.kind, row.row.row_id): row for row in rows}
        decided = await self._rows.decide(rows, subject)
        going = {ref for target in decided.rows for ref in target.delete}
        versions = await self._versions(rows, options.manifest, going)
        place = {request_id: at for at, request_id in enumerate(request_ids)}
        targets = sorted(decided.rows, key=lambda target: place[target.request_id])
        of_request = groupby(targets, key=lambda target: target.request_id)
        waiting = iter([list(group) for _, group in of_request])
        read: dict[tuple[str, int], RowTarget | BlockedRow] = {}
        room = enough

        async def read_on() -> None:
            nonlocal room
            while room > 0 and (group := next(waiting, None)):
                for target in group:
                    at = (target.kind, target.row_id)
                    one = read[at] = await self._with_files(
                        by_row[at], target, options, subject, versions
                    )
                    if isinstance(one, RowTarget):
                        room -= one.objects

        await asyncio.gather(*(read_on() for _ in range(READ_AT_ONCE)))
        # In the order of the requests, whichever was read first.
        found = [read[at] for one in targets if (at := (one.kind, one.row_id)) in read]
        unread = next(waiting, None)
        later = () if unread is None else tuple(request_ids[place[unread[0].request_id] :])
        return Targets(
            rows=tuple(one for one in found if isinstance(one, RowTarget)),
            blocked=(
                *blocked,
                *decided.blocked,
                *(one for one in found if isinstance(one, BlockedRow)),
            ),
            later=later,
        )

    async def erase(
        self, connection: AsyncConnection, request_type: str, rows: Sequence[RowTarget]
    ) -> Masked:
        """Mask the rows that are unchanged."""
        return await self._rows.mask(connection, self._features[request_type], rows)

    async def _versions(
        self, rows: Sequence[ReadRow], manifest: str, going: Collection[ObjectRef]
    ) -> Versions:
        """List the versions of all manifests of a page that go, at once."""
        named = {r for row in rows for f in row.found.get(manifest, ()) for r in f.candidates}
        manifests = sorted(named.intersection(going), key=str)
        return await self._objects.versions(manifests) if manifests else {}

    async def read_source(
        self, request_type: str, ref: ObjectRef, subject: str
    ) -> Source | BlockReason:
        """Read a manifest without its row, which is masked."""
        versions = await self._objects.versions([ref])
        manifest = _Manifest(ref, versions.get(ref, ()))
        options = self._options[request_type]
        try:
            read = await self._newest(manifest, options, subject)
        except ObjectMissingError:
            return Source(AsRead(ref, ()), ())
        if isinstance(read, BlockReason):
            return read
        files = await self._rows.sort(read, subject)
        if isinstance(files, BlockReason):
            return files
        whole = await self._with_earlier(files, manifest, options, subject)
        if whole is None:
            return BlockReason.MANIFEST_INVALID
        return Source(manifest.as_read, whole.delete, whole.unless_referenced)

    async def _with_files(
        self,
        row: ReadRow,
        target: RowTarget,
        options: PdfOptions,
        subject: str,
        versions: Versions,
    ) -> RowTarget | BlockedRow:
        """Add what the manifest names; a manifest that is kept keeps its files, too."""
        named = {r for f in row.found.get(options.manifest, ()) for r in f.candidates}
        manifests = [_Manifest(ref, versions.get(ref, ())) for ref in target.delete if ref in named]
        files: list[Found] = []
        for manifest in manifests:
            try:
                read = await self._newest(manifest, options, subject)
            except ObjectMissingError:
                return row.blocked(BlockReason.MANIFEST_MISSING, missing=manifest.ref)
            if isinstance(read, BlockReason):
                return row.blocked(read)
            files += read
        objects = await self._rows.sort(files, subject)
        if isinstance(objects, BlockReason):
            return row.blocked(objects)
        joined: Sorted | None = _joined(target, objects)
        for manifest in manifests:
            joined = joined and await self._with_earlier(joined, manifest, options, subject)
        if joined is None:
            return row.blocked(BlockReason.MANIFEST_INVALID)
        return row.target(
            joined, [one.ref for one in manifests], [one.as_read for one in manifests]
        )

    async def _newest(
        self, manifest: "_Manifest", options: PdfOptions, subject: str
    ) -> tuple[Found, ...] | BlockReason:
        """Give what the newest version names that is there; raises `ObjectMissingError`."""
        while True:
            # By its version, so that it is one of those that were listed.
            newest = next(iter(manifest.versions), manifest.ref)
            try:
                return await self._files(manifest, newest, options, subject)
            except ObjectMissingError:
                known = manifest.versions
                listed = await self._objects.versions([manifest.ref])
                manifest.versions = listed.get(manifest.ref, ())
                # Another one is the newest if somebody deleted it since it was listed.
                if manifest.versions == known:
                    raise

    async def _with_earlier(
        self, files: Sorted, manifest: "_Manifest", options: PdfOptions, subject: str
    ) -> Sorted | None:
        """Add what only earlier versions name; None if it is too much.

        One that cannot be read or resolved is passed over: a manifest is mended by a new version.
        """
        if len(manifest.versions) > MOST_VERSIONS:
            return None
        for version in manifest.versions[1:]:
            try:
                read = await self._files(manifest, version, options, subject)
            except ObjectMissingError:
                continue
            if isinstance(read, BlockReason):
                continue
            objects = await self._rows.sort(read, subject)
            if isinstance(objects, BlockReason):
                continue
            files = _united(files, objects)
            if len(files.delete) + len(files.unless_referenced) > MOST_FILES:
                return None
        return files

    async def _files(
        self, manifest: "_Manifest", version: ObjectRef, options: PdfOptions, subject: str
    ) -> tuple[Found, ...] | BlockReason:
        # Until it is opened: a version that cannot be read is passed over, and goes.
        name = version.version or ""
        async with self._reading:
            try:
                async with self._objects.stream(version, options.limit_bytes) as content:
                    name = content.name
                    value = await read_streamed(content.chunks, self._rows.reader.refers)
            except (ObjectTooLargeError, ObjectRefusedError, UnreadableError):
                return BlockReason.MANIFEST_INVALID
            finally:
                manifest.held.append(name)
            files = self._rows.reader.read_value(self._sets[options.files], value, subject)
        return BlockReason.MANIFEST_INVALID if files is BlockReason.MALFORMED_JSON else files


@dataclass(slots=True)
class _Manifest:
    """A manifest while its versions are read."""

    ref: ObjectRef
    versions: Sequence[ObjectRef]
    """Those that were listed; nothing where it has none, or none that holds data."""
    held: list[str] = field(default_factory=list)

    @property
    def as_read(self) -> AsRead:
        return AsRead(self.ref, tuple(self.held))


def _united(files: Sorted, earlier: Sorted) -> Sorted:
    """Files of one version and of an earlier one; what is kept is counted by the newest alone."""
    delete = tuple(dict.fromkeys((*files.delete, *earlier.delete)))
    counted = dict.fromkeys((*files.unless_referenced, *earlier.unless_referenced))
    named = set(delete)
    return Sorted(delete, files.kept, tuple(ref for ref in counted if ref not in named))


def _joined(target: RowTarget, files: Sorted) -> Sorted:
    """What the row names, and what its manifest does."""
    delete = tuple(dict.fromkeys((*target.delete, *files.delete)))
    counted = dict.fromkeys((*target.unless_referenced, *files.unless_referenced))
    return Sorted(delete, target.kept + files.kept, tuple(r for r in counted if r not in delete))


def _options(feature: Feature, catalog: Catalog) -> PdfOptions:
    try:
        options = PdfOptions.model_validate(dict(feature.options))
    except ValidationError as invalid:
        raise CatalogError(
            f"{feature.options_at}.{'.'.join(map(str, error['loc']))}: {error['msg'].lower()};"
            f" the handler pdf takes {', '.join(PdfOptions.model_fields)}"
            for error in invalid.errors()
        ) from None
    problems = []
    columns = {column for table in feature.tables for column in table.references}
    rules = [
        rule for table in feature.tables for rule in table.references.get(options.manifest, ())
    ]
    if any(isinstance(rule, ReferenceRule) and rule.ownership.if_unreferenced for rule in rules):
        problems.append(
            f"{feature.options_at}.manifest: is deleted after everything found in it, and so it"
            " cannot be if_unreferenced; write owned or owned_under"
        )
    if options.manifest not in columns:
        problems.append(
            f"{feature.options_at}.manifest: must be a column with references:"
            f" {', '.join(sorted(columns)) or 'there is none'}"
        )
    if options.files not in catalog.reference_sets:
        problems.append(
            f"{feature.options_at}.files: must name a reference set:"
            f" {', '.join(sorted(catalog.reference_sets)) or 'there is none'}"
        )
    if problems:
        raise CatalogError(problems)
    return options


HANDLER: Final[HandlerFactory] = Pdf

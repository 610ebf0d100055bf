"""Requests and results in tables whose columns name their objects: every AI feature."""

from collections.abc import Mapping, Sequence
from typing import Final

from sqlalchemy.ext.asyncio import AsyncConnection

from lethe_eraser.catalog import Catalog, CatalogError, Feature
from lethe_eraser.domain import Masked, RowTarget, Targets
from lethe_eraser.handlers.protocol import HandlerFactory, Objects
from lethe_eraser.handlers.rows import CataloguedRows


class AiGenerate:
    """Erases every feature that the catalog describes by tables, columns and references."""

    def __init__(self, features: Mapping[str, Feature], catalog: Catalog, objects: Objects) -> None:
        if needless := [
            f"{f.options_at}: ai_generate takes none" for f in features.values() if f.options
        ]:
            raise CatalogError(needless)
        self._features = features
        self._rows = CataloguedRows(catalog, objects)

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
        """Read feature and task rows and resolve what they name."""
        feature = self._features[request_type]
        rows, blocked = await self._rows.collect(connection, feature, request_ids, subject)
        decided = await self._rows.decide(rows, subject)
        return Targets(decided.rows, (*blocked, *decided.blocked))

    async def erase(
        self, connection: AsyncConnection, request_type: str, rows: Sequence[RowTarget]
    ) -> Masked:
        """Mask the rows that are unchanged."""
        return await self._rows.mask(connection, self._features[request_type], rows)


HANDLER: Final[HandlerFactory] = AiGenerate

"""How one way of storing a request is erased; one module per way, found through the registry."""

from collections.abc import Sequence
from typing import Protocol

from sqlalchemy.ext.asyncio import AsyncConnection

from lethe_eraser.domain import Masked, RowTarget, Targets


class ErasureHandler(Protocol):
    """Finds and masks the rows of request types that store their data in one way.

    Rows that are masked already are neither targets nor counted again: the same page twice is the
    page once. A handler never commits and never talks of requests that are not among `request_ids`.
    """

    def supports(self, request_type: str) -> bool:
        """Whether this handler erases requests of `request_type`."""
        ...

    async def find_targets(
        self,
        connection: AsyncConnection,
        request_type: str,
        request_ids: Sequence[int],
        subject: str,
    ) -> Targets:
        """Read the rows of `request_ids` and resolve every reference in them; changes nothing."""
        ...

    async def erase(
        self, connection: AsyncConnection, request_type: str, rows: Sequence[RowTarget]
    ) -> Masked:
        """Mask `rows` in the caller's transaction; those changed since they were read come back."""
        ...

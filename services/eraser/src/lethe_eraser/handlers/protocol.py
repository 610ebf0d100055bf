"""What every handler promises, and what it is given."""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol, runtime_checkable

from sqlalchemy.ext.asyncio import AsyncConnection

from lethe_contracts.states import BlockReason
from lethe_eraser.catalog import Catalog, Feature
from lethe_eraser.domain import Masked, ObjectRef, RowTarget, Source, Targets
from lethe_eraser.objects import Content


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
        """Mask `rows` inside the caller's transaction; rows that changed meanwhile are returned."""
        ...


@runtime_checkable
class SourceReader(Protocol):
    """What a handler does besides that finds objects in objects, and says so by `as_read`."""

    async def find_some(
        self,
        connection: AsyncConnection,
        request_type: str,
        request_ids: Sequence[int],
        subject: str,
        *,
        enough: int,
    ) -> Targets:
        """Find targets as `find_targets` does, in the order of `request_ids`, until it is `enough`.

        After so many objects no further request is looked into: those that are left are `later`.
        No row tells how much it leads to, so this is what bounds a batch.
        """
        ...

    async def read_source(
        self, request_type: str, ref: ObjectRef, subject: str
    ) -> Source | BlockReason:
        """Read again what the product wrote under `ref` after its row was masked.

        `ref` was in a target's `delete_last`. Says why not if nobody can tell what it leads to.
        """
        ...


class Objects(Protocol):
    """What finding needs of the object store."""

    async def remaining(self, refs: Iterable[ObjectRef]) -> frozenset[ObjectRef]:
        """Give those of `refs` that are there."""
        ...

    def stream(self, ref: ObjectRef, limit_bytes: int) -> AbstractAsyncContextManager[Content]:
        """Read an object by chunks; raises as `read` does, also while it is read."""
        ...

    async def tags(self, refs: Iterable[ObjectRef]) -> Mapping[ObjectRef, Mapping[str, str] | None]:
        """Give the tags of each; none of what is not there, None where S3 refuses to tell."""
        ...

    async def versions(self, refs: Iterable[ObjectRef]) -> Mapping[ObjectRef, Sequence[ObjectRef]]:
        """Give what of each holds data, newest first; itself alone where no versions are kept."""
        ...

    async def read(self, ref: ObjectRef, limit_bytes: int) -> bytes:
        """Read an object; raises an `ObjectStoreError` that says why it cannot."""
        ...


class HandlerFactory(Protocol):
    """How a handler is made; each module of the registry has one as `HANDLER`."""

    def __call__(
        self, features: Mapping[str, Feature], catalog: Catalog, objects: Objects
    ) -> ErasureHandler:
        """Make the handler of `features`; raises `CatalogError` if their options do not fit."""
        ...

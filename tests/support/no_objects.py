"""For tests of finding that S3 has no part in."""

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager

from lethe_eraser.domain import ObjectRef
from lethe_eraser.objects import Content


class NoObjects:
    """Fails the test that asks it anything."""

    async def remaining(self, refs: Iterable[ObjectRef]) -> frozenset[ObjectRef]:
        raise AssertionError(f"asked S3 for {list(refs)}")

    @asynccontextmanager
    async def stream(self, ref: ObjectRef, limit_bytes: int) -> AsyncIterator[Content]:
        raise AssertionError(f"read {ref} up to {limit_bytes}")
        yield

    async def tags(self, refs: Iterable[ObjectRef]) -> Mapping[ObjectRef, Mapping[str, str] | None]:
        raise AssertionError(f"asked S3 for tags of {list(refs)}")

    async def versions(self, refs: Iterable[ObjectRef]) -> Mapping[ObjectRef, Sequence[ObjectRef]]:
        raise AssertionError(f"asked S3 for versions of {list(refs)}")

    async def read(self, ref: ObjectRef, limit_bytes: int) -> bytes:
        raise AssertionError(f"read {ref} up to {limit_bytes}")

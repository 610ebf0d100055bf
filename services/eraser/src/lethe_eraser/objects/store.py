"""The object store: removes, looks again and reads; boto3 in one bounded pool of threads."""

from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Self

from lethe_eraser.catalog import Bucket
from lethe_eraser.domain import ObjectRef
from lethe_eraser.objects.breaker import OnState
from lethe_eraser.objects.calls import S3Calls, S3Options
from lethe_eraser.objects.checking import problems_of
from lethe_eraser.objects.company import Seat
from lethe_eraser.objects.looking import Looking
from lethe_eraser.objects.outcomes import (
    UNKNOWN_BUCKET,
    BucketsUnfitError,
    Content,
    Deletion,
    Held,
    ObjectRefusedError,
)
from lethe_eraser.objects.pace import OnThrottled, Pace
from lethe_eraser.objects.removing import Removing
from lethe_eraser.objects.threads import Threads, every


class ObjectStore:
    """S3 as the eraser needs it; any method may raise `ObjectStoreUnavailableError`: try later.

    A reference means the object and, where the catalog names replicas of its bucket, its copies:
    it is gone when all of them are.
    """

    def __init__(
        self,
        options: S3Options,
        buckets: Mapping[str, Bucket],
        *,
        on_error: Callable[[str], None] = lambda _: None,
        on_breaker: OnState = lambda _name, _is_open: None,
        on_throttled: OnThrottled = lambda _bucket, _count: None,
        wait_seconds: float = 0.2,
    ) -> None:
        """Open nothing yet.

        Args:
            options: How to reach S3.
            buckets: The catalog's buckets; others are never touched.
            on_error: Told the code of every error S3 gives, from any thread.
            on_breaker: Told the name of a circuit and whether it is open, when that changes.
            on_throttled: Told a bucket and what counts its prefixes that S3 slowed down.
            wait_seconds: The first wait before a second try; the later ones grow.
        """
        self._options = options
        self._buckets = buckets
        self._calls = S3Calls(options, buckets, on_error, on_breaker, wait_seconds)
        self._threads = Threads(options.threads)
        self._looking = Looking(self._calls, self._threads)
        pace = Pace(options.prefix_keys_per_second, on_throttled=on_throttled)
        self._removing = Removing(
            self._calls, self._threads, self._looking, pace, buckets, options.page_keys
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Wait for calls under way and release the threads."""
        await self._threads.close()

    async def delete(self, refs: Iterable[ObjectRef], held: Held | None = None) -> Deletion:
        """Remove objects, all versions of a key unless the reference names one.

        An object that is not there counts as gone. Of a versioned key the data goes first, its
        markers last, and a listing proves the end. What `held` names goes only if it holds nothing
        else, and has failed as `REWRITTEN` otherwise; that is asked of no replica, because nobody
        reads one.
        """
        copies, failed = self._copies(refs)
        by_bucket = _by_bucket(copy for group in copies.values() for copy in group)
        if (seat := Seat.taken()) is not None:
            seat.expect(by_bucket)
        outcomes = await every(
            self._removing.remove(bucket, some, held or {}) for bucket, some in by_bucket.items()
        )
        refused = {copy: code for one in outcomes for copy, code in one.failed.items()}
        tagged = frozenset(copy for one in outcomes for copy in one.scheduled)
        locks = {copy: until for one in outcomes for copy, until in one.locked_until.items()}
        gone, scheduled = set(), set()
        locked_until: dict[ObjectRef, datetime | None] = {}
        for ref, group in copies.items():
            if stopped := [copy for copy in group if copy in refused]:
                first = next((copy for copy in stopped if copy in locks), stopped[0])
                failed[ref] = refused[first]
                if first in locks:
                    locked_until[ref] = locks[first]
            elif tagged.intersection(group):
                scheduled.add(ref)
            else:
                gone.add(ref)
        return Deletion(frozenset(gone), failed, frozenset(scheduled), locked_until)

    def look_anew(self) -> None:
        """Ask again what buckets do with what is deleted; it is believed for a while otherwise."""
        self._looking.forget()

    async def remaining(self, refs: Iterable[ObjectRef]) -> frozenset[ObjectRef]:
        """Give those of `refs` of which any version or marker is there, or S3 will not tell."""
        copies, unknown = self._copies(refs)
        by_bucket = _by_bucket(copy for group in copies.values() for copy in group)
        found = await every(
            # A marker holds nothing that could be tagged; the lifecycle removes it by itself.
            self._looking.remaining(b, wanted, markers_too=self._buckets[b].tag is None)
            for b, wanted in by_bucket.items()
        )
        there = frozenset[ObjectRef]().union(*found)
        return frozenset(unknown) | {ref for ref, group in copies.items() if there & group}

    async def missing(self, refs: Iterable[ObjectRef]) -> frozenset[ObjectRef]:
        """Give those that are not there, of the buckets whose catalog entry wants it counted."""
        counted = [
            ref
            for ref in dict.fromkeys(refs)
            if ref.bucket in self._buckets and self._buckets[ref.bucket].count_missing
        ]
        return frozenset(counted) - await self.remaining(counted)

    async def tags(self, refs: Iterable[ObjectRef]) -> Mapping[ObjectRef, Mapping[str, str] | None]:
        """Give the tags of each; none of what is not there, None where S3 refuses to tell."""
        wanted = list(dict.fromkeys(refs))
        told = await every(self._looking.tags(ref) for ref in wanted)
        return dict(zip(wanted, told, strict=True))

    async def versions(
        self, refs: Iterable[ObjectRef]
    ) -> Mapping[ObjectRef, tuple[ObjectRef, ...]]:
        """Give the versions of each that hold data, newest first.

        Where a bucket keeps none, or will not list them, an object stands for itself; so does a
        reference that names a version.
        """
        wanted = [ref for ref in dict.fromkeys(refs) if ref.bucket in self._buckets]
        whole = [ref for ref in wanted if ref.version is None]
        found = await every(
            self._looking.holding_data(bucket, some) for bucket, some in _by_bucket(whole).items()
        )
        return {ref: (ref,) for ref in wanted} | {r: v for one in found for r, v in one.items()}

    async def read(self, ref: ObjectRef, limit_bytes: int) -> bytes:
        """Read an object whole; as `stream`."""
        async with self.stream(ref, limit_bytes) as content:
            return b"".join([chunk async for chunk in content.chunks])

    @asynccontextmanager
    async def stream(self, ref: ObjectRef, limit_bytes: int) -> AsyncIterator[Content]:
        """Read an object by chunks: its newest version that holds data, or the one it names.

        Raises:
            ObjectMissingError: There is none.
            ObjectTooLargeError: It holds more than `limit_bytes`; at once, or while it is read.
            ObjectRefusedError: S3 refuses it.
        """
        if ref.bucket not in self._buckets:
            raise ObjectRefusedError(UNKNOWN_BUCKET)
        async with self._looking.reading(ref, limit_bytes) as content:
            yield content

    async def problems(self) -> tuple[str, ...]:
        """Say what of the buckets would make erasing impossible or look done; empty if nothing."""
        found = await every(
            self._threads.run(problems_of, self._calls, bucket, self._options.endpoint_url is None)
            for bucket in self._buckets.values()
        )
        return tuple(problem for one in found for problem in one)

    async def check(self) -> None:
        """Refuse buckets that are not as they must be.

        Raises:
            BucketsUnfitError: All that is wrong with them.
        """
        if problems := await self.problems():
            raise BucketsUnfitError(problems)

    def _copies(
        self, refs: Iterable[ObjectRef]
    ) -> tuple[dict[ObjectRef, frozenset[ObjectRef]], dict[ObjectRef, str]]:
        """Give every reference with its replicas, and those of unknown buckets."""
        copies: dict[ObjectRef, frozenset[ObjectRef]] = {}
        unknown: dict[ObjectRef, str] = {}
        for ref in dict.fromkeys(refs):
            bucket = self._buckets.get(ref.bucket)
            if bucket is None:
                unknown[ref] = UNKNOWN_BUCKET
            else:
                # Replication keeps version ids.
                replicas = (ObjectRef(name, ref.key, ref.version) for name in bucket.replicas)
                copies[ref] = frozenset((ref, *replicas))
        return copies, unknown


def _by_bucket(refs: Iterable[ObjectRef]) -> dict[str, list[ObjectRef]]:
    by_bucket: dict[str, list[ObjectRef]] = {}
    for ref in dict.fromkeys(refs):
        by_bucket.setdefault(ref.bucket, []).append(ref)
    return by_bucket

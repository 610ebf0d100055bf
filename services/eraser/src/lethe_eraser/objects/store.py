"""The object store: deletes, looks again and reads; boto3 in one bounded pool of threads."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from time import monotonic
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar

from lethe_eraser.catalog import Bucket
from lethe_eraser.domain import ObjectRef
from lethe_eraser.objects.calls import RefusedError, S3Calls, S3Options
from lethe_eraser.objects.deleting import Item, delete_page, pages
from lethe_eraser.objects.listing import (
    LEVELS,
    Seen,
    Version,
    groups,
    has_key,
    sweep_keys,
    sweep_versions,
)
from lethe_eraser.objects.outcomes import (
    Deletion,
    ObjectMissingError,
    ObjectRefusedError,
    ObjectTooLargeError,
)

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

T = TypeVar("T")

VERSIONING_SECONDS: Final = 600.0
"""How long a bucket's versioning state is believed."""

PROOFS: Final = 3
"""How often the versions of a key are deleted and listed again before it counts as refused."""

UNKNOWN_BUCKET: Final = "UnknownBucket"
VERSIONS_REMAIN: Final = "VersionsRemain"
_MISSING: Final = frozenset({"NoSuchKey", "NoSuchVersion", "404", "MethodNotAllowed"})


class ObjectStore:
    """S3 as the eraser needs it; any method may raise `ObjectStoreUnavailableError`: try later."""

    def __init__(
        self,
        options: S3Options,
        buckets: Mapping[str, Bucket],
        *,
        on_error: Callable[[str], None] = lambda _: None,
        wait_seconds: float = 0.2,
    ) -> None:
        """Open nothing yet.

        Args:
            options: How to reach S3.
            buckets: The catalog's buckets; others are never touched.
            on_error: Told the code of every error S3 gives, from any thread.
            wait_seconds: The first wait before a second try; the later ones grow.
        """
        self._buckets = buckets
        self._page_keys = options.page_keys
        self._calls = S3Calls(options, buckets, on_error, wait_seconds)
        self._pool = ThreadPoolExecutor(options.threads, thread_name_prefix="s3")
        self._versioned: dict[str, tuple[float, bool]] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Wait for calls under way and release the threads."""
        await asyncio.get_running_loop().run_in_executor(None, self._pool.shutdown)

    async def delete(self, refs: Iterable[ObjectRef]) -> Deletion:
        """Delete objects, all versions of a key unless the reference names one.

        An object that is not there counts as gone. Of a versioned key the data goes first, its
        markers last, and a listing proves the end.
        """
        by_bucket, failed = self._by_bucket(refs)
        outcomes = await _all(self._delete_in(b, wanted) for b, wanted in by_bucket.items())
        for outcome in outcomes:
            failed.update(outcome)
        wanted = {ref for group in by_bucket.values() for ref in group}
        return Deletion(gone=frozenset(wanted - set(failed)), failed=failed)

    async def remaining(self, refs: Iterable[ObjectRef]) -> frozenset[ObjectRef]:
        """Give those of `refs` of which any version or marker is there, or S3 will not tell."""
        by_bucket, unknown = self._by_bucket(refs)
        found = await _all(self._remaining_in(b, wanted) for b, wanted in by_bucket.items())
        return frozenset(unknown).union(*found)

    async def read(self, ref: ObjectRef, limit_bytes: int) -> bytes:
        """Read an object whole: its newest version that holds data, or the version it names.

        Raises:
            ObjectMissingError: There is none.
            ObjectTooLargeError: It holds more than `limit_bytes`.
            ObjectRefusedError: S3 refuses it.
        """
        if ref.bucket not in self._buckets:
            raise ObjectRefusedError(UNKNOWN_BUCKET)
        try:
            return await self._run(self._get, ref.bucket, ref.key, ref.version, limit_bytes)
        except RefusedError as refusal:
            if refusal.code not in _MISSING:
                raise ObjectRefusedError(refusal.code) from None
        earlier = None
        if ref.version is None and await self._is_versioned(ref.bucket):
            seen = await self._listed(ref.bucket, [ref.key])
            # S3 lists the newest first.
            earlier = next((v.version_id for v in seen.versions if not v.is_marker), None)
        if earlier is None:
            raise ObjectMissingError("no version of the object holds data")
        try:
            return await self._run(self._get, ref.bucket, ref.key, earlier, limit_bytes)
        except RefusedError as refusal:
            if refusal.code in _MISSING:
                raise ObjectMissingError("the object went while it was looked for") from None
            raise ObjectRefusedError(refusal.code) from None

    def _by_bucket(
        self, refs: Iterable[ObjectRef]
    ) -> tuple[dict[str, list[ObjectRef]], dict[ObjectRef, str]]:
        by_bucket: dict[str, list[ObjectRef]] = {}
        unknown: dict[ObjectRef, str] = {}
        for ref in dict.fromkeys(refs):
            if ref.bucket in self._buckets:
                by_bucket.setdefault(ref.bucket, []).append(ref)
            else:
                unknown[ref] = UNKNOWN_BUCKET
        return by_bucket, unknown

    async def _delete_in(self, bucket: str, refs: Sequence[ObjectRef]) -> dict[ObjectRef, str]:
        if await self._is_versioned(bucket):
            return await self._delete_versions(bucket, refs)
        refused = await self._delete_items(bucket, [Item(key) for key in {r.key for r in refs}])
        return {ref: refused[Item(ref.key)] for ref in refs if Item(ref.key) in refused}

    async def _delete_versions(
        self, bucket: str, refs: Sequence[ObjectRef]
    ) -> dict[ObjectRef, str]:
        failed: dict[ObjectRef, str] = {}
        left = list(refs)
        for _ in range(PROOFS):
            try:
                versions = await self._versions_of(bucket, left)
            except RefusedError as refusal:
                return failed | dict.fromkeys(left, refusal.code)
            left = [ref for ref in left if versions[ref]]
            if not left:
                return failed
            refused = await self._delete_items(bucket, _items(versions, left, is_marker=False))
            # Without its marker a version that could not be deleted would be readable again.
            bare = [
                r
                for r in left
                if not any(Item(r.key, v.version_id) in refused for v in versions[r])
            ]
            refused |= await self._delete_items(bucket, _items(versions, bare, is_marker=True))
            for ref in left:
                codes = [refused.get(Item(ref.key, v.version_id)) for v in versions[ref]]
                code = next((code for code in codes if code is not None), None)
                if code is not None:
                    failed[ref] = code
            left = [ref for ref in left if ref not in failed]
        try:
            versions = await self._versions_of(bucket, left)
        except RefusedError as refusal:
            return failed | dict.fromkeys(left, refusal.code)
        return failed | {ref: VERSIONS_REMAIN for ref in left if versions[ref]}

    async def _delete_items(self, bucket: str, items: Sequence[Item]) -> dict[Item, str]:
        refused: dict[Item, str] = {}
        for outcome in await _all(
            self._run(delete_page, self._calls, bucket, page)
            for page in pages(items, self._page_keys)
        ):
            refused |= outcome
        return refused

    async def _remaining_in(self, bucket: str, refs: Sequence[ObjectRef]) -> frozenset[ObjectRef]:
        try:
            if await self._is_versioned(bucket):
                versions = await self._versions_of(bucket, refs)
                return frozenset(ref for ref in refs if versions[ref])
            present = await self._present(bucket, {ref.key for ref in refs})
        except RefusedError:
            return frozenset(refs)
        return frozenset(ref for ref in refs if ref.key in present)

    async def _present(self, bucket: str, keys: Iterable[str]) -> set[str]:
        found: set[str] = set()
        left = set(keys)
        for level in range(LEVELS):
            neighbours = [group for group in groups(left, level) if len(group) > 1]
            seen = await _all(self._run(sweep_keys, self._calls, bucket, g) for g in neighbours)
            found = found.union(*(one.keys for one in seen))
            left -= {key for group in neighbours for key in group}
            left |= {key for one in seen for key in one.unsettled}
        singles = sorted(left)
        heads = await _all(self._run(has_key, self._calls, bucket, key) for key in singles)
        return found | {key for key, there in zip(singles, heads, strict=True) if there}

    async def _versions_of(
        self, bucket: str, refs: Sequence[ObjectRef]
    ) -> dict[ObjectRef, list[Version]]:
        seen = await self._listed(bucket, {ref.key for ref in refs})
        by_key: dict[str, list[Version]] = {}
        for version in seen.versions:
            by_key.setdefault(version.key, []).append(version)
        return {
            ref: [v for v in by_key.get(ref.key, []) if ref.version in {None, v.version_id}]
            for ref in refs
        }

    async def _listed(self, bucket: str, keys: Iterable[str]) -> Seen:
        whole = Seen()
        left = set(keys)
        for level in range(LEVELS + 1):
            among = [g for g in groups(left, level) if len(g) > 1 or level == LEVELS]
            seen = await _all(self._run(sweep_versions, self._calls, bucket, g) for g in among)
            whole.versions += [version for one in seen for version in one.versions]
            left -= {key for group in among for key in group}
            left |= {key for one in seen for key in one.unsettled}
        return whole

    async def _is_versioned(self, bucket: str) -> bool:
        """Whether the bucket has, or may have, versions: also where they are suspended."""
        known = self._versioned.get(bucket)
        if known is not None and monotonic() - known[0] < VERSIONING_SECONDS:
            return known[1]

        def ask(client: "S3Client", arguments: dict[str, Any]) -> bool:
            return client.get_bucket_versioning(**arguments).get("Status") is not None

        try:
            versioned: bool = await self._run(self._calls.call, bucket, ask)
        except RefusedError:
            return True
        self._versioned[bucket] = (monotonic(), versioned)
        return versioned

    def _get(self, bucket: str, key: str, version: str | None, limit_bytes: int) -> bytes:
        named: dict[str, Any] = (
            {"Key": key} if version is None else {"Key": key, "VersionId": version}
        )

        def get(client: "S3Client", arguments: dict[str, Any]) -> bytes:
            answer = client.get_object(**arguments, **named)
            with answer["Body"] as body:
                if answer.get("ContentLength", 0) > limit_bytes:
                    raise ObjectTooLargeError("the object is larger than it may be")
                return body.read(limit_bytes + 1)

        data = self._calls.call(bucket, get)
        if len(data) > limit_bytes:
            raise ObjectTooLargeError("the object is larger than it may be")
        return data

    async def _run(self, function: Callable[..., T], *arguments: Any) -> T:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._pool, function, *arguments)


def _items(
    versions: Mapping[ObjectRef, Sequence[Version]], refs: Iterable[ObjectRef], *, is_marker: bool
) -> list[Item]:
    items = (
        Item(ref.key, version.version_id)
        for ref in refs
        for version in versions[ref]
        if version.is_marker is is_marker
    )
    return list(dict.fromkeys(items))


async def _all(awaitables: Iterable[Awaitable[T]]) -> list[T]:
    """Wait for all, and only then raise the first error: nothing goes on unseen."""
    results = await asyncio.gather(*awaitables, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return [result for result in results if not isinstance(result, BaseException)]

"""What there is in a bucket: its state, keys, versions and markers, and what an object holds."""

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

from lethe_eraser.domain import ObjectRef
from lethe_eraser.objects.calls import RefusedError, S3Calls
from lethe_eraser.objects.deleting import Item
from lethe_eraser.objects.listing import (
    LEVELS,
    NULL,
    Seen,
    Version,
    groups,
    has_key,
    sweep_keys,
    sweep_versions,
)
from lethe_eraser.objects.outcomes import (
    Content,
    ObjectMissingError,
    ObjectRefusedError,
    ObjectTooLargeError,
)
from lethe_eraser.objects.threads import Threads, every

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

VERSIONING_SECONDS: Final = 600.0
"""How long a bucket's versioning state is believed."""

CHUNK_BYTES: Final = 65_536

_MISSING: Final = frozenset({"NoSuchKey", "NoSuchVersion", "404", "MethodNotAllowed"})


@dataclass(frozen=True, slots=True)
class Versioning:
    """What a bucket does with what is deleted."""

    keeps_versions: bool
    """It has, or may have, versions: also where they are suspended, or nobody says."""
    needs_mfa: bool = False
    """No version goes without a second factor."""
    is_suspended: bool = False
    """What is written comes under the name `null`, in the place of what had it before."""


@dataclass(frozen=True, slots=True)
class _Opened:
    """An object with its first two chunks; a small one was read to its end in one call.

    The second is asked for even so: the checksum is compared when there is nothing more.
    """

    body: Any
    name: str
    first: bytes
    second: bytes

    @property
    def is_whole(self) -> bool:
        """Whether nothing is left to be read."""
        return not self.second


class Looking:
    """Reads buckets; any method may raise `ObjectStoreUnavailableError`."""

    def __init__(self, calls: S3Calls, threads: Threads) -> None:
        self._calls = calls
        self._threads = threads
        self._versioning: dict[str, tuple[float, Versioning]] = {}

    def forget(self) -> None:
        """Believe no earlier answer about a bucket's state."""
        self._versioning.clear()

    async def versioning(self, bucket: str) -> Versioning:
        """Ask for a bucket's state, and believe the answer for a while."""
        known = self._versioning.get(bucket)
        if known is not None and monotonic() - known[0] < VERSIONING_SECONDS:
            return known[1]

        def ask(client: "S3Client", arguments: dict[str, Any]) -> Versioning:
            answer = client.get_bucket_versioning(**arguments)
            return Versioning(
                keeps_versions=answer.get("Status") is not None,
                needs_mfa=answer.get("MFADelete") == "Enabled",
                is_suspended=answer.get("Status") == "Suspended",
            )

        try:
            state: Versioning = await self._threads.run(self._calls.call, bucket, ask)
        except RefusedError:
            return Versioning(keeps_versions=True)
        self._versioning[bucket] = (monotonic(), state)
        return state

    async def remaining(
        self, bucket: str, refs: Sequence[ObjectRef], *, markers_too: bool = True
    ) -> frozenset[ObjectRef]:
        """Give those of which any version (or marker) is there, or S3 will not tell."""
        try:
            if (await self.versioning(bucket)).keeps_versions:
                versions = await self.versions_of(bucket, refs)
                return frozenset(
                    ref
                    for ref in refs
                    if any(markers_too or not version.is_marker for version in versions[ref])
                )
            present = await self._present(bucket, {ref.key for ref in refs})
        except RefusedError:
            return frozenset(refs)
        return frozenset(ref for ref in refs if ref.key in present)

    async def versions_of(
        self, bucket: str, refs: Sequence[ObjectRef]
    ) -> dict[ObjectRef, list[Version]]:
        """List every version and marker of exactly these keys.

        Raises:
            RefusedError: S3 refuses to list.
        """
        seen = await self._listed(bucket, {ref.key for ref in refs})
        by_key: dict[str, list[Version]] = {}
        for version in seen.versions:
            by_key.setdefault(version.key, []).append(version)
        return {
            ref: [v for v in by_key.get(ref.key, []) if ref.version in {None, v.version_id}]
            for ref in refs
        }

    async def holding_data(
        self, bucket: str, refs: Sequence[ObjectRef]
    ) -> dict[ObjectRef, tuple[ObjectRef, ...]]:
        """Give the versions of each that are no markers, newest first; nothing if not to be had."""
        try:
            if not (await self.versioning(bucket)).keeps_versions:
                return {}
            versions = await self.versions_of(bucket, refs)
        except RefusedError:
            return {}
        return {
            ref: tuple(ObjectRef(bucket, v.key, v.version_id) for v in some if not v.is_marker)
            for ref, some in versions.items()
        }

    async def tags(self, ref: ObjectRef) -> Mapping[str, str] | None:
        """Give the tags of an object, none if it is not there; None if S3 refuses to tell."""
        item = Item(ref.key, ref.version)

        def ask(client: "S3Client", arguments: dict[str, Any]) -> dict[str, str]:
            answer = client.get_object_tagging(**arguments, **item.entry())
            return {tag["Key"]: tag["Value"] for tag in answer["TagSet"]}

        try:
            return await self._threads.run(self._calls.call_for, ref.bucket, ref.key, ask)
        except RefusedError as refusal:
            return {} if refusal.code in _MISSING else None

    @asynccontextmanager
    async def reading(self, ref: ObjectRef, limit_bytes: int) -> AsyncIterator[Content]:
        """Open the newest version that holds data, or the version `ref` names, as chunks.

        Raises:
            ObjectMissingError: There is none.
            ObjectTooLargeError: It holds more than `limit_bytes`; at once, or while it is read.
            ObjectRefusedError: S3 refuses it.
        """
        opened = await self._opened(ref, limit_bytes)
        try:
            yield Content(self._chunks(ref.bucket, opened, limit_bytes), opened.name)
        finally:
            if not opened.is_whole:
                await self._threads.run(opened.body.close)

    async def _opened(self, ref: ObjectRef, limit_bytes: int) -> _Opened:
        try:
            return await self._threads.run(self._open, ref, ref.version, limit_bytes)
        except RefusedError as refusal:
            if refusal.code not in _MISSING:
                raise ObjectRefusedError(refusal.code) from None
        earlier = None
        if ref.version is None and (await self.versioning(ref.bucket)).keeps_versions:
            seen = await self._listed(ref.bucket, [ref.key])
            # S3 lists the newest first.
            earlier = next((v.version_id for v in seen.versions if not v.is_marker), None)
        if earlier is None:
            raise ObjectMissingError("no version of the object holds data")
        try:
            return await self._threads.run(self._open, ref, earlier, limit_bytes)
        except RefusedError as refusal:
            if refusal.code in _MISSING:
                raise ObjectMissingError("the object went while it was looked for") from None
            raise ObjectRefusedError(refusal.code) from None

    def _open(self, ref: ObjectRef, version: str | None, limit_bytes: int) -> _Opened:
        named: dict[str, Any] = (
            {"Key": ref.key} if version is None else {"Key": ref.key, "VersionId": version}
        )

        def get(client: "S3Client", arguments: dict[str, Any]) -> _Opened:
            answer = client.get_object(**arguments, **named)
            body, name = answer["Body"], answer.get("VersionId", NULL)
            if name == NULL:
                name = answer.get("ETag", "")
            else:
                self._has_versions(ref.bucket)
            if answer.get("ContentLength", 0) > limit_bytes:
                body.close()
                raise ObjectTooLargeError("the object is larger than it may be")
            try:
                return _Opened(body, name, body.read(CHUNK_BYTES), body.read(CHUNK_BYTES))
            except Exception:
                body.close()
                raise

        return self._calls.call_for(ref.bucket, ref.key, get)

    def _has_versions(self, bucket: str) -> None:
        """Ask again of a bucket that is believed to keep no versions: one was seen in it."""
        known = self._versioning.get(bucket)
        if known is not None and not known[1].keeps_versions:
            self._versioning.pop(bucket, None)

    async def _chunks(self, bucket: str, opened: _Opened, limit_bytes: int) -> AsyncIterator[bytes]:
        def read(_client: "S3Client", _arguments: dict[str, Any]) -> bytes:
            chunk: bytes = opened.body.read(CHUNK_BYTES)
            return chunk

        total, chunk, ahead = 0, opened.first, opened.second
        while chunk:
            total += len(chunk)
            if total > limit_bytes:
                raise ObjectTooLargeError("the object is larger than it may be")
            yield chunk
            # A connection that breaks here is an outage; half a read is not repeated.
            after = await self._threads.run(self._calls.once, bucket, read) if ahead else b""
            chunk, ahead = ahead, after

    async def _present(self, bucket: str, keys: Iterable[str]) -> set[str]:
        found: set[str] = set()
        left = set(keys)
        for level in range(LEVELS):
            neighbours = [group for group in groups(left, level) if len(group) > 1]
            seen = await every(
                self._threads.run(sweep_keys, self._calls, bucket, g) for g in neighbours
            )
            found = found.union(*(one.keys for one in seen))
            left -= {key for group in neighbours for key in group}
            left |= {key for one in seen for key in one.unsettled}
        singles = sorted(left)
        heads = await every(self._threads.run(has_key, self._calls, bucket, key) for key in singles)
        return found | {key for key, there in zip(singles, heads, strict=True) if there}

    async def _listed(self, bucket: str, keys: Iterable[str]) -> Seen:
        whole = Seen()
        left = set(keys)
        for level in range(LEVELS + 1):
            among = [g for g in groups(left, level) if len(g) > 1 or level == LEVELS]
            seen = await every(
                self._threads.run(sweep_versions, self._calls, bucket, g) for g in among
            )
            whole.versions += [version for one in seen for version in one.versions]
            left -= {key for group in among for key in group}
            left |= {key for one in seen for key in one.unsettled}
        return whole


def items_by_kind(
    versions: Mapping[ObjectRef, Sequence[Version]], refs: Iterable[ObjectRef], *, is_marker: bool
) -> list[Version]:
    """Give the markers, or what holds data, of these references, once each."""
    chosen = (v for ref in refs for v in versions[ref] if v.is_marker is is_marker)
    return list(dict.fromkeys(chosen))

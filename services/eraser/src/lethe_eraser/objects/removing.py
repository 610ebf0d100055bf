"""Makes objects of one bucket go: deletes them in every version, or tags them to be removed."""

import asyncio
from collections.abc import Awaitable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from lethe_eraser.catalog import Bucket
from lethe_eraser.domain import ObjectRef
from lethe_eraser.objects.calls import RefusedError, S3Calls
from lethe_eraser.objects.company import Seat
from lethe_eraser.objects.deleting import Item, delete_page, is_alone, pages
from lethe_eraser.objects.listing import NULL, Version, etag_of
from lethe_eraser.objects.locks import Lock, lock_of
from lethe_eraser.objects.looking import Looking, items_by_kind
from lethe_eraser.objects.outcomes import (
    MFA_DELETE,
    OBJECT_LOCKED,
    REWRITTEN,
    VERSIONS_REMAIN,
    Held,
)
from lethe_eraser.objects.pace import Pace
from lethe_eraser.objects.tagging import tag_version
from lethe_eraser.objects.threads import Threads, every

PAGES_AT_ONCE: Final = 4
"""Pages on their way to S3; more make each slower and none of them faster."""

PROOFS: Final = 3
"""How often the versions of a key are deleted and listed again before it counts as refused."""


@dataclass(slots=True)
class Outcome:
    """What became of the objects of one bucket; what is named nowhere is gone."""

    failed: dict[ObjectRef, str] = field(default_factory=dict)
    scheduled: set[ObjectRef] = field(default_factory=set)
    locked_until: dict[ObjectRef, datetime | None] = field(default_factory=dict)


class Removing:
    """Removes objects as their bucket wants it."""

    def __init__(
        self,
        calls: S3Calls,
        threads: Threads,
        looking: Looking,
        pace: Pace,
        buckets: Mapping[str, Bucket],
        page_keys: int,
    ) -> None:
        self._calls = calls
        self._threads = threads
        self._looking = looking
        self._pace = pace
        self._buckets = buckets
        self._page_keys = page_keys
        self._in_flight = asyncio.Semaphore(PAGES_AT_ONCE)

    async def remove(self, bucket: str, refs: Sequence[ObjectRef], held: Held) -> Outcome:
        """Remove `refs`, all versions of a key unless the reference names one.

        Those in `held` go only if they hold nothing else.

        Raises:
            ObjectStoreUnavailableError: S3 is away; some may be gone.
        """
        try:
            return await self._remove(bucket, refs, held)
        finally:
            if (seat := Seat.taken()) is not None:
                seat.came(bucket)

    async def _remove(self, bucket: str, refs: Sequence[ObjectRef], held: Held) -> Outcome:
        state = await self._looking.versioning(bucket)
        tag = self._buckets[bucket].tag
        if tag is not None:
            return await self._tag(bucket, refs, held, tag, keeps_versions=state.keeps_versions)
        if state.needs_mfa:
            # S3 refuses the whole request for any version; not even a marker would help.
            return Outcome(failed=dict.fromkeys(refs, MFA_DELETE))
        if state.keeps_versions:
            overwritten = held if state.is_suspended else {}
            return await self._delete_versions(bucket, refs, held, overwritten)
        items = {ref: Item(ref.key, etag=_etag(held.get(ref))) for ref in refs}
        refused = await self._delete(bucket, list(dict.fromkeys(items.values())))
        return Outcome({ref: refused[item] for ref, item in items.items() if item in refused})

    async def _delete_versions(
        self, bucket: str, refs: Sequence[ObjectRef], held: Held, overwritten: Held
    ) -> Outcome:
        outcome = Outcome()
        left = list(refs)
        for _ in range(PROOFS):
            try:
                versions = await self._looking.versions_of(bucket, left)
            except RefusedError as refusal:
                outcome.failed |= dict.fromkeys(left, refusal.code)
                return outcome
            outcome.failed |= _rewritten(versions, left, held)
            left = [ref for ref in left if versions[ref] and ref not in outcome.failed]
            if not left:
                return outcome
            answers = await self._delete(bucket, _data(versions, left, overwritten))
            # What was rewritten after it was listed is seen when it is listed again.
            refused = {Item(*i[:2]): code for i, code in answers.items() if code != REWRITTEN}
            # Without its marker a version that could not be deleted would be readable again.
            bare = [
                r
                for r in left
                if not any(Item(r.key, v.version_id) in refused for v in versions[r])
            ]
            refused |= await self._delete(bucket, _items(versions, bare, is_marker=True))
            await self._judge(bucket, left, versions, refused, outcome)
            left = [ref for ref in left if ref not in outcome.failed]
        outcome.failed |= dict.fromkeys(
            await self._looking.remaining(bucket, left) if left else (), VERSIONS_REMAIN
        )
        return outcome

    async def _judge(
        self,
        bucket: str,
        refs: Iterable[ObjectRef],
        versions: Mapping[ObjectRef, Sequence[Version]],
        refused: Mapping[Item, str],
        outcome: Outcome,
    ) -> None:
        """Say of every reference with a refused version whether that is locked."""
        by_ref: dict[ObjectRef, list[Item]] = {}
        for ref in refs:
            items = [Item(ref.key, version.version_id) for version in versions[ref]]
            if stopped := [item for item in items if item in refused]:
                by_ref[ref] = stopped
        asked = list(dict.fromkeys(item for items in by_ref.values() for item in items))
        answers = await every(
            self._threads.run(lock_of, self._calls, bucket, item) for item in asked
        )
        locks = {item: lock for item, lock in zip(asked, answers, strict=True) if lock}
        for ref, items in by_ref.items():
            if held := [locks[item] for item in items if item in locks]:
                outcome.failed[ref] = OBJECT_LOCKED
                outcome.locked_until[ref] = _last(held)
            else:
                outcome.failed[ref] = refused[items[0]]

    async def _tag(
        self,
        bucket: str,
        refs: Sequence[ObjectRef],
        held: Held,
        tag: tuple[str, str],
        *,
        keeps_versions: bool,
    ) -> Outcome:
        outcome = Outcome()
        if keeps_versions:
            try:
                versions = await self._looking.versions_of(bucket, refs)
            except RefusedError as refusal:
                return Outcome(failed=dict.fromkeys(refs, refusal.code))
            outcome.failed |= _rewritten(versions, refs, held)
            refs = [ref for ref in refs if ref not in outcome.failed]
            data = items_by_kind(versions, refs, is_marker=False)
            items = {ref: _items(versions, [ref], is_marker=False) for ref in refs}
            wanted = [Item(version.key, version.version_id) for version in data]
        else:
            outcome.failed |= await self._changed(bucket, refs, held)
            refs = [ref for ref in refs if ref not in outcome.failed]
            items = {ref: [Item(ref.key)] for ref in refs}
            wanted = list(dict.fromkeys(item for one in items.values() for item in one))
        answers = await every(
            self._threads.run(tag_version, self._calls, bucket, item, tag) for item in wanted
        )
        said = dict(zip(wanted, answers, strict=True))
        for ref, named in items.items():
            results = [said[item] for item in named]
            if code := next((r.refused for r in results if r.refused is not None), None):
                outcome.failed[ref] = code
            elif any(result.tagged for result in results):
                outcome.scheduled.add(ref)
        return outcome

    async def _changed(
        self, bucket: str, refs: Sequence[ObjectRef], held: Held
    ) -> dict[ObjectRef, str]:
        """Give those of a bucket without versions in which is what was not read."""
        asked = [ref for ref in refs if ref in held]
        etags = await every(
            self._threads.run(etag_of, self._calls, bucket, ref.key) for ref in asked
        )
        there = zip(asked, etags, strict=True)
        return {ref: REWRITTEN for ref, etag in there if etag is not None and etag not in held[ref]}

    async def _delete(self, bucket: str, items: Sequence[Item]) -> dict[Item, str]:
        refused: dict[Item, str] = {}
        together = [item for item in items if not is_alone(item)]
        seat = Seat.taken()
        sent: list[Awaitable[dict[Item, str]]] = [
            self._send(bucket, [item]) for item in items if is_alone(item)
        ]
        if seat is not None:
            sent.append(seat.delete(bucket, together, self._send, self._page_keys))
        else:
            sent += [self._send(bucket, page) for page in pages(together, self._page_keys)]
        for outcome in await every(sent):
            refused |= outcome
        return refused

    async def _send(self, bucket: str, page: Sequence[Item]) -> dict[Item, str]:
        async with self._in_flight:
            return await self._threads.run(delete_page, self._calls, self._pace, bucket, page)


def _items(
    versions: Mapping[ObjectRef, Sequence[Version]], refs: Iterable[ObjectRef], *, is_marker: bool
) -> list[Item]:
    chosen = items_by_kind(versions, refs, is_marker=is_marker)
    return [Item(version.key, version.version_id) for version in chosen]


def _data(
    versions: Mapping[ObjectRef, Sequence[Version]], refs: Iterable[ObjectRef], overwritten: Held
) -> list[Item]:
    """Give what holds data; a `null` of those in `overwritten` goes alone, and as it was listed.

    S3 compares what is current: it goes when nothing newer is left, and by its name under a marker.
    """
    items: dict[Item, None] = {}
    for ref in refs:
        newest, is_bare = versions[ref][0], not any(v.is_marker for v in versions[ref])
        for version in versions[ref]:
            is_compared = is_bare and ref in overwritten and version.version_id == NULL
            if version.is_marker or (is_compared and version is not newest):
                continue
            etag = version.etag or None
            items[Item(version.key, version.version_id, etag if is_compared else None)] = None
    return list(items)


def _rewritten(
    versions: Mapping[ObjectRef, Sequence[Version]], refs: Iterable[ObjectRef], held: Held
) -> dict[ObjectRef, str]:
    """Give those in which is what was not read; a marker holds nothing."""
    return {
        ref: REWRITTEN
        for ref in refs
        if ref in held and any(not v.is_marker and not v.is_among(held[ref]) for v in versions[ref])
    }


def _etag(held: tuple[str, ...] | None) -> str | None:
    return None if held is None else "".join(held[:1])


def _last(locks: Iterable[Lock]) -> datetime | None:
    """When the last of them ends; a legal hold has no end."""
    ends = [lock.until for lock in locks]
    known = [end for end in ends if end is not None]
    return None if len(known) < len(ends) else max(known)

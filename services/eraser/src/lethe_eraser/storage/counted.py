"""Which objects of a job were counted: those that are gone, once each, and those of the last.

Kept as keyed digests, so that a batch that is done twice counts once. Nothing here commits.
"""

import hashlib
from collections import Counter
from collections.abc import Collection, Iterable
from typing import Final
from uuid import UUID

from sqlalchemy import ARRAY, Boolean, Text, func, literal, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from lethe_eraser.domain import ObjectRef
from lethe_eraser.storage.arrays import BigIntegers, one_of
from lethe_eraser.storage.tables import counted_object

MISSING_PERCENT: Final = 2
"""The most of a job's objects in one bucket that may be missing; above it, rows are left."""

_LAST: Final = b"last"
"""Sets digests of objects that were deleted last apart from those that are counted."""


async def count_new(
    connection: AsyncConnection,
    job_id: UUID,
    refs: Iterable[ObjectRef],
    missing: Collection[ObjectRef] = (),
) -> frozenset[ObjectRef]:
    """Remember these objects as counted; gives those that were not yet.

    Those of `missing` are remembered as such, unless they were counted before: then it was this job
    that deleted them.
    """
    by_digest = {digest_of(job_id, ref): ref for ref in refs}
    if not by_digest:
        return frozenset()
    digests = sorted(by_digest)
    absent = frozenset(missing)
    columns = (
        func.unnest(
            literal(digests, BigIntegers()),
            literal([by_digest[digest].bucket for digest in digests], ARRAY(Text)),
            literal([by_digest[digest] in absent for digest in digests], ARRAY(Boolean)),
        )
        .table_valued("digest", "bucket", "missing")
        .render_derived()
    )
    new = (
        insert(counted_object)
        .from_select(
            ["job_id", "digest", "bucket", "missing"],
            select(literal(job_id), columns.c.digest, columns.c.bucket, columns.c.missing),
        )
        .on_conflict_do_nothing()
        .returning(counted_object.c.digest)
    )
    return frozenset(by_digest[digest] for digest in (await connection.execute(new)).scalars())


async def missing_too_often(
    connection: AsyncConnection,
    job_id: UUID,
    refs: Iterable[ObjectRef],
    missing: Collection[ObjectRef],
) -> frozenset[ObjectRef]:
    """Give those of `missing` in whose buckets more than 2 % of the job's objects were not there.

    What was counted in earlier batches and `refs`, which are about to be, count together. An object
    that this job deleted itself was not missing.
    """
    by_digest = {digest_of(job_id, ref): ref for ref in {*refs, *missing}}
    rows = await connection.execute(
        select(counted_object.c.digest, counted_object.c.missing).where(
            counted_object.c.job_id == job_id, one_of(counted_object.c.digest, by_digest)
        )
    )
    counted = {by_digest[digest]: was_missing for digest, was_missing in rows}
    absent = [ref for ref in missing if counted.get(ref, True)]
    of_job = await connection.execute(
        select(
            counted_object.c.bucket,
            func.count(),
            func.count().filter(counted_object.c.missing),
        )
        .where(counted_object.c.job_id == job_id)
        .group_by(counted_object.c.bucket)
    )
    known = {bucket: (total, without) for bucket, total, without in of_job}
    total = Counter({bucket: total for bucket, (total, _) in known.items()})
    total.update(ref.bucket for ref in by_digest.values() if ref not in counted)
    without = Counter({bucket: without for bucket, (_, without) in known.items()})
    without.update(ref.bucket for ref in absent if ref not in counted)
    return frozenset(
        ref for ref in absent if without[ref.bucket] * 100 > total[ref.bucket] * MISSING_PERCENT
    )


async def remember_last(
    connection: AsyncConnection, job_id: UUID, refs: Iterable[ObjectRef]
) -> None:
    """Remember objects that were deleted after everything found in them."""
    rows = [{"job_id": job_id, "digest": digest_of(job_id, ref, _LAST)} for ref in refs]
    if rows:
        await connection.execute(insert(counted_object).on_conflict_do_nothing(), rows)


async def deleted_last(
    connection: AsyncConnection, job_id: UUID, refs: Iterable[ObjectRef]
) -> frozenset[ObjectRef]:
    """Tell which of these objects this job deleted after everything found in them."""
    by_digest = {digest_of(job_id, ref, _LAST): ref for ref in refs}
    if not by_digest:
        return frozenset()
    rows = await connection.execute(
        select(counted_object.c.digest).where(
            counted_object.c.job_id == job_id, one_of(counted_object.c.digest, by_digest)
        )
    )
    return frozenset(by_digest[digest] for digest in rows.scalars())


def digest_of(job_id: UUID, ref: ObjectRef, personalisation: bytes = b"") -> int:
    """Name an object by a number that says nothing of it outside its job."""
    version = "" if ref.version is None else f"\0{ref.version}"
    name = f"{ref.bucket}\0{ref.key}{version}".encode("utf-8", "surrogatepass")
    sealed = hashlib.blake2b(name, digest_size=8, key=job_id.bytes, person=personalisation).digest()
    return int.from_bytes(sealed, "big", signed=True)

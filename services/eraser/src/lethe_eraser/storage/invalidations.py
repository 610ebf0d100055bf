"""What the CDN is told of a job: one row per invalidation, its paths as ciphertext.

A row is committed with its caller reference before the CDN hears of it: told twice, the CDN answers
with the invalidation that is under way.
"""

import json
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import delete, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from lethe_contracts.cipher import Cipher
from lethe_eraser.storage.tables import invalidation


@dataclass(frozen=True, slots=True)
class Planned:
    """Paths of one distribution that are to be invalidated."""

    distribution: str
    paths: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Invalidation:
    """One that is not finished; without an id, the CDN may not have heard of it."""

    number: int
    reference: UUID
    plan: Planned
    invalidation_id: str | None


class Invalidations:
    """Invalidations of jobs, encrypted."""

    def __init__(self, cipher: Cipher) -> None:
        self._cipher = cipher

    async def covered(self, connection: AsyncConnection, job_id: UUID) -> int:
        """Give the last batch whose objects are planned for; 0 if none is."""
        found = await connection.execute(
            select(func.coalesce(func.max(invalidation.c.batch), 0)).where(
                invalidation.c.job_id == job_id
            )
        )
        return int(found.scalar_one())

    async def plan(
        self, connection: AsyncConnection, job_id: UUID, batch: int, plans: Iterable[Planned]
    ) -> None:
        """Write invalidations of everything up to `batch`, under the lock of their job."""
        found = await connection.execute(
            select(func.coalesce(func.max(invalidation.c.number), 0)).where(
                invalidation.c.job_id == job_id
            )
        )
        rows = [
            {
                "job_id": job_id,
                "number": number,
                "batch": batch,
                "distribution": plan.distribution,
                "paths": self._sealed(job_id, number, plan.paths),
            }
            for number, plan in enumerate(plans, int(found.scalar_one()) + 1)
        ]
        if rows:
            await connection.execute(insert(invalidation), rows)

    async def unfinished(self, connection: AsyncConnection, job_id: UUID) -> Sequence[Invalidation]:
        """Read those that are not finished, the oldest first."""
        rows = await connection.execute(
            select(invalidation)
            .where(invalidation.c.job_id == job_id, ~invalidation.c.done)
            .order_by(invalidation.c.number)
        )
        return [
            Invalidation(
                row.number,
                row.reference,
                Planned(row.distribution, self._opened(job_id, row.number, row.paths)),
                row.invalidation_id,
            )
            for row in rows
        ]

    async def sent(
        self, connection: AsyncConnection, job_id: UUID, number: int, invalidation_id: str
    ) -> None:
        """Note under which id the CDN works on it."""
        await self._write(connection, job_id, number, invalidation_id=invalidation_id)

    async def finished(self, connection: AsyncConnection, job_id: UUID, number: int) -> None:
        """Note that the CDN finished it."""
        await self._write(connection, job_id, number, done=True)

    async def _write(
        self, connection: AsyncConnection, job_id: UUID, number: int, **values: object
    ) -> None:
        await connection.execute(
            update(invalidation)
            .where(invalidation.c.job_id == job_id, invalidation.c.number == number)
            .values(**values)
        )

    def _sealed(self, job_id: UUID, number: int, paths: Sequence[str]) -> bytes:
        plain = zlib.compress(json.dumps(paths, separators=(",", ":")).encode())
        return self._cipher.encrypt(plain, context=_context(job_id, number)).encode("ascii")

    def _opened(self, job_id: UUID, number: int, sealed: bytes) -> tuple[str, ...]:
        token = bytes(sealed).decode("ascii")
        plain = self._cipher.decrypt(token, context=_context(job_id, number))
        return tuple(json.loads(zlib.decompress(plain)))


async def purge(connection: AsyncConnection, job_id: UUID) -> None:
    """Drop a job's invalidations."""
    await connection.execute(delete(invalidation).where(invalidation.c.job_id == job_id))


async def unfinished(connection: AsyncConnection) -> tuple[int, float]:
    """Count unfinished invalidations of all jobs, and give the age of the oldest in seconds."""
    age = func.extract("epoch", func.now() - func.min(invalidation.c.created_at))
    found = await connection.execute(
        select(func.count(), func.coalesce(age, 0)).where(~invalidation.c.done)
    )
    count, seconds = found.one()
    return count, float(seconds)


async def unfinished_of(connection: AsyncConnection, job_id: UUID) -> int:
    """Count the unfinished invalidations of one job."""
    found = select(func.count()).where(invalidation.c.job_id == job_id, ~invalidation.c.done)
    return int((await connection.execute(found)).scalar_one())


def _context(job_id: UUID, number: int) -> str:
    return f"invalidation:{job_id}:{number}"

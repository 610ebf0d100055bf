"""What an erasure asks of the database does not depend on how large the product has grown."""

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from math import log
from typing import Any, Final

from sqlalchemy import event, text
from sqlalchemy.ext.asyncio import AsyncEngine

from tests.integration.eraser.world import NOTHING, OTHER, REF, SUBJECT, World

FEW: Final = 200
MANY: Final = 20_000
"""Requests of others, jobs, and rows of each table of the eraser's own."""

EACH: Final = 10
"""Requests of each of the other people, about as many as the person has who is looked at."""

OTHERS_FROM: Final = 1_000_000
"""Ids of others begin here; those that the product gives itself do not come so far."""

SKETCHES: Final = 20
DOCUMENTS: Final = 4
PIECES: Final = 4 * SKETCHES + 4 * DOCUMENTS
"""Rows and objects of the person: what an index may have to be gone down for, one by one."""

DEEPER: Final = log(MANY) / log(FEW)
"""How much more of an index is read to find one row among many than among few."""

OTHER_REF: Final = "1.0ther"

SMALL: Final[Mapping[str, str]] = {
    "watermark": "one row for each of 256 buckets",
    "hold": "one row for each hold that is in force",
    "quarantine": "what is set aside until somebody looks",
    "tombstone": "asked by its key; a few for each person",
    "alembic_version_eraser": "one row",
}
"""Tables that may be read whole, and why; those of the catalog of PostgreSQL besides."""

FILL: Final = """
insert into sketch_feature (id, option, prompt, status, gpu)
  select n, jsonb_build_object('bucket', 'b', 'key', 'uploads/' || n || '.png'), 'p', 'done', 'a100'
  from generate_series({first}, {last}) n;
insert into sketch_task (id, feature_id, result, gpu_name)
  select n, n, '{{"url": "https://cdn.test.example/other-' || n || '.png"}}', 'a100'
  from generate_series({first}, {last}) n;
insert into document (id, manifest_path, title)
  select n, 'manifests/' || n || '.json', 't' from generate_series({first}, {last}) n;
insert into client (client_key, request_type, request_id, created_at)
  select 'other-' || n / {each}, case when n % 5 = 0 then 'document' else 'sketch' end, n,
    '2024-03-01' from generate_series({first}, {last}) n;
insert into client_old (client_key, type, feature_id)
  select 'other-' || n / {each}, 'sketch', n from generate_series({first}, {last}) n;
with new as (
  insert into lethe.job (job_id, subject_ref, bucket, state, deadline, not_before, created_at)
  select gen_random_uuid(), '1.other' || n, n % 256, 'verified', now(), now(), '2024-01-01'
  from generate_series({first}, {last}) n returning job_id)
insert into lethe.job_request (request_id, job_id, attempt, deadline, state, requested_at)
  select gen_random_uuid(), job_id, 1, now(), 'active', now() from new;
insert into lethe.journal (job_id, batch, round, request_type, source, masked, intent)
  select gen_random_uuid(), n, 1, 'sketch', 'client', true, ''
  from generate_series({first}, {last}) n;
insert into lethe.progress (job_id, request_type, source, round)
  select gen_random_uuid(), 'sketch', 'client', 1 from generate_series({first}, {last}) n;
insert into lethe.invalidation (job_id, number, batch, distribution, paths, done)
  select gen_random_uuid(), n, 1, 'E1', '', true from generate_series({first}, {last}) n;
insert into lethe.counted_object (job_id, digest)
  select gen_random_uuid(), n from generate_series({first}, {last}) n;
insert into lethe.blocked_row (job_id, table_name, row_key, kind, request_type, reason, round)
  select gen_random_uuid(), 't', n::text, 'feature', 'sketch', 'unknown_type', 1
  from generate_series({first}, {last}) n
"""

EXPLAIN: Final = "explain (analyze, buffers, format json)"

Plans = list[tuple[str, Mapping[str, Any]]]


async def grow(world: World, first: int, last: int) -> None:
    """Let other people have these requests, and the eraser have erased as many people."""
    ids = {"first": OTHERS_FROM + first, "last": OTHERS_FROM + last, "each": EACH}
    for statement in FILL.format(**ids).split(";"):
        await world.write(statement)
    async with world.engine.connect() as connection:
        await connection.execution_options(isolation_level="AUTOCOMMIT")
        await connection.execute(text("vacuum analyze"))


@contextmanager
def plans(engine: AsyncEngine) -> Iterator[Plans]:
    """Gather the plan of each statement, and what it read, as PostgreSQL carries it out."""
    found: Plans = []

    def look(
        connection: Any, _cursor: Any, statement: str, parameters: Any, _context: Any, *many: bool
    ) -> None:
        first = statement.lstrip().split(None, 1)[0].lower()
        if first not in {"select", "insert", "update", "delete", "with"}:
            return
        one = parameters[0] if many[0] else parameters
        # Not the statement's own: that may be a cursor of the server.
        cursor = connection.connection.cursor()
        is_alone = connection.connection.driver_connection.autocommit
        # To be analyzed it is carried out, so that is undone before it is carried out for good.
        cursor.execute("begin" if is_alone else "savepoint looked_at")
        cursor.execute(f"{EXPLAIN} {statement}", one)
        found.append((statement, cursor.fetchone()[0][0]["Plan"]))
        cursor.execute("rollback" if is_alone else "rollback to savepoint looked_at")
        cursor.close()

    event.listen(engine.sync_engine, "before_cursor_execute", look)
    try:
        yield found
    finally:
        event.remove(engine.sync_engine, "before_cursor_execute", look)


def whole_reads(plan: Mapping[str, Any]) -> Iterator[str]:
    """Give the tables that a plan reads from end to end."""
    reads_all = plan["Node Type"] == "Seq Scan" or (
        plan["Node Type"] in {"Index Scan", "Index Only Scan", "Bitmap Index Scan"}
        and "Index Cond" not in plan
    )
    if reads_all:
        yield str(plan.get("Relation Name") or plan.get("Index Name"))
    for below in plan.get("Plans", ()):
        yield from whole_reads(below)


def is_small(table: str) -> bool:
    # `client_default` is the empty partition, and what `pg_` begins is a catalog.
    return table in SMALL or table.startswith("pg_") or table == "client_default"


def pages(plan: Mapping[str, Any]) -> int:
    return int(plan["Shared Hit Blocks"]) + int(plan["Shared Read Blocks"])


def pages_of_each(made: Plans) -> Counter[str]:
    read: Counter[str] = Counter()
    for statement, plan in made:
        read[statement] += pages(plan)
    return read


async def erased(world: World, subject: str, ref: str) -> Plans:
    """Erase a person, always of the same size, and give all that was asked of the database."""
    for number in range(SKETCHES):
        await world.sketch(number, subject=subject, source="client" if number % 2 else "client_old")
    for number in range(DOCUMENTS):
        await world.document(number, subject=subject)
    with plans(world.engine) as made:
        await world.accept(world.requested(ref=ref, subject=subject), ref=ref)
        await world.eraser(batch_rows=6).until_idle()
    assert await world.state() == "verified"
    assert await world.left_of(subject) == NOTHING
    return made


async def test_the_work_of_an_erasure_does_not_grow_with_the_tables(world: World) -> None:
    """The same erasure twice, and in between everything becomes a hundred times as large.

    It asks the same statements as often, each is served by an index, and none reads more than the
    deeper indexes make it read.
    """
    await grow(world, 1, FEW)
    before = await erased(world, SUBJECT, REF)
    await grow(world, FEW + 1, MANY)
    after = await erased(world, OTHER, OTHER_REF)

    assert len({statement for statement, _ in after}) > 30, "a whole erasure was looked at"
    times = [Counter(statement for statement, _ in made) for made in (before, after)]
    assert times[0] == times[1]
    whole = {
        f"{table}: {re.sub(r'[ ]+', ' ', statement)[:200]}"
        for statement, plan in after
        for table in whole_reads(plan)
        if not is_small(table)
    }
    assert whole == set()
    few, many = pages_of_each(before), pages_of_each(after)
    assert few.total() > PIECES, "pages were counted"
    assert many.total() <= DEEPER * few.total()
    # With few rows a table is a page, and whatever is asked of it reads that page alone.
    more = {
        f"{few[statement]}, {read}: {re.sub(r'[ ]+', ' ', statement)[:200]}"
        for statement, read in many.items()
        if read > DEEPER * few[statement] + PIECES
    }
    assert more == set()

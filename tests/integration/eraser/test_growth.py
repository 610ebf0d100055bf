"""Every statement of an erasure is served by an index, however large the product has grown."""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

import pytest
from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncEngine

from tests.integration.eraser.world import NOTHING, SUBJECT, World

ROWS: Final = 50_000
OTHERS: Final = 5_000
"""Other people: each has as many requests as the person whose erasure is looked at."""

SMALL: Final[Mapping[str, str]] = {
    "watermark": "one row for each of 256 buckets",
    "hold": "one row for each hold that is in force",
    "quarantine": "what is set aside until somebody looks",
    "tombstone": "asked by its key; a few for each person",
    "alembic_version_eraser": "one row",
}
"""Tables that may be read whole, and why; those of the catalog of PostgreSQL besides."""

FILL: Final = f"""
insert into sketch_feature (option, prompt, status, gpu)
  select jsonb_build_object('bucket', 'b', 'key', 'uploads/' || n || '.png'), 'p', 'done', 'a100'
  from generate_series(1, {ROWS}) n;
insert into sketch_task (feature_id, result, gpu_name)
  select n, '{{"url": "https://cdn.test.example/other-' || n || '.png"}}', 'a100'
  from generate_series(1, {ROWS}) n;
insert into document (manifest_path, title)
  select 'manifests/' || n || '.json', 't' from generate_series(1, {ROWS}) n;
insert into client (client_key, request_type, request_id, created_at)
  select 'other-' || n % {OTHERS}, case when n % 5 = 0 then 'document' else 'sketch' end, n,
    '2024-03-01' from generate_series(1, {ROWS}) n;
insert into client_old (client_key, type, feature_id)
  select 'other-' || n % {OTHERS}, 'sketch', n from generate_series(1, {ROWS}) n;
insert into lethe.job (job_id, subject_ref, bucket, state, deadline, not_before, created_at)
  select gen_random_uuid(), '1.other' || n, n % 256, 'verified', now(), now(), '2024-01-01'
  from generate_series(1, {ROWS}) n;
insert into lethe.job_request (request_id, job_id, attempt, deadline, state, requested_at)
  select gen_random_uuid(), job_id, 1, now(), 'active', now() from lethe.job;
insert into lethe.journal (job_id, batch, round, request_type, source, masked, intent)
  select gen_random_uuid(), n, 1, 'sketch', 'client', true, '' from generate_series(1, {ROWS}) n;
insert into lethe.progress (job_id, request_type, source, round)
  select gen_random_uuid(), 'sketch', 'client', 1 from generate_series(1, {ROWS}) n;
insert into lethe.invalidation (job_id, number, batch, distribution, paths, done)
  select gen_random_uuid(), n, 1, 'E1', '', true from generate_series(1, {ROWS}) n;
insert into lethe.counted_object (job_id, digest)
  select gen_random_uuid(), n from generate_series(1, {ROWS}) n;
insert into lethe.blocked_row (job_id, table_name, row_key, kind, request_type, reason, round)
  select gen_random_uuid(), 't', n::text, 'feature', 'sketch', 'unknown_type', 1
  from generate_series(1, {ROWS}) n;
"""  # noqa: S608 - our own numbers


@pytest.fixture
async def grown(world: World) -> World:
    """A product of fifty thousand requests, and an eraser that has erased as many people."""
    for statement in FILL.split(";"):
        if statement.strip():
            await world.write(statement)
    await world.write("analyze")
    for number in range(6):
        await world.sketch(number, source="client" if number % 2 else "client_old")
    await world.document(1)
    return world


@contextmanager
def plans(engine: AsyncEngine) -> Iterator[list[tuple[str, Mapping[str, Any]]]]:
    """Gather the plan of each statement, as PostgreSQL makes it where it runs."""
    found: list[tuple[str, Mapping[str, Any]]] = []

    def explain(
        connection: Any, _cursor: Any, statement: str, parameters: Any, _context: Any, *many: bool
    ) -> None:
        first = statement.lstrip().split(None, 1)[0].lower()
        if first not in {"select", "insert", "update", "delete", "with"}:
            return
        one = parameters[0] if many[0] else parameters
        # Not the statement's own: that may be a cursor of the server.
        cursor = connection.connection.cursor()
        cursor.execute(f"explain (format json) {statement}", one)
        found.append((statement, cursor.fetchone()[0][0]["Plan"]))
        cursor.close()

    event.listen(engine.sync_engine, "before_cursor_execute", explain)
    try:
        yield found
    finally:
        event.remove(engine.sync_engine, "before_cursor_execute", explain)


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


async def test_every_statement_of_an_erasure_is_served_by_an_index(grown: World) -> None:
    with plans(grown.engine) as made:
        await grown.accept(grown.requested())
        await grown.eraser(batch_rows=2).until_idle()
    assert await grown.state() == "verified"
    assert await grown.left_of(SUBJECT) == NOTHING
    assert len({statement for statement, _ in made}) > 30, "a whole erasure was looked at"
    bad = {
        f"{table}: {re.sub(r'[ ]+', ' ', statement)[:200]}"
        for statement, plan in made
        for table in whole_reads(plan)
        if not is_small(table)
    }
    assert bad == set()

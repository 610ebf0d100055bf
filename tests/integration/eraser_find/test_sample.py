"""Everything of a person is found and nothing of another, judged by the seeder's ground truth."""

from collections import Counter
from dataclasses import dataclass, field

from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncConnection

from lethe_eraser.catalog import Catalog
from lethe_eraser.check import check, check_schema
from lethe_eraser.domain import BlockedRow, ObjectRef, RowTarget
from lethe_eraser.handlers import Handlers, build
from lethe_eraser.objects import ObjectStore
from lethe_eraser.storage.client_rows import page_client_rows, types_of
from lethe_sandbox.ground_truth import GroundTruth


@dataclass
class Everything:
    rows: dict[tuple[str, int], RowTarget] = field(default_factory=dict)
    blocked: dict[tuple[str, int], BlockedRow] = field(default_factory=dict)
    unknown: int = 0

    @property
    def objects(self) -> set[ObjectRef]:
        return {ref for row in self.rows.values() for ref in (*row.delete, *row.delete_last)}


def plain(table: str) -> str:
    return table.removeprefix("public.")


async def requests_of(
    connection: AsyncConnection, catalog: Catalog, subject: str, page_rows: int
) -> dict[str, set[int]]:
    """Every request of the person by type, through small pages of the client tables."""
    found: dict[str, set[int]] = {}
    for source in catalog.client_tables:
        for request_type, count in (await types_of(connection, source, subject)).items():
            after, seen = None, 0
            while page := await page_client_rows(
                connection, source, subject, request_type, after=after, limit=page_rows
            ):
                after, seen = page[-1].cursor, seen + len(page)
                ids = {row.request_id for row in page if row.request_id is not None}
                found.setdefault(request_type, set()).update(ids)
            assert seen == count
    return found


async def find_all(
    connection: AsyncConnection, catalog: Catalog, handlers: Handlers, subject: str
) -> Everything:
    everything = Everything()
    for request_type, ids in (await requests_of(connection, catalog, subject, 3)).items():
        handler = handlers(request_type)
        if handler is None:
            everything.unknown += len(ids)
            continue
        targets = await handler.find_targets(connection, request_type, sorted(ids), subject)
        everything.rows |= {(plain(row.table), row.row_id): row for row in targets.rows}
        everything.blocked |= {(plain(row.table), row.row_id): row for row in targets.blocked}
    return everything


async def test_the_catalog_fits_the_samples_tables(
    sample: AsyncConnection, catalog: Catalog
) -> None:
    assert await check_schema(sample, catalog) == ()


async def test_what_is_found_is_what_is_true(
    sample: AsyncConnection, catalog: Catalog, store: ObjectStore, truth: GroundTruth
) -> None:
    handlers = build(catalog, store)
    clients = {source.table.name for source in catalog.client_tables}
    tables = [table for feature in catalog.features.values() for table in feature.tables]
    masks = {table.table.name: table.masks for table in tables}
    # Who is a customer again is blocked as a whole, whatever is found of them.
    erasable = [one for one in truth.requested if "subject_active" not in one.reasons]
    assert len(erasable) == len(truth.requested) - 1
    for person in erasable:
        found = await find_all(sample, catalog, handlers, person.key)
        rows = [r for r in truth.all_rows() if r.owner == person.key and r.table not in clients]
        erased = {(r.table, r.id): r for r in rows if r.fate == "erased"}
        assert set(found.rows) <= set(erased)
        for at in set(erased) - set(found.rows):
            # It holds what masking would leave, from the beginning.
            assert set(erased[at].empty) == set(masks[at[0]])
        assert {at: row.reason for at, row in found.blocked.items()} == {
            (r.table, r.id): r.reason for r in rows if r.fate == "blocked"
        }
        for at, target in found.rows.items():
            # An input that is a result of the same person goes with the row it is a result of.
            assert target.kept >= len(set(erased[at].keeps))
        mine = [o for o in truth.all_objects() if o.owner == person.key]
        there = {ObjectRef(o.bucket, o.key) for o in mine if o.fate == "erased"}
        assert there <= found.objects
        # What is named and not there is deleted in vain, and must be nobody's.
        others = {ObjectRef(o.bucket, o.key) for o in truth.all_objects()} - there
        assert not found.objects & others


async def test_rows_are_masked_once_and_leave_every_kept_column(
    sample: AsyncConnection, catalog: Catalog, store: ObjectStore, truth: GroundTruth
) -> None:
    handlers = build(catalog, store)
    for person in truth.requested:
        for request_type, ids in (await requests_of(sample, catalog, person.key, 500)).items():
            handler = handlers(request_type)
            if handler is None:
                continue
            targets = await handler.find_targets(sample, request_type, sorted(ids), person.key)
            before = await kept_columns(sample, catalog, request_type, ids)
            masked = await handler.erase(sample, request_type, targets.rows)
            by_kind = Counter(row.kind for row in targets.rows)
            assert (masked.feature_rows, masked.task_rows) == (by_kind["feature"], by_kind["task"])
            assert masked.changed == ()
            assert await kept_columns(sample, catalog, request_type, ids) == before
            again = await handler.find_targets(sample, request_type, sorted(ids), person.key)
            assert again.rows == ()
            assert set(again.blocked) == set(targets.blocked)


async def kept_columns(
    connection: AsyncConnection, catalog: Catalog, request_type: str, ids: set[int]
) -> list[tuple[object, ...]]:
    values: list[tuple[object, ...]] = []
    for product in catalog.features[request_type].tables:
        columns = ", ".join(
            f'"{name}"::text' for name in sorted(product.columns - {*product.masks})
        )
        statement = (
            f"select {columns} from {product.table}"  # noqa: S608  # names of the sample
            f" where {product.request_id} = any(%s) order by {product.primary_key}"
        )
        values += map(tuple, await connection.exec_driver_sql(statement, (sorted(ids),)))
    return values


async def test_a_batch_takes_one_statement_per_table_to_find_and_one_to_mask(
    sample: AsyncConnection, catalog: Catalog, store: ObjectStore, truth: GroundTruth
) -> None:
    statements: list[str] = []
    engine = sample.sync_connection
    assert engine is not None
    event.listen(
        engine, "before_cursor_execute", lambda *call: statements.append(call[2].split()[0])
    )
    handlers = build(catalog, store)
    heavy = max(truth.requested, key=lambda person: person.requests)
    types = await requests_of(sample, catalog, heavy.key, 500)
    asked = 0
    for request_type, ids in types.items():
        handler = handlers(request_type)
        assert handler is not None
        statements.clear()
        targets = await handler.find_targets(sample, request_type, sorted(ids), heavy.key)
        tables = len(catalog.features[request_type].tables)
        # What columns there are beyond the catalog's is asked first, once per connection.
        asked += statements.count("select")
        assert [one for one in statements if one != "select"] == ["SELECT"] * tables
        statements.clear()
        await handler.erase(sample, request_type, targets.rows)
        masked_tables = {row.table for row in targets.rows}
        assert statements == ["UPDATE"] * len(masked_tables)


async def test_the_check_finds_the_one_host_that_the_sample_does_not_know(
    sample: AsyncConnection, catalog: Catalog, truth: GroundTruth
) -> None:
    """Some rows of the sample have an image of a host nobody knows; all else is covered."""
    assert truth.rows
    findings = await check(sample, catalog, sampled_rows=5000)
    assert {one.kind for one in findings} == {"reference"}
    assert all(one.says.endswith(": old-images.sample.example") for one in findings)

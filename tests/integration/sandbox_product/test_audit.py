"""The audit passes what is right and fails everything else, one sabotage at a time."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest
from psycopg import sql
from rich.console import Console

from lethe_sandbox.audit import AuditError, audit
from lethe_sandbox.audit.findings import (
    ClientRowLeft,
    MarkerLeft,
    NothingChecked,
    ObjectChanged,
    ObjectGone,
    ObjectLeft,
    PlaceGone,
    RowChanged,
    RowGone,
    StrangeObject,
    StrangeRow,
    TimelineChanged,
    TraceLeft,
    ValueLeft,
)
from lethe_sandbox.ground_truth import GroundTruth, Row, StoredObject
from lethe_sandbox.product import DOCUMENTS, RESULTS, TABLES, UPLOADS
from lethe_sandbox.seed import SMALLEST_SCALE, seed_sample
from lethe_sandbox.stack import Addresses
from tests.integration.sandbox_product.conftest import Databases, Sample
from tests.support.sample_erasure import all_versions, erase

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

Database = psycopg.Connection


@pytest.fixture(scope="module")
def template(
    stack: Addresses, databases: Databases, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, Sample]:
    """A database and buckets that were erased as they should be."""
    name = databases.create()
    url = databases.url(name)
    file = tmp_path_factory.mktemp("sample") / "ground-truth.json"
    truth = seed_sample(url, stack.s3, file, scale=SMALLEST_SCALE)
    with psycopg.connect(url) as connection:
        erase(connection, stack.s3.client(), truth, {one.key for one in truth.requested})
    return name, Sample(url, stack.s3, truth, file)


@pytest.fixture
def erased(template: tuple[str, Sample], databases: Databases) -> Iterator[Sample]:
    """The same, with a copy of the database for one test."""
    name = databases.create(template[0])
    yield replace(template[1], url=databases.url(name))
    databases.drop(name)


def test_what_was_erased_as_it_should_passes(erased: Sample) -> None:
    report = erased.audit()
    assert [*map(str, report.findings)] == []
    assert report.ok
    assert report.persons == len(erased.truth.requested)
    assert report.rows == sum(1 for _ in erased.truth.all_rows())
    assert report.objects == sum(1 for _ in erased.truth.all_objects())


def test_the_file_is_as_good_as_the_truth(erased: Sample) -> None:
    assert audit(erased.url, erased.s3, erased.file).ok


def test_the_report_counts_per_feature_what_was_seen(erased: Sample) -> None:
    report = erased.audit()
    rows = [row for row in erased.truth.all_rows() if row.fate == "erased"]
    assert sum(one.rows_masked for one in report.features) == len(rows)
    objects = [one for one in erased.truth.all_objects() if one.fate == "erased"]
    assert sum(one.objects_deleted for one in report.features) == len(objects)
    by_type = {one.type: one for one in report.features}
    assert by_type["video-upscale"].blocked == {"unknown_type": 4}
    assert by_type["pdf-extraction"].blocked == {"manifest_missing": 3}
    assert by_type["background-generate"].kept_shared > 0
    assert by_type["upscale"].kept_foreign > 0
    console = Console(file=StringIO(), width=120, record=True)
    console.print(report)
    text = console.export_text()
    assert "background-generate" in text
    assert "unknown_type x 4" in text
    assert "Audit passed" in text


def row_of(truth: GroundTruth, table: str, fate: str, **like: object) -> Row:
    return next(
        row
        for row in truth.rows[table].values()
        if row.fate == fate and all(getattr(row, name) == value for name, value in like.items())
    )


@dataclass(frozen=True)
class InRow:
    """Sets one column of one row."""

    table: str
    column: str
    value: str | None
    fate: str = "erased"

    def __call__(self, connection: Database, truth: GroundTruth) -> None:
        row = row_of(truth, self.table, self.fate)
        done = connection.execute(
            sql.SQL("update {} set {} = {} where id = {}").format(
                sql.Identifier(self.table),
                sql.Identifier(self.column),
                sql.SQL(self.value or "null"),
                sql.Literal(row.id),
            )
        )
        assert done.rowcount == 1


@dataclass(frozen=True)
class Deleted:
    """Deletes one row."""

    table: str
    fate: str = "erased"

    def __call__(self, connection: Database, truth: GroundTruth) -> None:
        row = row_of(truth, self.table, self.fate)
        statement = sql.SQL("delete from {} where id = {}")
        connection.execute(statement.format(sql.Identifier(self.table), sql.Literal(row.id)))


@dataclass(frozen=True)
class Ran:
    """Runs a statement; it may name `%(key)s`, the client key of an erased person."""

    statement: str

    def __call__(self, connection: Database, truth: GroundTruth) -> None:
        for part in self.statement.split(";"):
            named = {"key": row_of(truth, "client", "erased").owner} if "%(key)s" in part else None
            connection.execute(part.encode(), named)


Sabotage = Callable[[Database, GroundTruth], None]
BACKDATED = "created_at + interval '1 microsecond'"
IN_DATABASE: dict[str, tuple[Sabotage, type]] = {
    "a prompt left": (InRow("upscale_feature", "prompt", "'a cat'"), ValueLeft),
    "an empty prompt left": (InRow("relight_feature", "prompt", "''"), ValueLeft),
    "an option left": (InRow("avatar_feature", "option", """'{"seed": 1}'"""), ValueLeft),
    "an option set to null": (InRow("avatar_feature", "option", None), ValueLeft),
    "a result left": (InRow("upscale_task", "result", """'{"url": "x"}'"""), ValueLeft),
    "an error message left": (InRow("inpaint_task", "error_message", "'no cat'"), ValueLeft),
    "a manifest path left": (InRow("pdf_extraction", "manifest_path", "'m.json'"), ValueLeft),
    "a title left": (InRow("pdf_extraction", "title", "'My cats'"), ValueLeft),
    **{
        f"a client row left in {table}": (
            InRow(table, "client_key", "'acct-000001'"),
            ClientRowLeft,
        )
        for table in ("client", "client_old", "client_temp")
    },
    "a client key masked otherwise": (InRow("client", "client_key", "'gone'"), ClientRowLeft),
    **{
        f"{column} of {table} changed": (InRow(table, column, value), TimelineChanged)
        for table, column, value in (
            ("upscale_feature", "created_at", BACKDATED),
            ("upscale_feature", "updated_at", "now()"),
            ("upscale_feature", "gpu", "'another'"),
            ("upscale_feature", "status", "'erased'"),
            ("outpaint_task", "created_at", BACKDATED),
            ("outpaint_task", "finished_at", "now()"),
            ("outpaint_task", "gpu_name", "'another'"),
            ("outpaint_task", "feature_id", "0"),
            ("pdf_extraction", "page_count", "-1"),
            ("client", "created_at", BACKDATED),
            ("client_old", "request_type", "'erased'"),
            ("client_temp", "feature_id", "-1"),
        )
    },
    "a blocked row masked": (InRow("upscale_feature", "prompt", None, "blocked"), RowChanged),
    "a blocked document masked": (InRow("pdf_extraction", "title", None, "blocked"), RowChanged),
    "a client row of a blocked row masked": (
        InRow("client_temp", "client_key", "'erased'", "names_blocked"),
        RowChanged,
    ),
    "a client row of an unknown type masked": (
        InRow("client_old", "client_key", "'erased'", "blocked"),
        RowChanged,
    ),
    "another person's row masked": (
        InRow("image_to_image_feature", "option", "'{}'", "not_requested"),
        RowChanged,
    ),
    "another person's client row masked": (
        InRow("client", "client_key", "'erased'", "not_requested"),
        RowChanged,
    ),
    "nobody's row masked": (
        InRow("image_to_image_feature", "prompt", None, "nobodys"),
        RowChanged,
    ),
    "an erased row deleted": (Deleted("upscale_feature"), RowGone),
    "an erased client row deleted": (Deleted("client_temp"), RowGone),
    "another person's row deleted": (Deleted("upscale_task", "not_requested"), RowGone),
    "a row added": (
        Ran("insert into client_old (client_key, request_type) values ('x', 'upscale')"),
        StrangeRow,
    ),
    "a column renamed": (Ran("alter table avatar_task rename gpu_name to gpu"), PlaceGone),
    "a table dropped": (Ran("drop table relight_task"), PlaceGone),
    "a copy of a client row kept": (
        Ran("create table backup (note text); insert into backup values ('of ' || %(key)s)"),
        TraceLeft,
    ),
    "a client key in the eraser's own tables": (
        Ran(
            "create schema lethe; create table lethe.journal (body bytea);"
            "insert into lethe.journal values (convert_to(%(key)s, 'UTF8'))"
        ),
        TraceLeft,
    ),
    "a client key in a kept column": (
        Ran("update upscale_feature set gpu = %(key)s where prompt is null"),
        TraceLeft,
    ),
}


@pytest.mark.parametrize("name", IN_DATABASE)
def test_sabotage_in_the_database_is_found(erased: Sample, name: str) -> None:
    sabotage, kind = IN_DATABASE[name]
    with psycopg.connect(erased.url) as connection:
        sabotage(connection, erased.truth)
    report = erased.audit()
    assert not report.ok
    assert kind in {type(finding) for finding in report.findings}
    assert all(str(finding).endswith(".") for finding in report.findings)


class Bucket:
    """One bucket, where a test may do what it likes to a key that is put back afterwards."""

    def __init__(self, s3: "S3Client", name: str) -> None:
        self.s3 = s3
        self.name = name

    @contextmanager
    def put_back(self, key: str) -> Iterator[None]:
        deleted = False
        bodies = []
        for page in self.s3.get_paginator("list_object_versions").paginate(
            Bucket=self.name, Prefix=key
        ):
            deleted = deleted or any(m["Key"] == key for m in page.get("DeleteMarkers", []))
            for version in page.get("Versions", []):
                if version["Key"] == key:
                    got = self.s3.get_object(
                        Bucket=self.name, Key=key, VersionId=version["VersionId"]
                    )
                    bodies.append(got["Body"].read())
        yield
        self.remove(key)
        for body in reversed(bodies):
            self.put(key, body)
        if deleted:
            self.hide(key)

    def put(self, key: str, body: bytes = b"put by a test") -> None:
        self.s3.put_object(Bucket=self.name, Key=key, Body=body)

    def hide(self, key: str) -> None:
        """Delete as one does who knows nothing of versions."""
        self.s3.delete_object(Bucket=self.name, Key=key)

    def remove(self, key: str, *, only: int | None = None) -> None:
        """Delete every version, or only the one at a position, newest first."""
        versions = [v for v in all_versions(self.s3, self.name, key) if v["Key"] == key]
        for version in versions if only is None else [versions[only]]:
            self.s3.delete_object(Bucket=self.name, Key=key, VersionId=version["VersionId"])

    def leave_version(self, key: str) -> None:
        """Leave a version behind a delete marker."""
        self.put(key)
        self.hide(key)

    def leave_marker(self, key: str) -> None:
        """Leave nothing but a delete marker."""
        self.put(key)
        self.hide(key)
        self.remove(key, only=-1)


def changed(fate: str) -> Callable[[StoredObject], bool]:
    return lambda one: one.fate == fate


def with_history(fate: str, *, deleted: bool) -> Callable[[StoredObject], bool]:
    return lambda one: one.fate == fate and len(one.etags) > 1 and one.deleted == deleted


def lookalike(one: StoredObject) -> bool:
    return one.key.endswith(".bak")


ERASED = changed("erased")
OTHERS = changed("not_requested")
SHARED = changed("shared")
Act = Callable[[Bucket, str], None]
IN_BUCKETS: dict[str, tuple[str, Callable[[StoredObject], bool], Act, type]] = {
    "an upload left": (UPLOADS, ERASED, Bucket.put, ObjectLeft),
    "a result left": (RESULTS, ERASED, Bucket.put, ObjectLeft),
    "a document left": (DOCUMENTS, ERASED, Bucket.put, ObjectLeft),
    "an old version left": (
        DOCUMENTS,
        ERASED,
        Bucket.leave_version,
        ObjectLeft,
    ),
    "a delete marker left": (DOCUMENTS, ERASED, Bucket.leave_marker, MarkerLeft),
    "another person's upload deleted": (UPLOADS, OTHERS, Bucket.remove, ObjectGone),
    "another person's result deleted": (RESULTS, OTHERS, Bucket.remove, ObjectGone),
    "another person's document deleted": (DOCUMENTS, OTHERS, Bucket.remove, ObjectGone),
    "a lookalike deleted": (RESULTS, lookalike, Bucket.remove, ObjectGone),
    "a lookalike in the versioned bucket deleted": (
        DOCUMENTS,
        lookalike,
        Bucket.remove,
        ObjectGone,
    ),
    "a template deleted": (UPLOADS, SHARED, Bucket.remove, ObjectGone),
    "a sample deleted": (RESULTS, SHARED, Bucket.remove, ObjectGone),
    "a blocked person's object deleted": (
        RESULTS,
        changed("blocked"),
        Bucket.remove,
        ObjectGone,
    ),
    "a file of a missing manifest deleted": (
        DOCUMENTS,
        changed("blocked"),
        Bucket.remove,
        ObjectGone,
    ),
    "nobody's object deleted": (UPLOADS, changed("nobodys"), Bucket.remove, ObjectGone),
    "an old version of another person's deleted": (
        DOCUMENTS,
        with_history("not_requested", deleted=False),
        lambda bucket, key: bucket.remove(key, only=-1),
        ObjectChanged,
    ),
    "another person's document hidden": (
        DOCUMENTS,
        with_history("not_requested", deleted=False),
        Bucket.hide,
        ObjectChanged,
    ),
    "another person's document brought back": (
        DOCUMENTS,
        with_history("not_requested", deleted=True),
        lambda bucket, key: bucket.remove(key, only=0),
        ObjectChanged,
    ),
    "another person's object overwritten": (RESULTS, OTHERS, Bucket.put, ObjectChanged),
    "an object added": (
        RESULTS,
        ERASED,
        lambda bucket, key: bucket.put(f"{key}.copy"),
        StrangeObject,
    ),
}


@pytest.mark.parametrize("name", IN_BUCKETS)
def test_sabotage_in_a_bucket_is_found(template: tuple[str, Sample], name: str) -> None:
    bucket_name, which, act, kind = IN_BUCKETS[name]
    sample = template[1]
    bucket = Bucket(sample.s3.client(), bucket_name)
    key = next(one.key for one in sample.truth.objects[bucket_name].values() if which(one))
    with bucket.put_back(key), bucket.put_back(f"{key}.copy"):
        act(bucket, key)
        report = sample.audit()
    assert [type(finding) for finding in report.findings] == [kind]
    assert key in str(report.findings[0])
    assert not report.ok


def test_every_key_was_put_back(template: tuple[str, Sample]) -> None:
    assert template[1].audit().ok


def test_versioning_that_was_switched_off_is_found(template: tuple[str, Sample]) -> None:
    sample = template[1]
    s3 = sample.s3.client()
    s3.put_bucket_versioning(Bucket=DOCUMENTS, VersioningConfiguration={"Status": "Suspended"})
    report = sample.audit()
    s3.put_bucket_versioning(Bucket=DOCUMENTS, VersioningConfiguration={"Status": "Enabled"})
    assert report.findings == (PlaceGone("bucket", DOCUMENTS),)


def test_an_empty_truth_proves_nothing(erased: Sample) -> None:
    nothing = GroundTruth(1, 1.0, {}, {}, {})
    report = audit(erased.url, erased.s3, nothing)
    assert not report.ok
    assert NothingChecked("persons to be erased") in report.findings


def test_nobody_submitted_proves_nothing(erased: Sample) -> None:
    report = audit(erased.url, erased.s3, erased.truth, submitted=())
    assert NothingChecked("persons to be erased") in report.findings


def test_a_database_without_the_product_is_found(erased: Sample, databases: Databases) -> None:
    report = audit(databases.url(databases.create()), erased.s3, erased.truth)
    assert {PlaceGone("table", name) for name in TABLES} <= set(report.findings)
    assert NothingChecked("rows") in report.findings


def test_submitting_somebody_else_is_refused(erased: Sample) -> None:
    with pytest.raises(AuditError, match="1 persons"):
        audit(erased.url, erased.s3, erased.truth, submitted={"acct-000004"})


def test_a_failed_report_says_what_is_wrong(erased: Sample, tmp_path: Path) -> None:
    with psycopg.connect(erased.url) as connection:
        connection.execute("update upscale_feature set prompt = 'x'")
    console = Console(file=(tmp_path / "screen").open("w"), width=120, record=True)
    console.print(erased.audit())
    text = console.export_text()
    console.file.close()
    assert "of upscale_feature still holds prompt of" in text
    assert "Audit failed" in text

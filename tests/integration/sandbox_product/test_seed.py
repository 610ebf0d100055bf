"""Seeding fills real servers, the same every time, and in place of what was there."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest

from lethe_sandbox.audit import audit
from lethe_sandbox.ground_truth import GroundTruth
from lethe_sandbox.product import BUCKETS, TABLES
from lethe_sandbox.seed import SMALLEST_SCALE, Progress, SeedError, seed_sample
from lethe_sandbox.stack import Addresses
from tests.integration.sandbox_product.conftest import Databases, Sample
from tests.support.sample_erasure import erase

SEED = 11
HASHES = """
import hashlib, sys
from lethe_sandbox.seed import make
digest = hashlib.sha256()
for each in make(11, 0.001)[1]:
    digest.update(repr(each).encode())
print(digest.hexdigest())
"""


@pytest.fixture(scope="module")
def sample(
    stack: Addresses, databases: Databases, tmp_path_factory: pytest.TempPathFactory
) -> Sample:
    url = databases.url(databases.create())
    file = tmp_path_factory.mktemp("sample") / "ground-truth.json"
    truth = seed_sample(url, stack.s3, file, seed=SEED, scale=SMALLEST_SCALE)
    return Sample(url, stack.s3, truth, file)


def test_the_servers_hold_exactly_what_the_truth_says(sample: Sample) -> None:
    """Erasing somebody who has nothing leaves every row and object as it was seeded."""
    nobody = next(one.key for one in sample.truth.requested if one.role == "no data")
    report = audit(sample.url, sample.s3, sample.truth, submitted={nobody})
    assert [*map(str, report.findings)] == []
    assert GroundTruth.read(sample.file) == sample.truth


def test_what_nobody_erased_does_not_pass(sample: Sample) -> None:
    kinds = {type(finding).__name__ for finding in sample.audit().findings}
    assert kinds >= {"ValueLeft", "ClientRowLeft", "ObjectLeft"}


def test_new_rows_get_new_ids(sample: Sample) -> None:
    with psycopg.connect(sample.url) as connection:
        for table in ("client", "client_temp", "pdf_extraction"):
            column, value = (
                ("status", "'new'")
                if table == "pdf_extraction"
                else (
                    "client_key, " + ("type" if table == "client_temp" else "request_type"),
                    "'x', 'upscale'",
                )
            )
            if table != "client_temp":
                column, value = f"{column}, created_at", f"{value}, now()"
            statement = f"insert into {table} ({column}) values ({value}) returning id"  # noqa: S608 - made of the literals above
            (number,) = connection.execute(statement.encode()).fetchone() or (0,)
            assert number == max(sample.truth.rows[table]) + 1
        connection.rollback()


def test_client_rows_are_partitioned_by_month_and_some_stand_in_the_default(
    sample: Sample,
) -> None:
    with psycopg.connect(sample.url) as connection:
        where = connection.execute("select distinct tableoid::regclass::text from client")
        partitions = {name for (name,) in where.fetchall()}
    assert "client_default" in partitions
    assert len({name for name in partitions if name.startswith("client_202")}) > 5


def test_hashing_of_the_process_changes_nothing() -> None:
    made = {
        subprocess.run(
            [sys.executable, "-c", HASHES],
            env=os.environ | {"PYTHONHASHSEED": seed},
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(made) == 1


def test_one_person_can_be_erased_alone(sample: Sample) -> None:
    """Runs after those that need the sample untouched."""
    person = "acct-000013"
    with psycopg.connect(sample.url) as connection:
        erase(connection, sample.s3.client(), sample.truth, {person})
    report = audit(sample.url, sample.s3, sample.truth, submitted={person})
    assert [*map(str, report.findings)] == []
    both = audit(sample.url, sample.s3, sample.truth, submitted={person, "acct-000016"})
    assert both.findings


def test_seeding_again_replaces_everything(sample: Sample, tmp_path: Path) -> None:
    with psycopg.connect(sample.url) as connection:
        connection.execute("update upscale_feature set prompt = 'of an earlier day'")
    sample.s3.client().put_object(Bucket=BUCKETS[2], Key="of/an/earlier/day", Body=b"x")
    told: list[Progress] = []
    file = tmp_path / "again.json"
    truth = seed_sample(
        sample.url, sample.s3, file, seed=SEED, scale=SMALLEST_SCALE, progress=told.append
    )
    assert file.read_bytes() == sample.file.read_bytes()
    report = audit(sample.url, sample.s3, truth, submitted={"acct-000002"})
    assert [*map(str, report.findings)] == []
    last = told[-1]
    assert last.rows == last.rows_total == sum(map(len, truth.rows.values()))
    assert last.objects == last.objects_total == sum(map(len, truth.objects.values()))
    steps = [(one.rows, one.objects) for one in told]
    assert steps == sorted(steps)


def test_a_failed_seeding_leaves_no_truth(sample: Sample, tmp_path: Path) -> None:
    file = tmp_path / "truth.json"
    file.write_text("of an earlier seeding")
    away = replace(sample.s3, endpoint="http://127.0.0.1:1")
    with pytest.raises(SeedError, match="EndpointConnectionError"):
        seed_sample(sample.url, away, file, scale=SMALLEST_SCALE)
    with pytest.raises(SeedError, match="OperationalError"):
        seed_sample("postgresql://127.0.0.1:1/none", sample.s3, file, scale=SMALLEST_SCALE)
    assert not file.exists()
    with psycopg.connect(sample.url) as connection:
        for table in TABLES:
            (count,) = connection.execute(f"select count(*) from {table}".encode()).fetchone() or ()  # noqa: S608 - a name of ours
            assert count == len(sample.truth.rows[table])

"""Judges an erasure by the ground truth alone: plain SQL, S3 listings, no code of the eraser."""

from collections import Counter
from collections.abc import Collection
from pathlib import Path
from typing import Final

import psycopg
from psycopg import IsolationLevel

from lethe_sandbox.audit.findings import Finding, NothingChecked
from lethe_sandbox.audit.objects import ObjectsSeen, check_objects
from lethe_sandbox.audit.report import FeatureResult, Report
from lethe_sandbox.audit.rows import RowsSeen, check_rows
from lethe_sandbox.audit.traces import Traces, elsewhere
from lethe_sandbox.ground_truth import GroundTruth
from lethe_sandbox.product import FEATURES, PDF
from lethe_sandbox.stack import S3Address

__all__ = ["AuditError", "FeatureResult", "Finding", "Report", "audit"]

_AS_WRITTEN: Final = (
    # The forms in which the ground truth was written.
    "set local timezone = 'UTC'",
    "set local datestyle = 'ISO'",
)


class AuditError(Exception):
    """The audit cannot be made as it was asked for; the message says why."""


def audit(
    database_url: str,
    s3: S3Address,
    truth: GroundTruth | Path,
    *,
    submitted: Collection[str] | None = None,
) -> Report:
    """Compare every row and every object of the product with the ground truth.

    Masked and deleted must be exactly what belongs to the persons in `submitted` (client keys; if
    None, all that the ground truth wants erased) and is not blocked; all else must be as it was.
    Beyond the product's tables, no table of the database may hold a client key, a prompt or an
    object key of theirs.

    Raises:
        AuditError: `submitted` names somebody who is not to be erased.
        GroundTruthError: the file cannot be read.
        psycopg.Error, botocore errors: a server is away or refuses.
    """
    if isinstance(truth, Path):
        truth = GroundTruth.read(truth)
    requested = {person.key for person in truth.requested}
    erased = requested if submitted is None else set(submitted)
    if not erased <= requested:
        raise AuditError(f"{len(erased - requested)} persons submitted are not to be erased")
    traces = Traces(truth, erased)
    url = database_url.replace("postgresql+psycopg", "postgresql", 1)
    with psycopg.connect(url) as connection:
        connection.read_only = True
        connection.isolation_level = IsolationLevel.REPEATABLE_READ
        for setting in _AS_WRITTEN:
            connection.execute(setting)
        findings, rows = check_rows(connection, truth, erased, traces)
        findings.extend(elsewhere(connection, traces))
    found, objects = check_objects(s3, truth, erased)
    findings.extend(found)
    findings.extend(_vacuous(truth, erased, rows, objects))
    return Report(
        findings=tuple(dict.fromkeys(findings)),
        features=_features(truth, rows, objects),
        persons=len(erased),
        untouched_persons=len(truth.persons) - len(erased),
        rows=rows.checked,
        objects=objects.checked,
    )


def _vacuous(
    truth: GroundTruth, erased: Collection[str], rows: RowsSeen, objects: ObjectsSeen
) -> list[NothingChecked]:
    """An audit of nothing passes everything, so it passes nothing."""
    there = {
        "persons to be erased": len(erased),
        "persons to be left alone": len(truth.persons) - len(erased),
        "rows": rows.checked,
        "rows of erased persons": sum(row.fate == "erased" for row in truth.all_rows()),
        "objects": objects.checked,
        "objects of erased persons": sum(one.fate == "erased" for one in truth.all_objects()),
    }
    return [NothingChecked(what) for what, count in there.items() if not count]


def _features(
    truth: GroundTruth, rows: RowsSeen, objects: ObjectsSeen
) -> tuple[FeatureResult, ...]:
    unknown = {row.type for row in truth.all_rows()} - {*FEATURES, PDF}
    return tuple(
        FeatureResult(
            type=request_type,
            rows_masked=rows.masked[request_type],
            objects_deleted=objects.deleted[request_type],
            kept_shared=len(rows.kept.get(request_type, set()) & objects.shared),
            kept_foreign=len(rows.kept.get(request_type, set()) & objects.others),
            blocked=rows.blocked.get(request_type, Counter()),
        )
        for request_type in (*FEATURES, PDF, *sorted(unknown))
    )

"""Compares every version of every object of the product with what the ground truth says of it."""

from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from botocore.exceptions import ClientError

from lethe_sandbox.audit.findings import (
    Finding,
    MarkerLeft,
    ObjectChanged,
    ObjectGone,
    ObjectLeft,
    PlaceGone,
    StrangeObject,
)
from lethe_sandbox.ground_truth import GroundTruth, StoredObject
from lethe_sandbox.product import BUCKETS, VERSIONED
from lethe_sandbox.stack import S3Address

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

_GONE: Final = frozenset({"NoSuchBucket", "404"})


@dataclass(slots=True)
class ObjectsSeen:
    """What was seen to be right."""

    checked: int = 0
    deleted: Counter[str] = field(default_factory=Counter)
    """Objects of which no version is left, per request type."""
    shared: set[tuple[str, str]] = field(default_factory=set)
    """(bucket, key) of shared objects that are as they were."""
    others: set[tuple[str, str]] = field(default_factory=set)
    """Likewise of objects that belong to somebody who is not erased, or to a blocked row."""


@dataclass(slots=True)
class _Listed:
    """What a bucket has under one key."""

    etags: list[str] = field(default_factory=list)
    """Newest first."""
    markers: int = 0
    deleted: bool = False


def check_objects(
    address: S3Address, truth: GroundTruth, erased: Collection[str]
) -> tuple[list[Finding], ObjectsSeen]:
    """List every bucket of the product once, all versions and delete markers, and compare."""
    seen = ObjectsSeen()
    with closing(address.client()) as s3:
        found = [
            finding
            for bucket in BUCKETS
            for finding in _check_bucket(s3, bucket, truth, erased, seen)
        ]
    return found, seen


def _check_bucket(
    s3: "S3Client", bucket: str, truth: GroundTruth, erased: Collection[str], seen: ObjectsSeen
) -> Iterator[Finding]:
    try:
        versioning = s3.get_bucket_versioning(Bucket=bucket).get("Status") == "Enabled"
        listed = _list(s3, bucket)
    except ClientError as error:
        if error.response.get("Error", {}).get("Code") not in _GONE:
            raise
        yield PlaceGone("bucket", bucket)
        return
    if versioning != (bucket in VERSIONED):
        yield PlaceGone("bucket", bucket)
    yield from _compare(bucket, listed, truth, erased, seen)


def _list(s3: "S3Client", bucket: str) -> dict[str, _Listed]:
    listed: dict[str, _Listed] = {}
    for page in s3.get_paginator("list_object_versions").paginate(Bucket=bucket):
        for version in page.get("Versions", []):
            here = listed.setdefault(version["Key"], _Listed())
            here.etags.append(version["ETag"].strip('"'))
        for marker in page.get("DeleteMarkers", []):
            here = listed.setdefault(marker["Key"], _Listed())
            here.markers += 1
            here.deleted = here.deleted or marker["IsLatest"]
    return listed


def _compare(
    bucket: str,
    listed: dict[str, _Listed],
    truth: GroundTruth,
    erased: Collection[str],
    seen: ObjectsSeen,
) -> Iterator[Finding]:
    expected = truth.objects.get(bucket, {})
    for stored in expected.values():
        seen.checked += 1
        here = listed.pop(stored.key, None)
        if stored.fate == "erased" and stored.owner in erased:
            yield from _deleted(stored, here, seen)
        else:
            yield from _unchanged(stored, here, seen)
    for key in listed:
        yield StrangeObject(bucket, key)


def _deleted(stored: StoredObject, here: _Listed | None, seen: ObjectsSeen) -> Iterator[Finding]:
    if here is None:
        seen.deleted[stored.type] += 1
    elif here.etags:
        yield ObjectLeft(stored.bucket, stored.key, len(here.etags), stored.owner or "")
    else:
        yield MarkerLeft(stored.bucket, stored.key, stored.owner or "")


def _unchanged(stored: StoredObject, here: _Listed | None, seen: ObjectsSeen) -> Iterator[Finding]:
    # A person not asked for this time may well be one whom the ground truth lets erase.
    because = "not_requested" if stored.fate == "erased" else stored.fate
    if here is None or not here.etags:
        yield ObjectGone(stored.bucket, stored.key, because)
    elif (
        tuple(reversed(here.etags)) != stored.etags
        or here.deleted != stored.deleted
        or here.markers != int(stored.deleted)
    ):
        yield ObjectChanged(stored.bucket, stored.key, because)
    else:
        kept = seen.shared if stored.fate == "shared" else seen.others
        kept.add((stored.bucket, stored.key))

"""Erases the sample by its ground truth, in plain SQL and S3 calls, to test those who judge it."""

from collections.abc import Collection
from typing import TYPE_CHECKING

import psycopg
from psycopg import sql

from lethe_sandbox.ground_truth import GroundTruth
from lethe_sandbox.product import BUCKETS, TABLES

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import ObjectIdentifierTypeDef

PAGE = 1000


def erase(
    connection: psycopg.Connection, s3: "S3Client", truth: GroundTruth, persons: Collection[str]
) -> None:
    """Mask the rows and delete the objects of `persons` that the ground truth calls erased."""
    for table in TABLES.values():
        if not table.masks:
            continue
        ids = [
            row.id
            for row in truth.rows[table.name].values()
            if row.fate == "erased" and row.owner in persons
        ]
        masks = sql.SQL(", ").join(
            sql.SQL("{} = {}").format(sql.Identifier(column), sql.Literal(mask))
            for column, mask in table.masks.items()
        )
        connection.execute(
            sql.SQL("update {} set {} where id = any({})").format(
                sql.Identifier("public", table.name), masks, sql.Literal(ids)
            )
        )
    for bucket in BUCKETS:
        gone = {
            one.key
            for one in truth.objects[bucket].values()
            if one.fate == "erased" and one.owner in persons
        }
        versions = [version for version in all_versions(s3, bucket) if version["Key"] in gone]
        for start in range(0, len(versions), PAGE):
            page = versions[start : start + PAGE]
            s3.delete_objects(Bucket=bucket, Delete={"Objects": page, "Quiet": True})


def all_versions(s3: "S3Client", bucket: str, prefix: str = "") -> list["ObjectIdentifierTypeDef"]:
    """List every version and delete marker, newest first per key."""
    return [
        {"Key": entry["Key"], "VersionId": entry["VersionId"]}
        for page in s3.get_paginator("list_object_versions").paginate(Bucket=bucket, Prefix=prefix)
        for entry in (*page.get("DeleteMarkers", []), *page.get("Versions", []))
    ]

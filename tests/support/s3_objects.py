"""Objects on a real S3 server: put there, and looked for without the code under test."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

from pydantic import SecretStr

from lethe_eraser.domain import ObjectRef
from lethe_eraser.objects import S3Options
from lethe_sandbox.stack import S3Address


def options_of(server: S3Address, **more: Any) -> S3Options:
    """How the eraser reaches a server."""
    return S3Options(
        region=server.region,
        endpoint_url=server.endpoint,
        access_key_id=server.access_key_id,
        secret_access_key=SecretStr(server.secret_access_key),
        **more,
    )


def put(server: S3Address, bucket: str, keys: list[str]) -> list[ObjectRef]:
    """Put tiny objects."""
    client = server.client()
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda key: client.put_object(Bucket=bucket, Key=key, Body=b"x"), keys))
    return [ObjectRef(bucket, key) for key in keys]


def keys(server: S3Address, bucket: str) -> list[str]:
    """List the keys of a bucket."""
    answer = server.client().list_objects_v2(Bucket=bucket)
    return [entry["Key"] for entry in answer.get("Contents", [])]


def versions(server: S3Address, bucket: str) -> list[tuple[str, bool]]:
    """List (key, whether it is a marker) of every version of a bucket."""
    answer: Any = server.client().list_object_versions(Bucket=bucket)
    listed = [(entry["Key"], False) for entry in answer.get("Versions", [])]
    return sorted(listed + [(entry["Key"], True) for entry in answer.get("DeleteMarkers", [])])

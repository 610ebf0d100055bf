"""The types of the fixtures that make things."""

from typing import Any, Protocol
from uuid import uuid4

from lethe_sandbox.stack import S3Address


class TopicFactory(Protocol):
    """Makes empty topics."""

    async def __call__(
        self, prefix: str = "topic", *, partitions: int = 16, config: dict[str, str] | None = None
    ) -> str:
        """Make a topic of a unique name that begins with `prefix`, and give its name."""
        ...


class BucketFactory(Protocol):
    """Makes empty buckets."""

    def __call__(self, *, versioned: bool = False, locked: bool = False) -> str:
        """Make a bucket and give its name; `locked`: versioned, and its objects may be locked."""
        ...


def make_buckets(s3: S3Address) -> BucketFactory:
    """Make buckets of one server."""
    client = s3.client()

    def make(*, versioned: bool = False, locked: bool = False) -> str:
        name = f"test-{uuid4().hex}"
        how: dict[str, Any] = {"ObjectLockEnabledForBucket": True} if locked else {}
        if s3.region != "us-east-1":
            how["CreateBucketConfiguration"] = {"LocationConstraint": s3.region}
        client.create_bucket(Bucket=name, **how)
        if versioned:
            client.put_bucket_versioning(Bucket=name, VersioningConfiguration={"Status": "Enabled"})
        return name

    return make

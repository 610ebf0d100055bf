"""The types of the fixtures that make things."""

from typing import Protocol


class TopicFactory(Protocol):
    """Makes empty topics."""

    async def __call__(
        self, prefix: str = "topic", *, partitions: int = 16, config: dict[str, str] | None = None
    ) -> str:
        """Make a topic of a unique name that begins with `prefix`, and give its name."""
        ...


class BucketFactory(Protocol):
    """Makes empty buckets."""

    def __call__(self, *, versioned: bool = False) -> str:
        """Make a bucket and give its name."""
        ...

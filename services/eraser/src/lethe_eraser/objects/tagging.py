"""Mode `tag`: a version gets a tag, and a lifecycle rule of the bucket removes what carries it.

`PutObjectTagging` replaces the whole set, so the tags that are there are read and kept.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from lethe_eraser.objects.calls import RefusedError, S3Calls
from lethe_eraser.objects.deleting import Item
from lethe_eraser.objects.outcomes import TAG_LIMIT

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

MOST_TAGS: Final = 10
"""S3's own limit."""

_MISSING: Final = frozenset({"NoSuchKey", "NoSuchVersion", "404", "MethodNotAllowed"})

Tag = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Tagged:
    """What became of one version; neither of both: it is not there."""

    tagged: bool = False
    refused: str | None = None


def tag_version(calls: S3Calls, bucket: str, item: Item, tag: Tag) -> Tagged:
    """Add `tag` to the tags of one version; the same again changes nothing.

    Raises:
        ObjectStoreUnavailableError: S3 is away.
    """

    def read(client: "S3Client", arguments: dict[str, Any]) -> dict[str, str]:
        answer = client.get_object_tagging(**arguments, **item.entry())
        return {entry["Key"]: entry["Value"] for entry in answer["TagSet"]}

    try:
        tags = calls.call_for(bucket, item.key, read)
    except RefusedError as refusal:
        return Tagged() if refusal.code in _MISSING else Tagged(refused=refusal.code)
    key, value = tag
    if tags.get(key) == value:
        return Tagged(tagged=True)
    if len(tags.keys() | {key}) > MOST_TAGS:
        return Tagged(refused=TAG_LIMIT)
    merged: Any = [{"Key": k, "Value": v} for k, v in {**tags, key: value}.items()]

    def write(client: "S3Client", arguments: dict[str, Any]) -> None:
        client.put_object_tagging(**arguments, **item.entry(), Tagging={"TagSet": merged})

    try:
        calls.call_for(bucket, item.key, write)
    except RefusedError as refusal:
        return Tagged() if refusal.code in _MISSING else Tagged(refused=refusal.code)
    return Tagged(tagged=True)

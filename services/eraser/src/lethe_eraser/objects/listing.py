"""What is there: keys of an unversioned bucket, versions and markers of a versioned one.

Neighbouring keys are found by listing their neighbourhood while that is cheaper than asking key
by key.
"""

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from botocore.exceptions import ClientError

from lethe_eraser.objects.calls import RefusedError, S3Calls

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

SWEEP_FROM: Final = 8
"""Keys from which on neighbours are listed by whole pages: a page costs what so many keys do."""

LEVELS: Final = 2
"""The level of `groups` at which keys stand alone."""

ENTRIES_PER_KEY: Final = 16
"""How much of a folder is listed for few keys: reading more costs more than asking for each."""

_FOLDER_FROM: Final = 2
"""Keys of one folder from which on it is listed: it is often of one request, and small."""

NULL: Final = "null"
"""The version of what was written without one; it comes back with another content."""

_NOT_FOUND: Final = 404


@dataclass(frozen=True, slots=True)
class Version:
    """One version of a key; `is_marker`: a delete marker, which holds no data."""

    key: str
    version_id: str
    is_marker: bool
    etag: str = ""

    def is_among(self, held: Collection[str]) -> bool:
        """Whether `held` names what this version holds."""
        return self.version_id in held or (self.version_id == NULL and self.etag in held)


@dataclass(slots=True)
class Seen:
    """What a sweep found, and the keys it did not settle."""

    versions: list[Version] = field(default_factory=list)
    keys: set[str] = field(default_factory=set)
    unsettled: list[str] = field(default_factory=list)


def groups(keys: Iterable[str], level: int) -> list[list[str]]:
    """Group keys that are likely neighbours in a listing, each group in the order S3 lists it.

    At level 0 by the first folder of their path, at level 1 by the whole folder, then one by one;
    groups too small to be worth a listing fall into single keys. The bucket itself is no folder.
    """
    found: dict[str, list[str]] = {}
    for key in sorted(set(keys)):
        folder = (key.partition("/")[0], key.rpartition("/")[0], key)[min(level, LEVELS)]
        found.setdefault(folder, []).append(key)
    least = {folder: _FOLDER_FROM if level and folder else SWEEP_FROM for folder in found}
    whole = [group for folder, group in found.items() if len(group) >= least[folder]]
    return whole + [[k] for f, group in found.items() if len(group) < least[f] for k in group]


def sweep_keys(calls: S3Calls, bucket: str, keys: Sequence[str]) -> Seen:
    """List what lies around `keys` (sorted) until they are settled or asking singly is cheaper."""
    seen, wanted, settled, pages = Seen(), frozenset(keys), 0, 0
    more: dict[str, Any] = {"Prefix": _common_start(keys), **_page_size(keys)}
    while True:

        def page(client: "S3Client", arguments: dict[str, Any]) -> Any:
            return client.list_objects_v2(**arguments, **more)  # called at once

        answer, pages = calls.call(bucket, page), pages + 1
        names = [entry["Key"] for entry in answer.get("Contents", [])]
        seen.keys.update(wanted.intersection(names))
        if not answer.get("IsTruncated"):
            return seen
        # A page may be empty and not the last one.
        done = _settled(keys, settled, names[-1], inclusive=True) if names else settled
        if _gives_up(keys, done - settled, pages):
            seen.unsettled = list(keys[done:])
            return seen
        settled = done
        if settled == len(keys):
            return seen
        more["ContinuationToken"] = answer["NextContinuationToken"]


def sweep_versions(calls: S3Calls, bucket: str, keys: Sequence[str]) -> Seen:
    """The same for versions; with a single key, every version of exactly that key."""
    seen, wanted, settled, pages = Seen(), frozenset(keys), 0, 0
    more: dict[str, Any] = {"Prefix": _common_start(keys), **_page_size(keys)}
    while True:

        def page(client: "S3Client", arguments: dict[str, Any]) -> Any:
            return client.list_object_versions(**arguments, **more)  # called at once

        answer, pages = calls.call(bucket, page), pages + 1
        listed = list(_versions(answer))
        # The prefix of a key is also the prefix of `<key>.bak`.
        seen.versions += [version for version in listed if version.key in wanted]
        if not answer.get("IsTruncated"):
            return seen
        # The last key of a page may go on, on the next one; a page may be empty.
        last = max((version.key for version in listed), default="")
        done = max(settled, _settled(keys, settled, last, inclusive=False))
        if done == len(keys):
            return seen
        if len(keys) > 1 and _gives_up(keys, done - settled, pages):
            seen.unsettled = list(keys[done:])
            unsettled = frozenset(seen.unsettled)
            seen.versions = [v for v in seen.versions if v.key not in unsettled]
            return seen
        settled = done
        more["KeyMarker"] = answer["NextKeyMarker"]
        if answer.get("NextVersionIdMarker"):
            more["VersionIdMarker"] = answer["NextVersionIdMarker"]
        else:
            more.pop("VersionIdMarker", None)


def has_key(calls: S3Calls, bucket: str, key: str) -> bool:
    """Ask for one key; where S3 will not tell (no permission to list), it counts as there."""
    return etag_of(calls, bucket, key) is not None


def etag_of(calls: S3Calls, bucket: str, key: str) -> str | None:
    """Ask for the ETag of one key: None if it is not there, empty where S3 will not tell."""

    def head(client: "S3Client", arguments: dict[str, Any]) -> str | None:
        try:
            return client.head_object(**arguments, Key=key).get("ETag", "")
        except ClientError as error:
            if error.response.get("ResponseMetadata", {}).get("HTTPStatusCode") == _NOT_FOUND:
                return None
            raise

    try:
        return calls.call_for(bucket, key, head)
    except RefusedError:
        return ""


def _common_start(keys: Sequence[str]) -> str:
    """What all of `keys` (sorted) begin with: the first and the last differ soonest."""
    first, last = keys[0], keys[-1]
    pairs = enumerate(zip(first, last, strict=False))
    return first[: next((i for i, (a, b) in pairs if a != b), min(len(first), len(last)))]


def _page_size(keys: Sequence[str]) -> dict[str, int]:
    few = 1 < len(keys) < SWEEP_FROM
    return {"MaxKeys": ENTRIES_PER_KEY * len(keys)} if few else {}


def _versions(answer: Any) -> Iterator[Version]:
    for kind, is_marker in (("Versions", False), ("DeleteMarkers", True)):
        for entry in answer.get(kind, []):
            version, etag = entry.get("VersionId", NULL), entry.get("ETag", "")
            yield Version(entry["Key"], version, is_marker, etag)


def _settled(keys: Sequence[str], start: int, last: str, *, inclusive: bool) -> int:
    done = start
    while done < len(keys) and (keys[done] < last or (inclusive and keys[done] == last)):
        done += 1
    return done


def _gives_up(keys: Sequence[str], settled_by_page: int, pages: int) -> bool:
    """Whether asking for each is cheaper by now; others' keys may lie before the first of many."""
    return settled_by_page < SWEEP_FROM and pages * SWEEP_FROM >= len(keys)

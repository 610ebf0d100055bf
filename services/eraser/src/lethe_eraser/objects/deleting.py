"""Deletes pages of keys or versions, and says key by key what became of them."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from lethe_eraser.objects.calls import RETRYABLE, RefusedError, S3Calls, is_beyond_xml
from lethe_eraser.objects.listing import has_key
from lethe_eraser.objects.outcomes import REWRITTEN, ObjectStoreUnavailableError
from lethe_eraser.objects.pace import THROTTLING, Pace, prefix_of

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

_OF_THE_PAGE: Final = frozenset({"MalformedXML", "InvalidRequest", "ParamValidation", "400"})
"""Refusals that a single bad key may cause for its whole page."""

_ABSENT: Final = frozenset({"NoSuchKey", "404"})
_UNLIKE: Final = frozenset({"PreconditionFailed", "ConditionalRequestConflict", "412"})
"""Refusals of a delete with a condition: the object is another one, or becomes it just now."""


class Item(NamedTuple):
    """What an entry of DeleteObjects names; without a version, a key of an unversioned bucket."""

    key: str
    version_id: str | None = None
    etag: str | None = None
    """Of a key without versions, what may be in it; empty: nothing. None: whatever is."""

    def entry(self) -> dict[str, Any]:
        """The entry as boto3 takes it."""
        if self.version_id is None:
            return {"Key": self.key}
        return {"Key": self.key, "VersionId": self.version_id}


def pages(items: Sequence[Item], size: int) -> Iterator[list[Item]]:
    """Split into pages of at most `size`, in the order of keys."""
    # In order, so that a page is of few prefixes and one that is throttled holds few others up.
    plain = sorted(items, key=lambda item: item.key)
    for start in range(0, len(plain), size):
        yield plain[start : start + size]


def is_alone(item: Item) -> bool:
    """Whether the key needs a request of its own."""
    # Of the keys of a page, not every server looks at the ETag.
    return item.etag is not None or is_beyond_xml(item.key)


def delete_page(calls: S3Calls, pace: Pace, bucket: str, items: Sequence[Item]) -> dict[Item, str]:
    """Delete one page; gives the items S3 refused, with its code. The others are gone.

    Only the keys that S3 asks to send again are sent again, with growing, jittered waits.

    Raises:
        ObjectStoreUnavailableError: Some are neither gone nor refused after the last try.
    """
    if len(items) == 1 and is_alone(items[0]):
        if items[0].etag is not None:
            return _delete_as_read(calls, pace, bucket, items[0])
        return _delete_one(calls, bucket, items[0])
    refused: dict[Item, str] = {}
    pending = list(items)
    for attempt in calls.retrying():
        with attempt:
            ticket = pace.take(bucket, (item.key for item in pending))
            try:
                errors = calls.once(bucket, _deletion(pending))
            except RefusedError as refusal:
                return refused | _divide(calls, pace, bucket, pending, refusal.code)
            except ObjectStoreUnavailableError as error:
                if error.code in THROTTLING:
                    pace.answered(ticket, ticket.lanes)
                raise
            outcome = _by_item(pending, errors)
            slow = {i.key for i, code in outcome.items() if code in THROTTLING}
            pace.answered(ticket, {prefix_of(bucket, key) for key in slow})
            refused.update({i: code for i, code in outcome.items() if code not in RETRYABLE})
            pending = [item for item, code in outcome.items() if code in RETRYABLE]
            for code in outcome.values():
                calls.note(code)
            if pending:
                raise ObjectStoreUnavailableError(outcome[pending[0]])
    return refused


def _deletion(items: Sequence[Item]) -> Any:
    entries: Any = [item.entry() for item in items]

    def delete(client: "S3Client", arguments: dict[str, Any]) -> Sequence[Mapping[str, Any]]:
        answer = client.delete_objects(**arguments, Delete={"Objects": entries, "Quiet": True})
        return answer.get("Errors", [])

    return delete


def _delete_one(calls: S3Calls, bucket: str, item: Item) -> dict[Item, str]:
    def delete(client: "S3Client", arguments: dict[str, Any]) -> None:
        client.delete_object(**arguments, **item.entry())

    try:
        calls.call_for(bucket, item.key, delete)
    except RefusedError as refusal:
        return {item: refusal.code}
    return {}


def _delete_as_read(calls: S3Calls, pace: Pace, bucket: str, item: Item) -> dict[Item, str]:
    """Delete a key if that is in it which was read; S3 compares and deletes in one.

    A version by its name it does not compare: where versions are suspended, a marker takes the
    place of `null`, and goes at once.
    """
    if not item.etag:
        return {item: REWRITTEN} if has_key(calls, bucket, item.key) else {}

    def delete(client: "S3Client", arguments: dict[str, Any]) -> None:
        client.delete_object(**arguments, Key=item.key, IfMatch=item.etag or "")
        if item.version_id is not None:
            client.delete_object(**arguments, **item.entry())

    pace.take(bucket, [item.key])
    try:
        calls.call_for(bucket, item.key, delete)
    except RefusedError as refusal:
        if refusal.code in _ABSENT:
            return {}
        return {item: REWRITTEN if refusal.code in _UNLIKE else refusal.code}
    return {}


def _divide(
    calls: S3Calls, pace: Pace, bucket: str, items: Sequence[Item], code: str
) -> dict[Item, str]:
    """Find the entries for which a whole page was refused."""
    if code not in _OF_THE_PAGE or len(items) == 1:
        return dict.fromkeys(items, code)
    half = len(items) // 2
    return delete_page(calls, pace, bucket, items[:half]) | delete_page(
        calls, pace, bucket, items[half:]
    )


def _by_item(items: Sequence[Item], errors: Sequence[Mapping[str, Any]]) -> dict[Item, str]:
    """Say which items the entries of `Errors[]` speak of."""
    by_key: dict[str, list[Item]] = {}
    for item in items:
        by_key.setdefault(item.key, []).append(item)
    outcome: dict[Item, str] = {}
    for error in errors:
        code = str(error.get("Code", "Unknown"))
        named = by_key.get(str(error.get("Key", "")))
        if named is None:
            # An error about a key we did not ask for may be about any that we did.
            return dict.fromkeys(items, code)
        version = error.get("VersionId")
        exact = [item for item in named if version and item.version_id == version]
        outcome.update(dict.fromkeys(exact or named, code))
    return outcome

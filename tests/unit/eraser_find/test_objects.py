"""What the object store sends, and what it makes of answers no server can be made to give."""

from collections import Counter
from collections.abc import AsyncIterator

import pytest
from botocore.exceptions import EndpointConnectionError
from pydantic import SecretStr

from lethe_eraser.catalog import Bucket
from lethe_eraser.domain import ObjectRef
from lethe_eraser.objects import (
    ObjectMissingError,
    ObjectRefusedError,
    ObjectStore,
    ObjectStoreUnavailableError,
    ObjectTooLargeError,
    S3Options,
)
from tests.support.scripted_s3 import Sent, errors, operations, refusal, scripted, versioning

OPTIONS = S3Options(
    endpoint_url="http://127.0.0.1:9", access_key_id="k", secret_access_key=SecretStr("s")
)
BUCKETS = {"plain": Bucket("plain", owner="012345678901"), "old": Bucket("old")}
noted: Counter[str] = Counter()


@pytest.fixture
async def store() -> AsyncIterator[ObjectStore]:
    noted.clear()
    async with ObjectStore(
        OPTIONS, BUCKETS, on_error=lambda code: noted.update([code]), wait_seconds=0
    ) as opened:
        yield opened


def plain(*keys: str) -> list[ObjectRef]:
    return [ObjectRef("plain", key) for key in keys]


async def test_pages_hold_at_most_the_keys_they_may_and_name_the_owner(store: ObjectStore) -> None:
    def script(sent: Sent) -> tuple[int, str]:
        return versioning(None) if sent.operation == "GetBucketVersioning" else errors()

    refs = plain(*(f"k/{i}" for i in range(600)))
    with scripted(store, ["plain"], script) as sent:
        deletion = await store.delete([*refs, *refs])
    pages = [one for one in sent if one.operation == "DeleteObjects"]
    assert sorted(len(page.keys) for page in pages) == [100, 250, 250]
    assert deletion.gone == frozenset(refs)
    assert not deletion.failed
    assert all(one.headers["x-amz-expected-bucket-owner"] == "012345678901" for one in sent)
    assert all("<Quiet>true</Quiet>" in page.body for page in pages)


async def test_the_state_of_a_bucket_is_asked_for_once(store: ObjectStore) -> None:
    def script(sent: Sent) -> tuple[int, str]:
        return versioning(None) if sent.operation == "GetBucketVersioning" else errors()

    with scripted(store, ["plain"], script) as sent:
        for key in "abc":
            await store.delete(plain(key))
    assert operations(sent).count("GetBucketVersioning") == 1


async def test_only_the_keys_that_s3_asks_for_again_are_sent_again(store: ObjectStore) -> None:
    answers = iter(
        [
            errors(("a", "SlowDown"), ("b", "AccessDenied"), ("c", "InternalError")),
            errors(("c", "ServiceUnavailable")),
            errors(),
        ]
    )

    def script(sent: Sent) -> tuple[int, str]:
        return versioning(None) if sent.operation == "GetBucketVersioning" else next(answers)

    with scripted(store, ["plain"], script) as sent:
        deletion = await store.delete(plain("a", "b", "c", "d"))
    pages = [sorted(one.keys) for one in sent if one.operation == "DeleteObjects"]
    assert pages == [["a", "b", "c", "d"], ["a", "c"], ["c"]]
    assert deletion.failed == {ObjectRef("plain", "b"): "AccessDenied"}
    assert deletion.gone == frozenset(plain("a", "c", "d"))
    assert noted["SlowDown"] == 1


async def test_keys_that_stay_throttled_are_neither_gone_nor_refused(store: ObjectStore) -> None:
    def script(sent: Sent) -> tuple[int, str]:
        if sent.operation == "GetBucketVersioning":
            return versioning(None)
        return errors(("a", "SlowDown"))

    with (
        scripted(store, ["plain"], script) as sent,
        pytest.raises(ObjectStoreUnavailableError, match="SlowDown") as caught,
    ):
        await store.delete(plain("a", "b"))
    assert caught.value.code == "SlowDown"
    assert operations(sent).count("DeleteObjects") == 5


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (refusal(503, "SlowDown"), "SlowDown"),
        (refusal(500, "Whatever"), "Whatever"),
        (refusal(403, "ExpiredToken"), "ExpiredToken"),
        (EndpointConnectionError(endpoint_url="x"), "EndpointConnectionError"),
    ],
)
async def test_a_store_that_is_away_is_said_to_be_by_every_call(
    store: ObjectStore, answer: tuple[int, str] | BaseException, code: str
) -> None:
    with scripted(store, ["plain"], lambda _: answer):
        for call in (
            store.delete(plain("a")),
            store.remaining(plain("a")),
            store.read(plain("a")[0], 10),
        ):
            with pytest.raises(ObjectStoreUnavailableError) as caught:
                await call
            assert caught.value.code == code
    assert noted[code] >= 3


async def test_a_refused_bucket_fails_all_its_keys(store: ObjectStore) -> None:
    def script(sent: Sent) -> tuple[int, str]:
        if sent.operation == "GetBucketVersioning":
            return versioning(None)
        return refusal(403, "AccessDenied")

    with scripted(store, ["plain"], script):
        deletion = await store.delete(plain("a", "b"))
        assert await store.remaining(plain("a")) == frozenset(plain("a"))
        with pytest.raises(ObjectRefusedError):
            await store.read(plain("a")[0], 10)
    assert deletion.failed == dict.fromkeys(plain("a", "b"), "AccessDenied")


async def test_a_page_that_one_key_spoils_is_divided_until_it_is_found(store: ObjectStore) -> None:
    def script(sent: Sent) -> tuple[int, str]:
        if sent.operation == "GetBucketVersioning":
            return versioning(None)
        return refusal(400, "MalformedXML") if "k/37" in sent.keys else errors()

    refs = plain(*(f"k/{i}" for i in range(100)))
    with scripted(store, ["plain"], script):
        deletion = await store.delete(refs)
    assert deletion.failed == {ObjectRef("plain", "k/37"): "MalformedXML"}
    assert len(deletion.gone) == 99


async def test_a_key_that_xml_cannot_carry_goes_alone(store: ObjectStore) -> None:
    def script(sent: Sent) -> tuple[int, str]:
        if sent.operation == "GetBucketVersioning":
            return versioning(None)
        return (204, "") if sent.operation == "DeleteObject" else errors()

    with scripted(store, ["plain"], script) as sent:
        deletion = await store.delete(plain("a\x01", "b"))
    assert sorted(operations(sent)) == ["DeleteObject", "DeleteObjects", "GetBucketVersioning"]
    assert len(deletion.gone) == 2


async def test_an_error_about_a_key_we_did_not_ask_for_fails_the_page(store: ObjectStore) -> None:
    def script(sent: Sent) -> tuple[int, str]:
        if sent.operation == "GetBucketVersioning":
            return versioning(None)
        return errors(("a/folded", "AccessDenied"))

    with scripted(store, ["plain"], script):
        deletion = await store.delete(plain("a//folded", "b"))
    assert set(deletion.failed.values()) == {"AccessDenied"}
    assert not deletion.gone


async def test_a_bucket_the_catalog_does_not_know_is_never_asked(store: ObjectStore) -> None:
    foreign = ObjectRef("foreign", "k")
    assert (await store.delete([foreign])).failed == {foreign: "UnknownBucket"}
    assert await store.remaining([foreign]) == {foreign}
    with pytest.raises(ObjectRefusedError):
        await store.read(foreign, 10)


def listing(*entries: tuple[str, str, bool]) -> tuple[int, str]:
    """ListVersionsResult of (key, version, is marker)."""
    body = "".join(
        f"<{kind}><Key>{key}</Key><VersionId>{version}</VersionId></{kind}>"
        for key, version, is_marker in entries
        for kind in ["DeleteMarker" if is_marker else "Version"]
    )
    return 200, f"<ListVersionsResult><IsTruncated>false</IsTruncated>{body}</ListVersionsResult>"


@pytest.mark.parametrize("state", ["Enabled", "Suspended", "unknown"])
async def test_of_a_versioned_key_the_data_goes_first_and_a_listing_proves_the_end(
    store: ObjectStore, state: str
) -> None:
    there = [("a", "m1", True), ("a", "v2", False), ("a", "null", False), ("a.bak", "v9", False)]

    def script(sent: Sent) -> tuple[int, str]:
        if sent.operation == "GetBucketVersioning":
            return refusal(403, "AccessDenied") if state == "unknown" else versioning(state)
        if sent.operation == "DeleteObjects":
            gone = set(zip(sent.keys, sent.versions, strict=True))
            there[:] = [entry for entry in there if entry[:2] not in gone]
            return errors()
        return listing(*there)

    with scripted(store, ["old"], script) as sent:
        deletion = await store.delete([ObjectRef("old", "a")])
        assert await store.remaining([ObjectRef("old", "a")]) == frozenset()
    pages = [sorted(one.versions) for one in sent if one.operation == "DeleteObjects"]
    assert pages == [["null", "v2"], ["m1"]]
    assert there == [("a.bak", "v9", False)]
    assert deletion.gone == {ObjectRef("old", "a")}


async def test_a_locked_version_keeps_its_marker_and_fails(store: ObjectStore) -> None:
    def script(sent: Sent) -> tuple[int, str]:
        if sent.operation == "GetBucketVersioning":
            return versioning("Enabled")
        if sent.operation == "DeleteObjects":
            assert "m1" not in sent.versions
            return errors(*((key, "AccessDenied") for key in sent.keys if key == "a"))
        return listing(("a", "m1", True), ("a", "v1", False))

    with scripted(store, ["old"], script):
        deletion = await store.delete([ObjectRef("old", "a"), ObjectRef("old", "gone")])
    assert deletion.failed == {ObjectRef("old", "a"): "AccessDenied"}
    assert deletion.gone == {ObjectRef("old", "gone")}


async def test_a_key_that_keeps_coming_back_is_not_called_gone(store: ObjectStore) -> None:
    def script(sent: Sent) -> tuple[int, str]:
        if sent.operation == "GetBucketVersioning":
            return versioning("Enabled")
        return errors() if sent.operation == "DeleteObjects" else listing(("a", "v1", False))

    with scripted(store, ["old"], script):
        deletion = await store.delete([ObjectRef("old", "a")])
    assert deletion.failed == {ObjectRef("old", "a"): "VersionsRemain"}


async def test_a_reference_with_a_version_deletes_that_one_alone(store: ObjectStore) -> None:
    there = [("a", "v1", False), ("a", "v2", False)]

    def script(sent: Sent) -> tuple[int, str]:
        if sent.operation == "GetBucketVersioning":
            return versioning("Enabled")
        if sent.operation == "DeleteObjects":
            there[:] = [entry for entry in there if entry[1] not in sent.versions]
            return errors()
        return listing(*there)

    with scripted(store, ["old"], script):
        await store.delete([ObjectRef("old", "a", "v1")])
    assert there == [("a", "v2", False)]


async def test_reading_is_bounded_and_says_what_is_missing(store: ObjectStore) -> None:
    def script(sent: Sent) -> tuple[int, str]:
        if sent.operation == "GetBucketVersioning":
            return versioning(None)
        return (200, "x" * 11) if "/big" in sent.url else refusal(404, "NoSuchKey")

    with scripted(store, ["plain"], script):
        with pytest.raises(ObjectTooLargeError):
            await store.read(ObjectRef("plain", "big"), 10)
        with pytest.raises(ObjectMissingError):
            await store.read(ObjectRef("plain", "nowhere"), 10)


@pytest.mark.parametrize("wrong", [{"page_keys": 1001}, {"page_keys": 0}, {"threads": 0}])
def test_options_that_s3_cannot_serve_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="must be"):
        S3Options(**wrong)  # type: ignore[arg-type]  # the test's own two integers

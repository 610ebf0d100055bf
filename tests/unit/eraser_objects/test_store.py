"""What the object store sends, and what it makes of answers no server can be made to give."""

import json
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from typing import Any
from urllib.parse import parse_qs

import pytest
from pydantic import SecretStr

from lethe_eraser.catalog import Bucket
from lethe_eraser.domain import ObjectRef
from lethe_eraser.objects import (
    BucketsUnfitError,
    CircuitOpenError,
    ObjectRefusedError,
    ObjectStore,
    ObjectStoreUnavailableError,
    S3Options,
)
from lethe_eraser.objects.breaker import FAILURES
from tests.support.scripted_s3 import Sent, errors, operations, refusal, scripted, versioning

BUCKETS = {
    "plain": Bucket("plain", owner="012345678901", count_missing=True),
    "main": Bucket("main", owner="012345678901", replicas=("copy",)),
    "copy": Bucket("copy", owner="999999999999"),
    "tagged": Bucket("tagged", owner="012345678901", tag=("erase", "yes")),
}
Script = Callable[[Sent], tuple[int, str]]
states: list[tuple[str, bool]] = []
throttled: list[tuple[str, int]] = []
noted: Counter[str] = Counter()


def options(**more: float) -> S3Options:
    return S3Options(
        endpoint_url="http://127.0.0.1:9",
        access_key_id="k",
        secret_access_key=SecretStr("s"),
        breaker_seconds=more.get("breaker_seconds", 60),
    )


def open_store(**more: float) -> ObjectStore:
    for kept in (states, throttled, noted):
        kept.clear()
    return ObjectStore(
        options(**more),
        BUCKETS,
        on_error=lambda code: noted.update([code]),
        on_breaker=lambda name, is_open: states.append((name, is_open)),
        on_throttled=lambda bucket, count: throttled.append((bucket, count())),
        wait_seconds=0,
    )


@pytest.fixture
async def store() -> AsyncIterator[ObjectStore]:
    async with open_store() as opened:
        yield opened


def listing(*versions: tuple[str, str, str]) -> tuple[int, str]:
    """ListObjectVersions of (kind, key, version)."""
    entries = "".join(
        f"<{kind}><Key>{key}</Key><VersionId>{version}</VersionId></{kind}>"
        for kind, key, version in versions
    )
    return (
        200,
        f"<ListVersionsResult><IsTruncated>false</IsTruncated>{entries}</ListVersionsResult>",
    )


def plain(*keys: str) -> list[ObjectRef]:
    return [ObjectRef("plain", key) for key in keys]


async def test_every_request_names_the_owner_of_its_bucket(store: ObjectStore) -> None:
    answers: dict[str, tuple[int, str]] = {
        "GetBucketVersioning": versioning("Enabled"),
        "ListObjectVersions": listing(("Version", "a", "1")),
        "DeleteObjects": errors(("a", "AccessDenied")),
        "GetObjectLegalHold": refusal(400, "InvalidRequest"),
        "GetObjectRetention": refusal(400, "InvalidRequest"),
        "GetObjectTagging": refusal(403, "AccessDenied"),
        "GetBucketLifecycleConfiguration": refusal(404, "NoSuchLifecycleConfiguration"),
        "GetBucketPolicy": refusal(404, "NoSuchBucketPolicy"),
        "HeadObject": refusal(404, "404"),
    }
    with scripted(store, list(BUCKETS), lambda sent: answers[sent.operation]) as sent:
        refs = [ObjectRef(name, "a") for name in BUCKETS]
        deletion = await store.delete(refs)
        await store.remaining(refs)
        with pytest.raises(BucketsUnfitError):
            await store.check()
    assert set(deletion.failed.values()) == {"AccessDenied"}
    assert {one.operation for one in sent} == set(answers)
    owners = {"copy": "999999999999"}
    for one in sent:
        bucket = one.url.split("/")[3].partition("?")[0]
        expected = owners.get(bucket, "012345678901")
        assert one.headers["x-amz-expected-bucket-owner"] == expected, one.operation


async def test_a_lock_is_what_retention_or_hold_say_and_not_a_code(store: ObjectStore) -> None:
    until = "2099-01-02T03:04:05Z"
    retained = f"<Retention><Mode>COMPLIANCE</Mode><RetainUntilDate>{until}</RetainUntilDate>"
    over = retained.replace("2099", "2001")

    keys = ("held", "kept", "old", "open")
    none = refusal(400, "InvalidRequest")
    answers: dict[str, tuple[int, str]] = {
        "GetBucketVersioning": versioning("Suspended"),
        "ListObjectVersions": listing(*(("Version", key, "1") for key in keys)),
        "DeleteObjects": errors(*((key, "InvalidRequest") for key in keys)),
        "GetObjectLegalHold held": (200, "<LegalHold><Status>ON</Status></LegalHold>"),
        "GetObjectLegalHold kept": (200, "<LegalHold><Status>OFF</Status></LegalHold>"),
        "GetObjectRetention kept": (200, f"{retained}</Retention>"),
        "GetObjectRetention old": (200, f"{over}</Retention>"),
    }

    def script(sent: Sent) -> tuple[int, str]:
        key = sent.url.rpartition("/")[2].partition("?")[0]
        name = sent.operation
        return answers.get(name) or answers.get(f"{name} {key}", none)

    with scripted(store, ["plain"], script) as sent:
        deletion = await store.delete(plain("held", "kept", "old", "open"))
    codes = {ref.key: code for ref, code in deletion.failed.items()}
    assert codes == {
        "held": "ObjectLocked",
        "kept": "ObjectLocked",
        "old": "InvalidRequest",
        "open": "InvalidRequest",
    }
    ends = {ref.key: end and end.isoformat() for ref, end in deletion.locked_until.items()}
    assert ends == {"held": None, "kept": "2099-01-02T03:04:05+00:00"}
    assert all("versionId=1" in one.url for one in sent if one.operation.startswith("GetObject"))


async def test_where_a_second_factor_is_needed_nothing_is_even_tried(store: ObjectStore) -> None:
    body = "<VersioningConfiguration><Status>Enabled</Status><MfaDelete>Enabled</MfaDelete>"

    answer = 200, f"{body}</VersioningConfiguration>"
    with scripted(store, ["plain"], lambda _: answer) as sent:
        deletion = await store.delete(plain("a", "b"))
    assert deletion.failed == dict.fromkeys(plain("a", "b"), "MfaDelete")
    assert operations(sent) == ["GetBucketVersioning"]


async def test_a_bucket_that_will_not_say_counts_as_versioned(store: ObjectStore) -> None:
    def script(sent: Sent) -> tuple[int, str]:
        if sent.operation == "GetBucketVersioning":
            return refusal(403, "AccessDenied")
        if sent.operation == "ListObjectVersions":
            return listing()
        raise AssertionError(sent.operation)

    with scripted(store, ["plain"], script) as sent:
        assert (await store.delete(plain("a"))).gone == frozenset(plain("a"))
    assert operations(sent) == ["GetBucketVersioning", "ListObjectVersions"]


async def test_an_object_is_gone_when_its_copies_are(store: ObjectStore) -> None:
    refs = [ObjectRef("main", key) for key in ("a", "b")]

    def script(sent: Sent) -> tuple[int, str]:
        if sent.operation == "GetBucketVersioning":
            return versioning(None)
        if sent.operation == "HeadObject":
            return refusal(404, "404") if "/main/" in sent.url or "/a" in sent.url else (200, "")
        return errors(("b", "AccessDenied")) if "/copy" in sent.url else errors()

    with scripted(store, ["main", "copy"], script) as sent:
        deletion = await store.delete(refs)
        assert await store.remaining(refs) == {refs[1]}
    assert deletion.gone == {refs[0]}
    assert deletion.failed == {refs[1]: "AccessDenied"}
    pages = {one.url.split("/")[3].partition("?")[0] for one in sent if one.keys}
    assert pages == {"main", "copy"}


async def test_what_is_missing_is_told_of_buckets_that_count_it(store: ObjectStore) -> None:
    def script(sent: Sent) -> tuple[int, str]:
        if sent.operation == "GetBucketVersioning":
            return versioning(None)
        return (200, "") if "/there" in sent.url else refusal(404, "404")

    with scripted(store, ["plain", "main"], script) as sent:
        refs = [*plain("there", "absent"), ObjectRef("main", "absent"), ObjectRef("nowhere", "x")]
        assert await store.missing(refs) == {ObjectRef("plain", "absent")}
    assert all("/plain" in one.url for one in sent)


async def test_a_throttled_prefix_is_slowed_down_and_told(store: ObjectStore) -> None:
    answers = iter([refusal(503, "SlowDown"), errors(("a/1", "SlowDown")), errors()])

    def script(sent: Sent) -> tuple[int, str]:
        return versioning(None) if sent.operation == "GetBucketVersioning" else next(answers)

    with scripted(store, ["plain"], script):
        assert (await store.delete(plain("a/1", "a/2"))).gone == frozenset(plain("a/1", "a/2"))
    assert throttled == [("plain", 1)] * 3
    assert noted["SlowDown"] == 2


async def test_the_few_keys_of_a_folder_are_listed_together_and_not_much_else(
    store: ObjectStore,
) -> None:
    folders = {f"e/{number}/": [f"e/{number}/{page}.png" for page in "123"] for number in (4, 5)}
    crowded, first, last = "r/", "r/a.png", "r/z.png"

    def script(sent: Sent) -> tuple[int, str]:
        if sent.operation == "GetBucketVersioning":
            return versioning("Enabled")
        prefix = parse_qs(sent.url.partition("?")[2])["prefix"][0]
        if prefix in folders:
            return listing(*(("Version", key, "1") for key in folders[prefix]))
        if prefix == crowded:
            status, body = listing(("Version", first, "1"), ("Version", "r/b.png", "1"))
            return status, body.replace(
                "<IsTruncated>false", "<NextKeyMarker>r/b.png</NextKeyMarker><IsTruncated>true"
            )
        assert prefix == last
        return listing(("Version", last, "1"), ("Version", f"{last}.bak", "1"))

    keys = [*(key for some in folders.values() for key in some), first, last, "alone.png", "top"]
    listed = {*keys} - {"alone.png", "top"}

    def answer(sent: Sent) -> tuple[int, str]:
        if any(f"prefix={key}" in sent.url for key in ("alone.png", "top")):
            return listing()
        return script(sent)

    with scripted(store, ["plain"], answer) as sent:
        assert await store.remaining(plain(*keys)) == frozenset(plain(*listed))
    asked = [parse_qs(one.url.partition("?")[2]) for one in sent[1:]]
    sizes = {one["prefix"][0]: one.get("max-keys", ["1000"])[0] for one in asked}
    assert len(asked) == len(sizes)
    assert sizes == {
        "e/4/": "48", "e/5/": "48", "r/": "32",
        "r/z.png": "1000", "alone.png": "1000", "top": "1000",
    }  # fmt: skip


async def test_an_empty_page_is_not_the_end_of_a_listing(store: ObjectStore) -> None:
    """S3 may answer with fewer entries than there are, and with none."""
    more = "<IsTruncated>true</IsTruncated><NextKeyMarker>f/2</NextKeyMarker>"
    whole = "<IsTruncated>false</IsTruncated>"
    found = "<Version><Key>f/3</Key><VersionId>1</VersionId></Version>"

    def script(sent: Sent) -> tuple[int, str]:
        if sent.operation == "GetBucketVersioning":
            return versioning("Enabled")
        said = whole + found if "key-marker=f/2" in sent.url else more
        return 200, f"<ListVersionsResult>{said}</ListVersionsResult>"

    with scripted(store, ["plain"], script):
        assert await store.remaining(plain("f/3")) == frozenset(plain("f/3"))
        assert await store.remaining(plain("f/1", "f/3")) == frozenset(plain("f/3"))


async def test_an_empty_page_of_keys_is_not_the_end_either(store: ObjectStore) -> None:
    keys = [f"f/{number}" for number in range(9)]
    contents = "".join(f"<Contents><Key>{key}</Key></Contents>" for key in keys)

    def script(sent: Sent) -> tuple[int, str]:
        if sent.operation == "GetBucketVersioning":
            return versioning(None)
        assert sent.operation == "ListObjectsV2"
        more = "<IsTruncated>true</IsTruncated><NextContinuationToken>t</NextContinuationToken>"
        said = f"<IsTruncated>false</IsTruncated>{contents}" if "token=t" in sent.url else more
        return 200, f"<ListBucketResult>{said}</ListBucketResult>"

    with scripted(store, ["plain"], script):
        assert await store.remaining(plain(*keys)) == frozenset(plain(*keys))


async def test_a_call_that_a_server_does_not_have_is_refused_and_no_outage(
    store: ObjectStore,
) -> None:
    def script(sent: Sent) -> tuple[int, str]:
        if sent.operation == "GetBucketVersioning":
            return refusal(501, "NotImplemented")
        return listing()

    with scripted(store, ["plain"], script) as sent:
        assert await store.remaining(plain("a")) == frozenset()
    # Nobody says whether it keeps versions: it may.
    assert operations(sent) == ["GetBucketVersioning", "ListObjectVersions"]


async def test_tags_are_added_to_what_is_there_version_by_version(store: ObjectStore) -> None:
    tags = {
        "old": "<Tag><Key>a</Key><Value>b</Value></Tag>",
        "new": "<Tag><Key>erase</Key><Value>yes</Value></Tag>",
        "full": "".join(f"<Tag><Key>{n}</Key><Value>x</Value></Tag>" for n in range(10)),
    }

    def script(sent: Sent) -> tuple[int, str]:
        key = sent.url.split("/tagged/")[-1].partition("?")[0]
        match sent.operation:
            case "GetBucketVersioning":
                return versioning("Enabled")
            case "ListObjectVersions":
                return listing(
                    ("Version", "old", "1"), ("DeleteMarker", "old", "2"),
                    ("Version", "new", "1"), ("Version", "new", "2"),
                    ("Version", "full", "1"), ("DeleteMarker", "bare", "1"),
                )  # fmt: skip
            case "GetObjectTagging":
                return 200, f"<Tagging><TagSet>{tags[key]}</TagSet></Tagging>"
            case _:
                assert sent.operation == "PutObjectTagging"
                return 200, ""

    keys = ["old", "new", "full", "bare", "absent"]
    refs = {key: ObjectRef("tagged", key) for key in keys}
    with scripted(store, ["tagged"], script) as sent:
        deletion = await store.delete(refs.values())
        # A marker alone holds nothing: what cannot be tagged is not waited for either.
        left = await store.remaining(refs.values())
    assert left == {refs["old"], refs["new"], refs["full"]}
    assert deletion.scheduled == {refs["old"], refs["new"]}
    assert deletion.failed == {refs["full"]: "TagLimit"}
    assert deletion.gone == {refs["bare"], refs["absent"]}
    [written] = [one for one in sent if one.operation == "PutObjectTagging"]
    assert "versionId=1" in written.url
    assert written.keys == ["a", "erase"]
    assert "DeleteObjects" not in operations(sent)


async def test_a_key_that_s3_stumbles_over_is_refused_and_no_outage(store: ObjectStore) -> None:
    odd = [f"{n}\x00.png" for n in range(FAILURES)]

    def script(sent: Sent) -> tuple[int, str]:
        if sent.operation == "GetBucketVersioning":
            return versioning(None)
        return refusal(500, "InternalError") if "\x00" in sent.url else errors()

    with scripted(store, ["plain"], script):
        deletion = await store.delete(plain("a", *odd))
        assert await store.remaining(plain(odd[0])) == frozenset(plain(odd[0]))
        with pytest.raises(ObjectRefusedError, match="InternalError"):
            async with store.stream(plain(odd[0])[0], 1):
                pass
    assert deletion.gone == frozenset(plain("a"))
    assert deletion.failed == dict.fromkeys(plain(*odd), "InternalError")
    assert states == [("s3 us-east-1", False)], "the circuit stayed closed"


async def test_while_nothing_answers_no_key_is_to_blame(store: ObjectStore) -> None:
    def script(sent: Sent) -> tuple[int, str]:
        said = versioning(None) if sent.operation == "GetBucketVersioning" else None
        return said or refusal(500, "InternalError")

    with (
        scripted(store, ["plain"], script),
        pytest.raises(ObjectStoreUnavailableError, match="InternalError"),
    ):
        await store.delete(plain("\x00.png"))


async def test_an_open_circuit_sends_nothing_and_is_told(store: ObjectStore) -> None:
    with scripted(store, ["plain"], lambda _: refusal(500, "InternalError")) as sent:
        for _ in range(FAILURES // 5):
            with pytest.raises(ObjectStoreUnavailableError, match="InternalError"):
                await store.delete(plain("a"))
        assert len(sent) == FAILURES
        with pytest.raises(CircuitOpenError):
            await store.remaining(plain("a"))
        assert len(sent) == FAILURES
    assert states == [("s3 us-east-1", False), ("s3 us-east-1", True)]


async def test_a_circuit_closes_with_the_first_call_that_succeeds_after_its_time() -> None:
    is_away = True

    def script(sent: Sent) -> tuple[int, str]:
        if is_away:
            return refusal(500, "InternalError")
        return versioning(None) if sent.operation == "GetBucketVersioning" else errors()

    async with open_store(breaker_seconds=0) as store:
        with scripted(store, ["plain"], script):
            for _ in range(FAILURES // 5):
                with pytest.raises(ObjectStoreUnavailableError):
                    await store.delete(plain("a"))
            assert states[-1] == ("s3 us-east-1", True)
            is_away = False
            assert (await store.delete(plain("a"))).gone == frozenset(plain("a"))
    assert states[-1] == ("s3 us-east-1", False)


@pytest.mark.parametrize("answer", [refusal(503, "SlowDown"), refusal(403, "AccessDenied")])
async def test_a_refusal_and_a_request_to_slow_down_are_answers(
    store: ObjectStore, answer: tuple[int, str]
) -> None:
    def script(sent: Sent) -> tuple[int, str]:
        return versioning(None) if sent.operation == "GetBucketVersioning" else answer

    with scripted(store, ["plain"], script):
        for _ in range(FAILURES):
            with suppress(ObjectStoreUnavailableError):
                await store.delete(plain("a"))
    assert states == [("s3 us-east-1", False)]


GOOD_RULE = """<Rule><ID>e</ID><Status>Enabled</Status>
  <Filter><Tag><Key>erase</Key><Value>yes</Value></Tag></Filter>
  <Expiration><Days>1</Days></Expiration>
  <NoncurrentVersionExpiration><NoncurrentDays>1</NoncurrentDays></NoncurrentVersionExpiration>
</Rule>"""
GOOD_POLICY = {
    "Effect": "Deny",
    "Principal": "*",
    "Action": ["s3:GetObject", "s3:GetObjectVersion"],
    "Resource": "arn:aws:s3:::tagged/*",
    "Condition": {"StringEquals": {"s3:ExistingObjectTag/erase": "yes"}},
}


def fit(rule: str, statement: dict[str, Any]) -> Script:
    def script(sent: Sent) -> tuple[int, str]:
        match sent.operation:
            case "HeadObject":
                return refusal(404, "404")
            case "ListObjectVersions":
                return listing()
            case "GetBucketVersioning":
                return versioning("Enabled")
            case "GetBucketLifecycleConfiguration":
                return 200, f"<LifecycleConfiguration>{rule}</LifecycleConfiguration>"
            case _:
                return 200, json.dumps({"Version": "2012-10-17", "Statement": [statement]})

    return script


@pytest.mark.parametrize(
    "written",
    [{}, {"Action": "s3:getobject*"}, {"Resource": "arn:aws-cn:s3:::tagged/*"}],
    ids=["plain", "pattern", "another partition"],
)
async def test_buckets_that_are_as_they_must_be_are_not_complained_of(
    store: ObjectStore, written: dict[str, Any]
) -> None:
    with scripted(store, list(BUCKETS), fit(GOOD_RULE, GOOD_POLICY | written)):
        await store.check()


@pytest.mark.parametrize(
    ("rule", "statement", "says"),
    [
        (GOOD_RULE.replace("Enabled", "Disabled"), {}, "no lifecycle rule expires"),
        (GOOD_RULE.replace("yes", "no"), {}, "no lifecycle rule expires"),
        (GOOD_RULE.replace("NoncurrentV", "V"), {}, "NoncurrentVersionExpiration"),
        (
            GOOD_RULE.replace(
                "</NoncurrentDays>",
                "</NoncurrentDays><NewerNoncurrentVersions>5</NewerNoncurrentVersions>",
            ),
            {},
            "NoncurrentVersionExpiration",
        ),
        (GOOD_RULE, {"Action": "s3:GetObject"}, "denies everybody s3:GetObjectVersion on"),
        (
            GOOD_RULE.replace("<Tag>", "<And><Prefix>p/</Prefix><Tag>").replace(
                "</Tag>", "</Tag></And>"
            ),
            {},
            "no lifecycle rule expires",
        ),
        (GOOD_RULE, {"Effect": "Allow"}, "no bucket policy denies"),
        (GOOD_RULE, {"Principal": {"AWS": "arn:aws:iam::1:root"}}, "no bucket policy denies"),
        (GOOD_RULE, {"Action": "s3:PutObject"}, "no bucket policy denies"),
        (GOOD_RULE, {"Resource": "arn:aws:s3:::tagged/p/*"}, "no bucket policy denies"),
        (GOOD_RULE, {"Condition": {}}, "no bucket policy denies"),
    ],
)
async def test_tagging_is_proven_to_hide_and_to_remove(
    store: ObjectStore, rule: str, statement: dict[str, Any], says: str
) -> None:
    with scripted(store, list(BUCKETS), fit(rule, GOOD_POLICY | statement)):
        problems = await store.problems()
    assert [problem for problem in problems if says in problem]
    assert all(problem.startswith("bucket tagged: ") for problem in problems)


async def test_a_bucket_in_which_absent_looks_like_forbidden_is_refused(
    store: ObjectStore,
) -> None:
    def script(sent: Sent) -> tuple[int, str]:
        is_blind = sent.operation == "HeadObject" and "/main/" in sent.url
        return refusal(403, "403") if is_blind else fit(GOOD_RULE, GOOD_POLICY)(sent)

    with scripted(store, list(BUCKETS), script), pytest.raises(BucketsUnfitError) as caught:
        await store.check()
    [problem] = caught.value.problems
    assert problem.startswith("bucket main: grant s3:ListBucket")


async def test_at_aws_a_bucket_without_an_owner_is_refused() -> None:
    aws = S3Options(access_key_id="k", secret_access_key=SecretStr("s"))
    async with ObjectStore(aws, {"mine": Bucket("mine")}, wait_seconds=0) as store:
        with scripted(store, ["mine"], fit(GOOD_RULE, GOOD_POLICY)):
            [problem] = await store.problems()
    assert problem.startswith("bucket mine: whose it is must be known")


@pytest.mark.parametrize("body", ["", "<html><body>Please log in.</body></html>"])
@pytest.mark.parametrize(
    "doubted", ["DeleteObjects", "GetBucketVersioning", "ListObjectVersions", "ListObjectsV2"]
)
async def test_a_success_that_s3_did_not_write_proves_nothing(
    store: ObjectStore, doubted: str, body: str
) -> None:
    """As of a proxy: nothing stands in it as refused, or as there."""
    answers = {
        "DeleteObjects": errors(),
        "GetBucketVersioning": versioning(None),
        "ListObjectVersions": listing(),
        "ListObjectsV2": (200, "<ListBucketResult/>"),
    }
    with scripted(store, ["plain"], lambda sent: answers[sent.operation]):

        async def all_of_it() -> None:
            for state in (None, "Enabled"):
                if doubted != "GetBucketVersioning":
                    answers["GetBucketVersioning"] = versioning(state)
                store.look_anew()
                await store.delete(plain("a"))
                assert not await store.remaining(plain(*(f"f/{n}" for n in range(9))))

        await all_of_it()
        answers[doubted] = (200, body)
        with pytest.raises(ObjectStoreUnavailableError, match="500"):
            await all_of_it()

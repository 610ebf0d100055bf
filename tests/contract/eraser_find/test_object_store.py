"""What every S3 server must be to the object store."""

from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import uuid4

import pytest
from pydantic import SecretStr

from lethe_eraser.catalog import Bucket
from lethe_eraser.domain import ObjectRef
from lethe_eraser.objects import (
    ObjectMissingError,
    ObjectRefusedError,
    ObjectStore,
    ObjectTooLargeError,
    S3Options,
)
from lethe_sandbox.stack import S3Address

BucketFactory = Callable[..., str]


def options_of(s3: S3Address) -> S3Options:
    return S3Options(
        region=s3.region,
        endpoint_url=s3.endpoint,
        access_key_id=s3.access_key_id,
        secret_access_key=SecretStr(s3.secret_access_key),
    )


@pytest.fixture
def plain(bucket: BucketFactory) -> str:
    return bucket()


@pytest.fixture
def versioned(bucket: BucketFactory) -> str:
    return bucket(versioned=True)


@pytest.fixture
async def store(s3: S3Address, plain: str, versioned: str) -> AsyncIterator[ObjectStore]:
    async with ObjectStore(
        options_of(s3), {name: Bucket(name) for name in (plain, versioned)}
    ) as opened:
        yield opened


def put(s3: S3Address, bucket: str, keys: list[str]) -> list[ObjectRef]:
    client = s3.client()
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda key: client.put_object(Bucket=bucket, Key=key, Body=b"x"), keys))
    return [ObjectRef(bucket, key) for key in keys]


def keys(s3: S3Address, bucket: str) -> list[str]:
    return [
        entry["Key"] for entry in s3.client().list_objects_v2(Bucket=bucket).get("Contents", [])
    ]


def versions(s3: S3Address, bucket: str) -> list[tuple[str, bool]]:
    answer: Any = s3.client().list_object_versions(Bucket=bucket)
    listed = [(entry["Key"], False) for entry in answer.get("Versions", [])]
    return sorted(listed + [(entry["Key"], True) for entry in answer.get("DeleteMarkers", [])])


ODD = [
    "a b+c%25é한글&\"'<>.jpg",
    "a//b.jpg",
    "./dot.jpg",
    "a/./b.jpg",
    "a/../b.jpg",
    "/lead.jpg",
    "trail/",
    "r\rn.jpg",
    "x" * 1000,
    "e\u0301.jpg",
    "é.jpg",
]


async def test_objects_are_deleted_and_nothing_else(
    store: ObjectStore, s3: S3Address, plain: str
) -> None:
    refs = put(s3, plain, [f"mine/{i}.png" for i in range(300)])
    others = put(s3, plain, ["mine/1.png.bak", "mine", "theirs/1.png"])
    assert await store.remaining([*refs, *others]) == frozenset([*refs, *others])
    absent = ObjectRef(plain, "mine/never.png")
    deletion = await store.delete([*refs, absent])
    assert deletion.gone == {*refs, absent}
    assert not deletion.failed
    assert await store.remaining([*refs, *others, absent]) == frozenset(others)
    assert sorted(keys(s3, plain)) == ["mine", "mine/1.png.bak", "theirs/1.png"]


async def test_odd_keys_are_keys(store: ObjectStore, s3: S3Address, plain: str) -> None:
    refs = put(s3, plain, ODD)
    assert await store.remaining(refs) == frozenset(refs)
    assert (await store.delete(refs[:-1])).gone == frozenset(refs[:-1])
    assert await store.remaining(refs) == {refs[-1]}


async def test_every_version_of_exactly_the_key_goes(
    store: ObjectStore, s3: S3Address, versioned: str
) -> None:
    for _ in range(3):
        put(s3, versioned, ["a/1.jpg", "a/1.jpg.bak", "b"])
    s3.client().delete_object(Bucket=versioned, Key="a/1.jpg")
    ref = ObjectRef(versioned, "a/1.jpg")
    assert await store.remaining([ref]) == {ref}
    assert (await store.delete([ref, ObjectRef(versioned, "never")])).failed == {}
    assert await store.remaining([ref]) == frozenset()
    assert versions(s3, versioned) == [("a/1.jpg.bak", False)] * 3 + [("b", False)] * 3


async def test_suspended_versioning_hides_no_version(
    store: ObjectStore, s3: S3Address, versioned: str
) -> None:
    refs = put(s3, versioned, ["k", "k"])
    s3.client().put_bucket_versioning(
        Bucket=versioned, VersioningConfiguration={"Status": "Suspended"}
    )
    assert len(versions(s3, versioned)) == 2
    await store.delete(refs)
    assert versions(s3, versioned) == []


async def test_the_keys_of_a_crowded_folder_are_found_however_many_are_asked_for(
    store: ObjectStore, s3: S3Address, versioned: str, plain: str
) -> None:
    names = [f"d/{i:04}" for i in range(1100)]
    for bucket in (plain, versioned):
        refs = put(s3, bucket, names)
        few, many = refs[::110], [*refs[::3], refs[-1]]
        absent = [ObjectRef(bucket, f"{name}x") for name in names[::22]]
        assert await store.remaining([*few, *absent[::5]]) == frozenset(few)
        assert await store.remaining([*many, *absent]) == frozenset(many)
        assert (await store.delete(many)).gone == frozenset(many)
        assert await store.remaining(refs) == frozenset(refs) - frozenset(many)


async def test_a_locked_version_is_refused_by_its_key_alone(s3: S3Address) -> None:
    client, name = s3.client(), f"locked-{uuid4().hex}"
    client.create_bucket(
        Bucket=name,
        ObjectLockEnabledForBucket=True,
        CreateBucketConfiguration={"LocationConstraint": s3.region},  # type: ignore[typeddict-item]  # the stubs list regions
    )
    locked, free = put(s3, name, ["locked", "free"])
    client.put_object_legal_hold(Bucket=name, Key="locked", LegalHold={"Status": "ON"})
    async with ObjectStore(options_of(s3), {name: Bucket(name)}) as store:
        deletion = await store.delete([locked, free])
        assert deletion.gone == {free}
        assert set(deletion.failed) == {locked}
        assert await store.remaining([locked, free]) == {locked}


async def test_reading_finds_the_newest_version_that_holds_data(
    store: ObjectStore, s3: S3Address, versioned: str, plain: str
) -> None:
    client = s3.client()
    for body in (b"first", b"second"):
        client.put_object(Bucket=versioned, Key="m", Body=body)
    ref = ObjectRef(versioned, "m")
    assert await store.read(ref, 100) == b"second"
    client.delete_object(Bucket=versioned, Key="m")
    assert await store.read(ref, 100) == b"second"
    with pytest.raises(ObjectTooLargeError):
        await store.read(ref, 5)
    await store.delete([ref])
    for missing in (ref, ObjectRef(plain, "never")):
        with pytest.raises(ObjectMissingError):
            await store.read(missing, 100)
    with pytest.raises(ObjectRefusedError):
        await store.read(ObjectRef("not-in-the-catalog", "k"), 100)


async def test_a_bucket_that_does_not_exist_never_looks_like_success(s3: S3Address) -> None:
    async with ObjectStore(options_of(s3), {"nowhere": Bucket("nowhere")}) as store:
        ref = ObjectRef("nowhere", "k")
        assert (await store.delete([ref])).failed == {ref: "NoSuchBucket"}
        assert await store.remaining([ref]) == {ref}

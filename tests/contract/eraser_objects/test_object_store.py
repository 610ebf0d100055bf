"""What every S3 server must be to the object store."""

from collections.abc import Sequence

import pytest

from lethe_eraser.catalog import Bucket
from lethe_eraser.domain import ObjectRef
from lethe_eraser.objects import (
    ObjectMissingError,
    ObjectRefusedError,
    ObjectStore,
    ObjectTooLargeError,
)
from lethe_eraser.objects.calls import S3Calls
from lethe_eraser.objects.listing import Seen, sweep_versions
from lethe_sandbox.stack import S3Address
from tests.support.factories import BucketFactory
from tests.support.s3_objects import keys, options_of, put, versions

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
    store: ObjectStore, server: S3Address, plain: str
) -> None:
    refs = put(server, plain, [f"mine/{i}.png" for i in range(300)])
    others = put(server, plain, ["mine/1.png.bak", "mine.png", "theirs/1.png"])
    assert await store.remaining([*refs, *others]) == frozenset([*refs, *others])
    absent = ObjectRef(plain, "mine/never.png")
    deletion = await store.delete([*refs, absent])
    assert deletion.gone == {*refs, absent}
    assert not deletion.failed
    assert await store.remaining([*refs, *others, absent]) == frozenset(others)
    assert sorted(keys(server, plain)) == ["mine.png", "mine/1.png.bak", "theirs/1.png"]


async def test_odd_keys_are_keys(s3: S3Address, bucket: BucketFactory) -> None:
    # versitygw folds some of them into other keys, so they are moto's alone.
    name = bucket()
    async with ObjectStore(options_of(s3), {name: Bucket(name)}) as store:
        refs = put(s3, name, ODD)
        assert await store.remaining(refs) == frozenset(refs)
        assert (await store.delete(refs[:-1])).gone == frozenset(refs[:-1])
        assert await store.remaining(refs) == {refs[-1]}


async def test_versions_that_hold_data_are_told_newest_first(
    store: ObjectStore, server: S3Address, versioned: str, plain: str
) -> None:
    for _ in range(3):
        put(server, versioned, ["m.json", "m.json.bak"])
    server.client().delete_object(Bucket=versioned, Key="m.json")
    alone = put(server, plain, ["m.json"])[0]
    ref, absent = ObjectRef(versioned, "m.json"), ObjectRef(versioned, "never.json")
    found = await store.versions([ref, absent, alone])
    listed = server.client().list_object_versions(Bucket=versioned, Prefix="m.json")["Versions"]
    theirs = [one for one in listed if one["Key"] == "m.json"]
    assert [one.version for one in found[ref]] == [one["VersionId"] for one in theirs]
    assert len(found[ref]) == 3
    assert found[absent] == ()
    assert found[alone] == (alone,)
    assert await store.versions(found[ref]) == {one: (one,) for one in found[ref]}


async def test_every_version_of_exactly_the_key_goes(
    store: ObjectStore, server: S3Address, versioned: str
) -> None:
    for _ in range(3):
        put(server, versioned, ["a/1.jpg", "a/1.jpg.bak", "b"])
    server.client().delete_object(Bucket=versioned, Key="a/1.jpg")
    ref = ObjectRef(versioned, "a/1.jpg")
    assert await store.remaining([ref]) == {ref}
    assert (await store.delete([ref, ObjectRef(versioned, "never")])).failed == {}
    assert await store.remaining([ref]) == frozenset()
    assert versions(server, versioned) == [("a/1.jpg.bak", False)] * 3 + [("b", False)] * 3


async def test_suspended_versioning_hides_no_version(
    store: ObjectStore, server: S3Address, versioned: str
) -> None:
    refs = put(server, versioned, ["k", "k"])
    server.client().put_bucket_versioning(
        Bucket=versioned, VersioningConfiguration={"Status": "Suspended"}
    )
    assert len(versions(server, versioned)) == 2
    await store.delete(refs)
    assert versions(server, versioned) == []


async def test_the_keys_of_a_crowded_folder_are_found_however_many_are_asked_for(
    store: ObjectStore,
    server: S3Address,
    versioned: str,
    plain: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    names = [f"d/{i:04}" for i in range(1100)]
    alone: list[object] = []

    def listed(calls: S3Calls, bucket: str, keys: Sequence[str]) -> Seen:
        alone.extend(keys if len(keys) == 1 else ())
        return sweep_versions(calls, bucket, keys)

    monkeypatch.setattr("lethe_eraser.objects.looking.sweep_versions", listed)
    monkeypatch.setattr("lethe_eraser.objects.looking.has_key", lambda *asked: alone.append(asked))
    for bucket in (plain, versioned):
        refs = put(server, bucket, names)
        behind_a_page_of_others = refs[999::4]
        found = await store.remaining(behind_a_page_of_others)
        assert found == frozenset(behind_a_page_of_others)
    assert alone == []
    monkeypatch.undo()
    for bucket in (plain, versioned):
        refs = [ObjectRef(bucket, name) for name in names]
        few, many = refs[::110], [*refs[::3], refs[-1]]
        absent = [ObjectRef(bucket, f"{name}x") for name in names[::22]]
        assert await store.remaining([*few, *absent[::5]]) == frozenset(few)
        assert await store.remaining([*many, *absent]) == frozenset(many)
        assert (await store.delete(many)).gone == frozenset(many)
        assert await store.remaining(refs) == frozenset(refs) - frozenset(many)


async def test_the_few_keys_of_many_small_folders_are_found_and_go(
    store: ObjectStore, server: S3Address, versioned: str, plain: str
) -> None:
    wanted = [f"e/{number}/{page}.png" for number in range(1, 5) for page in range(1, 4)]
    others = [*(f"{name}.bak" for name in wanted), *(f"e/1/{n}x.png" for n in range(60))]
    for bucket in (plain, versioned):
        refs, left = put(server, bucket, wanted), put(server, bucket, others)
        absent = [ObjectRef(bucket, f"e/{number}/9.png") for number in range(1, 7)]
        put(server, bucket, wanted[:2])  # a second version, where there are any
        assert await store.remaining([*refs, *absent]) == frozenset(refs)
        assert (await store.delete(refs)).gone == frozenset(refs)
        assert await store.remaining([*refs, *left]) == frozenset(left)


async def test_a_locked_version_is_refused_by_its_key_alone(
    server: S3Address, make_bucket: BucketFactory
) -> None:
    name = make_bucket(locked=True)
    locked, free = put(server, name, ["locked", "free"])
    server.client().put_object_legal_hold(Bucket=name, Key="locked", LegalHold={"Status": "ON"})
    async with ObjectStore(options_of(server), {name: Bucket(name)}) as store:
        deletion = await store.delete([locked, free])
        assert deletion.gone == {free}
        assert set(deletion.failed) == {locked}
        assert await store.remaining([locked, free]) == {locked}


async def test_reading_finds_the_newest_version_that_holds_data(
    store: ObjectStore, server: S3Address, versioned: str, plain: str
) -> None:
    client = server.client()
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


async def test_a_bucket_that_does_not_exist_never_looks_like_success(server: S3Address) -> None:
    async with ObjectStore(options_of(server), {"nowhere": Bucket("nowhere")}) as store:
        ref = ObjectRef("nowhere", "k")
        assert (await store.delete([ref])).failed == {ref: "NoSuchBucket"}
        assert await store.remaining([ref]) == {ref}

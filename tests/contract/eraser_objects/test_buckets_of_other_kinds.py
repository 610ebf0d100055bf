"""Owners, tags, copies and locks, on both servers as far as they play AWS."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from lethe_eraser.catalog import Bucket
from lethe_eraser.domain import ObjectRef
from lethe_eraser.objects import BucketsUnfitError, ObjectStore
from lethe_sandbox.stack import S3Address
from lethe_sandbox.stack.embedded.versitygw import ACCOUNT
from tests.support.factories import BucketFactory, make_buckets
from tests.support.s3_objects import keys, options_of, put, versions

STRANGER = "999999999999"


async def test_the_right_owner_is_let_in(server: S3Address, plain: str, versioned: str) -> None:
    buckets = {name: Bucket(name, owner=ACCOUNT) for name in (plain, versioned)}
    refs = [ref for name in buckets for ref in put(server, name, ["a", "b/c"])]
    async with ObjectStore(options_of(server), buckets) as store:
        await store.check()
        assert (await store.delete(refs)).gone == frozenset(refs)
        assert await store.remaining(refs) == frozenset()


async def test_a_bucket_that_is_anothers_is_never_touched(versitygw: S3Address) -> None:
    # moto takes any owner; what we send is asserted where requests are scripted.
    for is_versioned in (False, True):
        name = make_buckets(versitygw)(versioned=is_versioned)
        refs = put(versitygw, name, ["a"])
        async with ObjectStore(
            options_of(versitygw), {name: Bucket(name, owner=STRANGER)}
        ) as store:
            assert set((await store.delete(refs)).failed) == set(refs)
            assert await store.remaining(refs) == frozenset(refs)
            with pytest.raises(BucketsUnfitError):
                await store.check()
        assert keys(versitygw, name) == ["a"]


async def test_a_null_version_under_suspension_goes_with_the_older_ones(
    server: S3Address, store: ObjectStore, versioned: str
) -> None:
    client = server.client()
    put(server, versioned, ["k", "k.bak"])
    client.put_bucket_versioning(Bucket=versioned, VersioningConfiguration={"Status": "Suspended"})
    [ref] = put(server, versioned, ["k"])
    client.delete_object(Bucket=versioned, Key="k")
    client.put_object(Bucket=versioned, Key="k", Body=b"anew")
    assert (await store.delete([ref])).gone == {ref}
    assert versions(server, versioned) == [("k.bak", False)]


async def test_one_version_goes_alone_if_the_reference_names_it(
    server: S3Address, store: ObjectStore, versioned: str
) -> None:
    client = server.client()
    first, second = (
        client.put_object(Bucket=versioned, Key="k", Body=body)["VersionId"]
        for body in (b"1", b"2")
    )
    ref = ObjectRef(versioned, "k", first)
    assert await store.remaining([ref]) == {ref}
    assert (await store.delete([ref])).gone == {ref}
    assert await store.remaining([ref]) == frozenset()
    assert await store.remaining([ObjectRef(versioned, "k", second)])


async def test_tags_join_those_that_are_there_in_every_version(
    server: S3Address, make_bucket: BucketFactory
) -> None:
    client, name = server.client(), make_bucket(versioned=True)
    ids = [client.put_object(Bucket=name, Key="k", Body=b"x")["VersionId"] for _ in range(2)]
    client.put_object_tagging(
        Bucket=name, Key="k", VersionId=ids[0], Tagging={"TagSet": [{"Key": "a", "Value": "b"}]}
    )
    ref, absent = ObjectRef(name, "k"), ObjectRef(name, "absent")
    buckets = {name: Bucket(name, tag=("lethe-erase", "yes"))}
    async with ObjectStore(options_of(server), buckets) as store:
        for _ in range(2):
            deletion = await store.delete([ref, absent])
            assert deletion.scheduled == {ref}
            assert deletion.gone == {absent}
        assert await store.remaining([ref, absent]) == {ref}
    found = [
        {tag["Key"]: tag["Value"] for tag in answer["TagSet"]}
        for answer in (client.get_object_tagging(Bucket=name, Key="k", VersionId=i) for i in ids)
    ]
    assert found == [{"a": "b", "lethe-erase": "yes"}, {"lethe-erase": "yes"}]


async def test_the_tags_of_what_is_there_are_told_and_a_refusal_is_no_answer(
    server: S3Address, make_bucket: BucketFactory
) -> None:
    client, name = server.client(), make_bucket(versioned=True)
    tagged, plain, absent = [*put(server, name, ["tagged", "plain"]), ObjectRef(name, "absent")]
    client.put_object_tagging(
        Bucket=name, Key="tagged", Tagging={"TagSet": [{"Key": "kind", "Value": "template"}]}
    )
    nowhere = ObjectRef(f"{name}-nowhere", "k")
    buckets = {one: Bucket(one) for one in (name, nowhere.bucket)}
    async with ObjectStore(options_of(server), buckets) as store:
        assert await store.tags([tagged, plain, absent, nowhere]) == {
            tagged: {"kind": "template"},
            plain: {},
            absent: {},
            nowhere: None,
        }


async def test_an_eleventh_tag_is_refused_and_nothing_is_lost(
    server: S3Address, make_bucket: BucketFactory
) -> None:
    client, name = server.client(), make_bucket()
    [ref] = put(server, name, ["k"])
    ten: Any = [{"Key": f"t{number}", "Value": "v"} for number in range(10)]
    client.put_object_tagging(Bucket=name, Key="k", Tagging={"TagSet": ten})
    async with ObjectStore(options_of(server), {name: Bucket(name, tag=("e", "y"))}) as store:
        assert (await store.delete([ref])).failed == {ref: "TagLimit"}
    assert len(client.get_object_tagging(Bucket=name, Key="k")["TagSet"]) == 10


async def test_copies_go_with_the_original(
    server: S3Address, make_bucket: BucketFactory, plain: str
) -> None:
    copies = make_bucket(versioned=True)
    [ref] = put(server, plain, ["a/1.png"])
    put(server, copies, ["a/1.png", "a/1.png", "a/1.png.bak"])
    buckets = {plain: Bucket(plain, replicas=(copies,)), copies: Bucket(copies)}
    async with ObjectStore(options_of(server), buckets) as store:
        assert (await store.delete([ref])).gone == {ref}
        assert versions(server, copies) == [("a/1.png.bak", False)]
        put(server, copies, ["a/1.png"])
        assert await store.remaining([ref]) == {ref}


async def test_what_is_missing_is_told_before_it_is_deleted(
    server: S3Address, plain: str, versioned: str
) -> None:
    buckets = {name: Bucket(name, count_missing=True) for name in (plain, versioned)}
    for name in buckets:
        there = put(server, name, [f"d/{number}" for number in range(20)])
        absent = [ObjectRef(name, f"d/{number}x") for number in range(20)]
        async with ObjectStore(options_of(server), buckets) as store:
            assert await store.missing([*there, *absent]) == frozenset(absent)


@pytest.mark.parametrize("mode", ["GOVERNANCE", "COMPLIANCE"])
async def test_a_retention_is_recognised_with_its_end(versitygw: S3Address, mode: str) -> None:
    # moto has no GetObjectRetention.
    client, name = versitygw.client(), make_buckets(versitygw)(locked=True)
    locked, free = put(versitygw, name, ["locked", "free"])
    until = datetime.now(UTC).replace(microsecond=0) + timedelta(days=3)
    retention: Any = {"Mode": mode, "RetainUntilDate": until}
    client.put_object_retention(Bucket=name, Key="locked", Retention=retention)
    async with ObjectStore(options_of(versitygw), {name: Bucket(name)}) as store:
        deletion = await store.delete([locked, free])
    assert deletion.gone == {free}
    assert deletion.failed == {locked: "ObjectLocked"}
    assert deletion.locked_until == {locked: until}


async def test_a_bucket_that_is_not_there_is_refused_at_start(server: S3Address) -> None:
    async with ObjectStore(options_of(server), {"nowhere-at-all": Bucket("nowhere-at-all")}) as s:
        with pytest.raises(BucketsUnfitError, match="nowhere-at-all"):
            await s.check()

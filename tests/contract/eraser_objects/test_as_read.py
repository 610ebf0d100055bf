"""An object that others are found through goes as it was read, or stays."""

from collections.abc import Sequence
from typing import Any

import pytest

from lethe_eraser.catalog import Bucket
from lethe_eraser.domain import ObjectRef
from lethe_eraser.objects import REWRITTEN, Held, ObjectStore
from lethe_sandbox.stack import S3Address
from tests.support.factories import BucketFactory
from tests.support.s3_objects import keys, options_of, put, versions


@pytest.fixture(params=["plain", "versioned"])
def name(request: pytest.FixtureRequest) -> str:
    """A bucket of either kind."""
    return str(request.getfixturevalue(request.param))


def write(server: S3Address, ref: ObjectRef, body: bytes) -> None:
    server.client().put_object(Bucket=ref.bucket, Key=ref.key, Body=body)


async def read(store: ObjectStore, ref: ObjectRef) -> str:
    async with store.stream(ref, 100) as content:
        return content.name


async def test_what_was_read_goes_and_what_was_written_since_stays(
    store: ObjectStore, server: S3Address, name: str
) -> None:
    [ref, beside] = put(server, name, ["m.json", "n.json"])
    held: Held = {ref: (await read(store, ref),), beside: (await read(store, beside),)}
    write(server, ref, b"new")
    deletion = await store.delete([ref, beside], held)
    assert deletion.failed == {ref: REWRITTEN}
    assert deletion.gone == {beside}
    assert keys(server, name) == [ref.key]
    # Read again, in every version that is there.
    versions = await store.versions([ref])
    held = {ref: tuple([await read(store, version) for version in versions[ref]])}
    assert (await store.delete([ref], held)).gone == {ref}
    assert await store.remaining([ref]) == frozenset()
    # The same delete twice is the delete once, and what is written after it stays.
    assert (await store.delete([ref], held)).gone == {ref}
    write(server, ref, b"newer")
    assert (await store.delete([ref], held)).failed == {ref: REWRITTEN}
    assert keys(server, name) == [ref.key]


async def test_what_was_not_there_goes_only_if_it_is_not(
    store: ObjectStore, server: S3Address, name: str
) -> None:
    [ref] = put(server, name, ["m.json"])
    absent = ObjectRef(name, "never.json")
    deletion = await store.delete([ref, absent], {ref: (), absent: ()})
    assert deletion.failed == {ref: REWRITTEN}
    assert deletion.gone == {absent}
    assert keys(server, name) == [ref.key]


async def test_what_was_written_without_a_version_is_told_by_its_content(
    store: ObjectStore, server: S3Address, versioned: str
) -> None:
    """Where versions are suspended, another content comes under the same name."""
    server.client().put_bucket_versioning(
        Bucket=versioned, VersioningConfiguration={"Status": "Suspended"}
    )
    [ref] = put(server, versioned, ["m.json"])
    held = {ref: (await read(store, ref),)}
    write(server, ref, b"new")
    assert (await store.delete([ref], held)).failed == {ref: REWRITTEN}
    held = {ref: (await read(store, ref),)}
    assert (await store.delete([ref], held)).gone == {ref}


@pytest.mark.parametrize("kept", [0, 1], ids=["alone", "beside a version"])
async def test_what_is_written_between_the_listing_and_the_delete_stays(
    store: ObjectStore,
    server: S3Address,
    versioned: str,
    monkeypatch: pytest.MonkeyPatch,
    kept: int,
) -> None:
    ref = ObjectRef(versioned, "m.json")
    for number in range(kept):
        write(server, ref, str(number).encode())
    server.client().put_bucket_versioning(
        Bucket=versioned, VersioningConfiguration={"Status": "Suspended"}
    )
    write(server, ref, b"read")
    names = [await read(store, version) for version in (await store.versions([ref]))[ref]]
    looking = store._looking
    listed, new = looking.versions_of, [b"new"]

    async def written_after(bucket: str, refs: Sequence[ObjectRef]) -> Any:
        found = await listed(bucket, refs)
        if new:
            write(server, ref, new.pop())
        return found

    monkeypatch.setattr(looking, "versions_of", written_after)
    assert (await store.delete([ref], {ref: tuple(names)})).failed == {ref: REWRITTEN}
    assert server.client().get_object(Bucket=versioned, Key=ref.key)["Body"].read() == b"new"
    # Read again, it goes, and leaves no marker.
    names = [await read(store, version) for version in (await store.versions([ref]))[ref]]
    assert (await store.delete([ref], {ref: tuple(names)})).gone == {ref}
    assert versions(server, versioned) == []


async def test_versions_that_are_switched_on_amid_a_job_are_noticed_when_one_is_read(
    store: ObjectStore, server: S3Address, plain: str
) -> None:
    """Else what was read would seem to be another content whenever it is to go."""
    [ref, other] = put(server, plain, ["m.json", "n.json"])
    assert (await store.delete([other])).gone == {other}
    server.client().put_bucket_versioning(
        Bucket=plain, VersioningConfiguration={"Status": "Enabled"}
    )
    [written] = put(server, plain, ["new.json"])
    held = {written: (await read(store, written),)}
    assert (await store.delete([written], held)).gone == {written}
    assert await store.remaining([written]) == frozenset()
    # What is older than the versions stays one of them.
    write(server, ref, b"new")
    assert (await store.delete([ref], {ref: (await read(store, ref),)})).failed == {ref: REWRITTEN}


async def test_what_was_written_since_is_not_tagged(server: S3Address, name: str) -> None:
    buckets = {name: Bucket(name, tag=("lethe-erase", "yes"))}
    async with ObjectStore(options_of(server), buckets) as store:
        [ref, beside] = put(server, name, ["m.json", "n.json"])
        held = {ref: (await read(store, ref),), beside: (await read(store, beside),)}
        write(server, ref, b"new")
        deletion = await store.delete([ref, beside], held)
        assert deletion.failed == {ref: REWRITTEN}
        assert deletion.scheduled == {beside}


async def test_a_copy_goes_whatever_was_read_where_it_is_from(
    server: S3Address, make_bucket: BucketFactory
) -> None:
    name, copy = make_bucket(), make_bucket()
    buckets = {name: Bucket(name, replicas=(copy,)), copy: Bucket(copy)}
    async with ObjectStore(options_of(server), buckets) as store:
        [ref] = put(server, name, ["m.json"])
        write(server, ObjectRef(copy, ref.key), b"another")
        assert (await store.delete([ref], {ref: (await read(store, ref),)})).gone == {ref}
    assert keys(server, copy) == []

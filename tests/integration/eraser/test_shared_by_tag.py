"""What carries a tag of the catalog is everybody's: kept, counted, and never guessed about."""

from collections.abc import AsyncIterator, Iterable, Mapping
from pathlib import Path

import pytest

from lethe_contracts.states import BlockReason
from lethe_eraser.domain import ObjectRef
from lethe_sandbox.stack import S3Address
from tests.integration.eraser.world import SUBJECT, World, make_catalog, open_store, to_the_end

UPLOAD = f"uploads/{SUBJECT}/1.png"


@pytest.fixture
async def tagging(world: World, s3: S3Address, tmp_path: Path) -> AsyncIterator[World]:
    """A world in which `kind=template` makes an upload or a file of a document shared."""
    uploads, documents = world.buckets["uploads"], world.buckets["documents"]
    by_prefix = f"  - {{bucket: {uploads}, prefix: templates/}}\n"
    by_tag = "".join(
        f"  - {{bucket: {bucket}, tag: {{key: kind, value: template}}}}\n"
        for bucket in (uploads, documents)
    )
    world.catalog = make_catalog(tmp_path, world.buckets, {by_prefix: by_prefix + by_tag})
    async with open_store(s3, world.catalog) as store:
        world.store = store
        yield world


def tag(world: World, bucket: str, key: str, value: str) -> None:
    world.s3.put_object_tagging(
        Bucket=world.buckets[bucket],
        Key=key,
        Tagging={"TagSet": [{"Key": "kind", "Value": value}, {"Key": "team", "Value": "a"}]},
    )


async def test_an_object_with_the_tag_stays_and_one_with_another_value_goes(
    tagging: World,
) -> None:
    await tagging.sketch(1)
    await tagging.sketch(2)
    tag(tagging, "uploads", UPLOAD, "template")
    tag(tagging, "uploads", f"uploads/{SUBJECT}/2.png", "upload")
    await tagging.accept(tagging.requested())
    assert await to_the_end(tagging, tagging.eraser()) == "verified"
    assert tagging.keys("uploads") == {UPLOAD}
    totals = (await tagging.said())[-1].event.totals["sketch"]
    assert (totals.feature_rows, totals.objects_gone, totals.objects_kept) == (2, 3, 1)


async def test_a_file_of_a_manifest_with_the_tag_stays(tagging: World) -> None:
    await tagging.document(1)
    files = sorted(key for key in tagging.keys("documents") if not key.endswith(".json"))
    tag(tagging, "documents", files[0], "template")
    await tagging.accept(tagging.requested())
    assert await to_the_end(tagging, tagging.eraser()) == "verified"
    assert tagging.keys("documents") == {files[0]}
    totals = (await tagging.said())[-1].event.totals["document"]
    assert totals.objects_kept == 1


async def test_where_s3_does_not_tell_the_tags_the_row_is_left(
    tagging: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await tagging.sketch(1)
    await tagging.sketch(2)
    real = tagging.store.tags

    async def tags(
        refs: Iterable[ObjectRef],
    ) -> Mapping[ObjectRef, Mapping[str, str] | None]:
        told = await real(refs)
        return {ref: None if ref.key == UPLOAD else told[ref] for ref in told}

    monkeypatch.setattr(tagging.store, "tags", tags)
    await tagging.accept(tagging.requested())
    assert await to_the_end(tagging, tagging.eraser()) == "blocked"
    assert tagging.keys("uploads") == {UPLOAD}
    assert await tagging.value("select reasons from lethe.job") == {
        str(BlockReason.OBJECT_NOT_DELETED): 1
    }
    assert await tagging.value("select count(*) from sketch_feature where prompt is not null") == 1

"""What a catalog says of buckets and of the CDN before them."""

from pathlib import Path

import pytest

from lethe_eraser.catalog import Bucket, Catalog, CatalogError, Origin, load

GOOD = """\
version: 1
owner: "012345678901"
buckets:
  images: {replicas: [copies], count_missing: true}
  copies: {owner: "999999999999", region: eu-west-1}
  archive: {mode: tag}
  films: {mode: tag, tag: {key: erase, value: "1"}}
hosts:
  cdn.example.net: {bucket: images, origin_path: /public, distribution: E2ABC}
  CDN2.example.net:
    bucket: films
    distribution: E2ABC
    paths: [{pattern: "/old/*", bucket: archive}]
  plain.example.net: {bucket: images}
client_tables:
  client: {client_key: owner, request_type: type, request_id: rid, mask: {owner: erased}}
features:
  draw:
    handler: ai_generate
    feature: {table: draw, mask: {prompt: null}}
"""


def loaded(folder: Path, text: str) -> Catalog:
    path = folder / "catalog.yaml"
    path.write_text(text, encoding="utf-8")
    return load(path)


def test_buckets_and_distributions_are_resolved(tmp_path: Path) -> None:
    catalog = loaded(tmp_path, GOOD)
    account = "012345678901"
    assert catalog.buckets == {
        "images": Bucket("images", account, count_missing=True, replicas=("copies",)),
        "copies": Bucket("copies", "999999999999", "eu-west-1"),
        "archive": Bucket("archive", account, tag=("lethe-erase", "yes")),
        "films": Bucket("films", account, tag=("erase", "1")),
    }
    assert catalog.distributions == {
        "E2ABC": (Origin("images", "/public"), Origin("archive", "", "/old/*"), Origin("films"))
    }


@pytest.mark.parametrize(
    ("good", "bad", "says"),
    [
        ("[copies]", "[copy]", "buckets.images.replicas.0: unknown bucket copy; did you mean"),
        ("[copies]", "[images]", "a bucket is no replica of itself"),
        ("eu-west-1}", "eu-west-1, replicas: [films]}", "copies has replicas itself"),
        ("archive: {mode: tag}", "archive: {tag: {key: a}}", "with `mode: tag` only"),
        ("mode: tag}", "mode: move}", "input should be 'delete' or 'tag'"),
        ("key: erase,", "key: 'a?b',", "does not look like one"),
        ('"012345678901"', "12345678901", "put it in quotes"),
        ("distribution: E2ABC}", "distribution: e2/abc}", "does not look like one"),
    ],
)
def test_a_mistake_is_answered_with_its_remedy(
    tmp_path: Path, good: str, bad: str, says: str
) -> None:
    assert good in GOOD
    with pytest.raises(CatalogError) as caught:
        loaded(tmp_path, GOOD.replace(good, bad, 1))
    assert [problem for problem in caught.value.problems if says in problem]

"""URLs and JSON are written as the product wrote them."""

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lethe_sandbox.product import BUCKETS, RESULTS, UPLOADS
from lethe_sandbox.seed.shapes import Ref, as_jsonb, cdn_url, path_url, s3_url, write
from tests.support.sample_references import resolve


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        (cdn_url(Ref(RESULTS, "public/2024/x.png")), "https://cdn.sample.example/2024/x.png"),
        (
            cdn_url(Ref(UPLOADS, "uploads/a b/1.png")),
            "https://d1sample.cloudfront.net/uploads/a%20b/1.png",
        ),
        (
            s3_url(Ref(UPLOADS, "uploads/한/1.png")),
            "https://sample-uploads.s3.ap-northeast-2.amazonaws.com/uploads/%ED%95%9C/1.png",
        ),
        (
            path_url(Ref(RESULTS, "public/1+1.png")),
            "https://s3.ap-northeast-2.amazonaws.com/sample-results/public/1%2B1.png",
        ),
        (s3_url(Ref(None, "2019/1.png")), "https://old-images.sample.example/2019/1.png"),
    ],
)
def test_urls_look_as_they_should(url: str, expected: str) -> None:
    assert url == expected


@given(
    st.sampled_from(BUCKETS),
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1).map(lambda key: f"public/{key}"),
)
def test_every_url_leads_back_to_its_object(bucket: str, key: str) -> None:
    ref = Ref(bucket, key)
    for url in (s3_url(ref), path_url(ref), cdn_url(ref)):
        assert resolve(url) == (bucket, key)


def test_jsonb_is_written_as_postgresql_shows_it() -> None:
    value = {"bb": [1, {"z": 0.5, "a": None}], "한": "é\n", "c": True}
    assert as_jsonb(value) == '{"c": true, "bb": [1, {"a": null, "z": 0.5}], "한": "é\\n"}'


def test_text_is_written_in_several_hands() -> None:
    rng = Random(1)  # noqa: S311 - repeatable on purpose
    hands = {write({"a": ["é", 1]}, "text", rng) for _ in range(50)}
    assert hands == {'{"a": ["\\u00e9", 1]}', '{"a":["é",1]}', '{"a":["\\u00e9",1]}'}

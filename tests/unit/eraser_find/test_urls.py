import re
from unicodedata import normalize
from urllib.parse import quote

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from lethe_eraser.catalog import Bucket, Origin
from lethe_eraser.domain import ObjectRef
from lethe_eraser.references import (
    Ambiguous,
    Conflict,
    Nothing,
    Resolution,
    Resolved,
    Resolver,
    Unresolved,
)
from lethe_eraser.references.urls import LONGEST_KEY

BUCKETS = {
    "uploads": Bucket("uploads", region="ap-northeast-2"),
    "img.example.com": Bucket("img.example.com"),
    "my.dotted.bucket": Bucket("my.dotted.bucket", region="us-west-2"),
    "china": Bucket("china", region="cn-north-1"),
    "aliased": Bucket("aliased", aliases=("ap-abc123-s3alias",)),
}
HOSTS = {
    "cdn.example.net": (
        Origin("img.example.com", "/thumbs", pattern="/t/*.webp"),
        Origin("uploads", "/public"),
    ),
    "d1.cloudfront.net": (Origin("uploads"),),
}
RESOLVER = Resolver(BUCKETS, HOSTS)


def refs(resolution: Resolution) -> tuple[ObjectRef, ...]:
    if isinstance(resolution, Resolved):
        return (resolution.ref,)
    return resolution.candidates if isinstance(resolution, Ambiguous) else ()


def names_only(resolution: Resolution, ref: ObjectRef) -> None:
    """It is this object, and if any other then only another Unicode form of its name."""
    found = refs(resolution)
    assert found[0] == ref
    forms = {normalize(form, ref.key) for form in ("NFC", "NFD")}
    assert set(found) == {
        ObjectRef(ref.bucket, key) for key in {ref.key, *forms} if len(key.encode()) <= LONGEST_KEY
    }


@pytest.mark.parametrize(
    ("url", "bucket", "key"),
    [
        ("https://uploads.s3.ap-northeast-2.amazonaws.com/a/b.png", "uploads", "a/b.png"),
        ("https://my.dotted.bucket.s3.us-west-2.amazonaws.com/k", "my.dotted.bucket", "k"),
        ("https://uploads.s3-ap-northeast-2.amazonaws.com/k", "uploads", "k"),
        ("https://uploads.s3.amazonaws.com/k", "uploads", "k"),
        ("http://uploads.s3.amazonaws.com:80/k", "uploads", "k"),
        ("https://uploads.s3.amazonaws.com:443/k", "uploads", "k"),
        ("HTTPS://Uploads.S3.AmazonAWS.com/K", "uploads", "K"),
        ("//uploads.s3.amazonaws.com/k", "uploads", "k"),
        ("https://s3.ap-northeast-2.amazonaws.com/uploads/a/b.png", "uploads", "a/b.png"),
        ("https://s3-ap-northeast-2.amazonaws.com/uploads/k", "uploads", "k"),
        ("https://s3.amazonaws.com/my.dotted.bucket/k", "my.dotted.bucket", "k"),
        ("https://uploads.s3.dualstack.ap-northeast-2.amazonaws.com/k", "uploads", "k"),
        ("https://s3.dualstack.ap-northeast-2.amazonaws.com/uploads/k", "uploads", "k"),
        ("https://uploads.s3-fips.us-east-1.amazonaws.com/k", "uploads", "k"),
        ("https://uploads.s3-accelerate.amazonaws.com/k", "uploads", "k"),
        ("https://uploads.s3-accelerate.dualstack.amazonaws.com/k", "uploads", "k"),
        ("http://uploads.s3-website-us-east-1.amazonaws.com/k", "uploads", "k"),
        ("http://uploads.s3-website.ap-northeast-2.amazonaws.com/k", "uploads", "k"),
        ("https://ap-abc123-s3alias.s3.us-east-1.amazonaws.com/k", "aliased", "k"),
        ("https://bucket.vpce-1a2b-3c.s3.us-east-1.vpce.amazonaws.com/uploads/k", "uploads", "k"),
        ("https://uploads.bucket.vpce-1a.s3.us-east-1.vpce.amazonaws.com/k", "uploads", "k"),
        ("https://china.s3.cn-north-1.amazonaws.com.cn/k", "china", "k"),
        ("https://img.example.com/k", "img.example.com", "k"),
        ("s3://uploads/a%20b", "uploads", "a%20b"),
        ("s3a://uploads//a", "uploads", "/a"),
        ("arn:aws:s3:::uploads/a/b", "uploads", "a/b"),
        ("arn:aws-cn:s3:::china/a", "china", "a"),
        ("https://cdn.example.net/2024/x.png", "uploads", "public/2024/x.png"),
        ("https://cdn.example.net/t/x.webp", "img.example.com", "thumbs/t/x.webp"),
        ("https://d1.cloudfront.net/2024/x.png?Expires=1&Signature=a", "uploads", "2024/x.png"),
        ("https://cdn.example.net//x", "uploads", "public//x"),
        # decoded once, never normalised
        ("https://uploads.s3.amazonaws.com/a%2520b", "uploads", "a%20b"),
        ("https://uploads.s3.amazonaws.com/a%2Fb%2B", "uploads", "a/b+"),
        ("https://uploads.s3.amazonaws.com/./a/../b//c", "uploads", "./a/../b//c"),
        ("https://uploads.s3.amazonaws.com/%ED%95%9C", "uploads", "한"),
        ("https://uploads.s3.amazonaws.com/한 글.png", "uploads", "한 글.png"),
        ("https://uploads.s3.amazonaws.com/100%.png", "uploads", "100%.png"),
        ("https://uploads.s3.amazonaws.com/trail/", "uploads", "trail/"),
        ("https://uploads.s3.amazonaws.com/a@b:c", "uploads", "a@b:c"),
    ],
)
def test_each_form_of_url_names_its_object(url: str, bucket: str, key: str) -> None:
    names_only(RESOLVER.resolve_url(url), ObjectRef(bucket, key))


@pytest.mark.parametrize(
    "url",
    [
        "https://uploads.s3.amazonaws.com@evil.example/k",
        "https://user:pass@uploads.s3.amazonaws.com/k",
        "https://evil.example\\@uploads.s3.amazonaws.com/k",
        "https://evil.example/uploads.s3.amazonaws.com/k",
        "https://evil.example?https://uploads.s3.amazonaws.com/k",
        "https://evil.example#@uploads.s3.amazonaws.com/k",
        "https://uploads.s3.amazonaws.com.evil.example/k",
        "https://uploads.s3.amazonaws.community/k",
        "https://uploads.s3.amazonaws.com./k",
        "https://uploads.s3.amazonaws.com:8443/k",
        "https://uploadss3.amazonaws.com/k",
        "https://x.uploads.s3.amazonaws.com/k",
        "https://uploads.s3.amazonaws.com%2Fk/x",
        "https://uploads.s3.amazonaws.co\u217f/k",
        "https://upl\u043eads.s3.amazonaws.com/k",
        "https://\uff55ploads.s3.amazonaws.com/k",
        "https://uploads.s3.\u212aamazonaws.com/k",
        "https://cdn.example.net.evil.example/k",
        "https://xcdn.example.net/k",
        "https://another.s3.amazonaws.com/k",
        "https://s3.amazonaws.com/another/k",
        "https://s3.amazonaws.com/uploads",
        "https://s3.amazonaws.com/uploads/",
        "https://uploads.s3.amazonaws.com/",
        "https://uploads.s3.amazonaws.com",
        "https://cdn.example.net/",
        "https://cdn.example.net",
        "https://cdn.example.net#/y",
        "https://cdn.example.net?x#/y",
        "https://my-ap-123456789012.s3-accesspoint.us-east-1.amazonaws.com/k",
        "https://uploads.s3.amazonaws.com.cn/k",
        "https://china.s3.amazonaws.com/k",
        "https://uploads.s3.us-gov-west-1.amazonaws.com/k",
        "https://uploads.s3.cn-north-1.amazonaws.com.cn/k",
        "arn:aws-cn:s3:::uploads/k",
        "arn:aws:s3:us-east-1:123456789012:accesspoint/uploads/object/k",
        "http://uploads.s3-website-us-east-1.amazonaws.com/folder/",
        "s3://another/k",
        "s3://uploads",
        "s3://uploads/",
        "ftp://uploads.s3.amazonaws.com/k",
        "uploads.s3.amazonaws.com/k",
        "s3://user:secret@uploads/k",
        "s3://UPLOADS/k",
        "https://[2600:1fa0::1]/uploads/k",
        "https://s3.amazonaws.com/upl%6Fads/k",
        "https://s3.amazonaws.com/\u00fcploads/k",
        "https://uploads--use1-az4--x-s3.s3express-use1-az4.us-east-1.amazonaws.com/k",
        "arn:aws:s3-outposts:us-west-2:123456789012:outpost/op-1/bucket/uploads/object/k",
        "https:uploads.s3.amazonaws.com/k",
        "https:///uploads/k",
        "a/bare/key",
        "https://uploads.s3.amazonaws.com/%FF",
        "https://uploads.s3.amazonaws.com/\ud800",
        "https://uploads.s3.amazonaws.com/" + "x" * 1025,
        "https://" + "a." * 50_000 + "s3.amazonaws.com/k",
    ],
)
def test_what_the_catalog_does_not_know_is_never_guessed(url: str) -> None:
    assert RESOLVER.resolve_url(url) == Unresolved()


@pytest.mark.parametrize("text", ["", "  ", "data:image/png;base64,iVBORw0KGgo=", " DATA:,x"])
def test_an_empty_or_inline_value_names_nothing(text: str) -> None:
    assert RESOLVER.resolve_url(text) == Nothing()


@pytest.mark.parametrize(
    ("query", "version"),
    [
        ("?versionId=abc", "abc"),
        ("?X-Amz-Signature=1&versionId=abc", "abc"),
        ("?X-Amz-Signature=1&amp;versionId=abc", "abc"),
        ("?v=2", None),
        ("?versionId=", None),
    ],
)
def test_the_query_is_dropped_but_for_the_version(query: str, version: str | None) -> None:
    found = RESOLVER.resolve_url(f"https://uploads.s3.amazonaws.com/k{query}")
    assert found == Resolved(ObjectRef("uploads", "k", version))


def test_a_cdn_knows_no_versions() -> None:
    found = RESOLVER.resolve_url("https://d1.cloudfront.net/k?versionId=abc")
    assert found == Resolved(ObjectRef("uploads", "k"))


@pytest.mark.parametrize(
    ("written", "keys"),
    [
        ("a+b.png", ["a+b.png", "a b.png"]),
        ("a&amp;b", ["a&amp;b", "a&b"]),
        ("a#b", ["a", "a#b"]),
        ("a.png ", ["a.png ", "a.png"]),
        ("what?.png", ["what", "what?.png"]),
        ("a\r\n b.png", ["a\r\n b.png", "a b.png"]),
    ],
)
def test_what_may_be_read_in_two_ways_is_said_to_be(written: str, keys: list[str]) -> None:
    found = RESOLVER.resolve_url(f"https://uploads.s3.amazonaws.com/{written}")
    assert [ref.key for ref in refs(found)] == keys


def test_a_bare_key_needs_the_bucket_of_its_entry() -> None:
    assert RESOLVER.resolve_url("a%20 b+c", in_bucket="uploads") == Resolved(
        ObjectRef("uploads", "a%20 b+c")
    )
    assert [r.key for r in refs(RESOLVER.resolve_url("/a", in_bucket="uploads"))] == ["/a", "a"]
    for dotted in ("a.png", "v1.2/a.png"):
        found = RESOLVER.resolve_url(dotted, in_bucket="uploads")
        assert found == Resolved(ObjectRef("uploads", dotted))


@pytest.mark.parametrize(
    "url",
    [
        "mailto:a@b",
        " ftp://another.example/k",
        "\ufeffhttps://cdn.example.net/k",
        "uploads.s3.amazonaws.com/k",
        "cdn.example.net/2024/x.png",
        "Img.Example.com/k",
        "\u200bhttps://cdn.example.net/k",
        '"https://cdn.example.net/k"',
        "<s3://uploads/k>",
        '["https://cdn.example.net/k"]',
        '["results/a.png", "results/b.png"]',
        '{ "key": "results/a.png"}',
        '"results/a.png"',
    ],
)
def test_a_url_that_is_not_whole_is_no_bare_key(url: str) -> None:
    """Of a key that nobody has S3 says that it is gone."""
    assert RESOLVER.resolve_url(url, in_bucket="uploads") == Unresolved()


def test_a_copy_stands_for_its_original() -> None:
    buckets = {
        "mine": Bucket("mine", replicas=("near", "both")),
        "other": Bucket("other", replicas=("both",)),
        "near": Bucket("near", aliases=("near-s3alias",)),
        "both": Bucket("both"),
    }
    resolver = Resolver(buckets, {"cdn.example.net": (Origin("near"),)})
    for text in (
        "https://near.s3.amazonaws.com/k",
        "https://near-s3alias.s3.amazonaws.com/k",
        "https://cdn.example.net/k",
        "s3://near/k",
    ):
        assert resolver.resolve_url(text) == Resolved(ObjectRef("mine", "k"))
    assert resolver.resolve_url("k", in_bucket="near") == Resolved(ObjectRef("mine", "k"))
    assert resolver.resolve(bucket="near", key="k") == Resolved(ObjectRef("mine", "k"))


def test_a_copy_of_several_buckets_stands_for_none() -> None:
    """Alone it would go while the original, nobody knows which, stays."""
    buckets = {
        "mine": Bucket("mine", replicas=("both",)),
        "other": Bucket("other", replicas=("both",)),
        "both": Bucket("both", aliases=("both-s3alias",)),
    }
    resolver = Resolver(buckets, {"cdn.example.net": (Origin("both"),)})
    for text in ("s3://both/k", "https://both-s3alias.s3.amazonaws.com/k", "k"):
        assert resolver.resolve_url(text, in_bucket="both") == Unresolved()
    assert resolver.resolve_url("https://cdn.example.net/k") == Unresolved()
    assert resolver.resolve(bucket="both", key="k") == Unresolved()


def test_a_cdn_path_that_is_encoded_without_need_may_fit_a_pattern() -> None:
    found = RESOLVER.resolve_url("https://cdn.example.net/%74/a.webp")
    assert set(refs(found)) == {
        ObjectRef("uploads", "public/t/a.webp"),
        ObjectRef("img.example.com", "thumbs/t/a.webp"),
    }


@pytest.mark.parametrize("text", ["s3://uploads/k\n", "\t s3://uploads/k ", "k\r\n", " k"])
def test_blanks_around_a_key_may_be_its_own(text: str) -> None:
    written, bare = refs(RESOLVER.resolve_url(text, in_bucket="uploads"))
    assert bare == ObjectRef("uploads", "k")
    assert text.endswith(written.key)


def test_a_version_behind_an_s3_uri_may_be_one() -> None:
    found = RESOLVER.resolve_url("s3://uploads/k?versionId=1")
    assert [ref.key for ref in refs(found)] == ["k?versionId=1", "k"]


S3_URL = "https://uploads.s3.amazonaws.com/a+b"


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        ({"bucket": "uploads", "key": "k"}, Resolved(ObjectRef("uploads", "k"))),
        ({"bucket": "another", "key": "k"}, Unresolved()),
        ({"key": "k"}, Unresolved()),
        ({"key": "k", "in_bucket": "uploads"}, Resolved(ObjectRef("uploads", "k"))),
        ({"key": "https://uploads.s3.amazonaws.com/k", "bucket": "uploads"}, Unresolved()),
        ({"key": " S3://uploads/k", "in_bucket": "uploads"}, Unresolved()),
        ({"key": "arn:aws:s3:::uploads/k", "bucket": "uploads"}, Unresolved()),
        (
            {"key": "//https://x/k", "bucket": "uploads"},
            Resolved(ObjectRef("uploads", "//https://x/k")),
        ),
        ({"bucket": "uploads"}, Nothing()),
        ({"bucket": "another"}, Nothing()),
        ({"bucket": "s3://uploads/k"}, Unresolved()),
        ({"bucket": "https://d1.cloudfront.net/k", "url": " "}, Unresolved()),
        ({"url": "", "key": "", "bucket": ""}, Nothing()),
        ({"url": S3_URL, "key": "a b"}, Resolved(ObjectRef("uploads", "a b"))),
        (
            {"url": S3_URL, "key": "a+b", "bucket": "uploads"},
            Resolved(ObjectRef("uploads", "a+b")),
        ),
        ({"url": S3_URL, "key": "other"}, Conflict()),
        ({"url": S3_URL, "bucket": "img.example.com"}, Conflict()),
        ({"url": S3_URL, "bucket": "another"}, Conflict()),
        ({"url": "https://evil.example/k", "key": "k", "bucket": "uploads"}, Conflict()),
        ({"url": "https://evil.example/k", "key": "k", "bucket": "another"}, Unresolved()),
        (
            {"url": "https://d1.cloudfront.net/k", "key": "k", "bucket": "uploads"},
            Resolved(ObjectRef("uploads", "k")),
        ),
        (
            {"url": "https://uploads.s3.amazonaws.com/k?versionId=1", "key": "k"},
            Resolved(ObjectRef("uploads", "k")),
        ),
    ],
)
def test_the_parts_of_a_reference_must_agree(parts: dict[str, str], expected: Resolution) -> None:
    assert RESOLVER.resolve(**parts) == expected


KEYS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=60).filter(
    lambda key: len(key.encode()) <= 1024
)
FORMS = [
    "https://{b}.s3.{r}.amazonaws.com/{k}",
    "https://{b}.s3-{r}.amazonaws.com/{k}",
    "https://{b}.s3.amazonaws.com/{k}",
    "https://s3.{r}.amazonaws.com/{b}/{k}",
    "https://s3.dualstack.{r}.amazonaws.com/{b}/{k}",
    "https://{b}.s3.dualstack.{r}.amazonaws.com/{k}?X-Amz-Expires=3600",
    "https://{b}.s3-accelerate.amazonaws.com/{k}",
    "https://{b}.s3-accelerate.dualstack.amazonaws.com/{k}",
    "https://{b}.s3-{r}.amazonaws.com/{k}",
    "https://s3-{r}.amazonaws.com/{b}/{k}",
    "https://{b}.s3-fips.{r}.amazonaws.com/{k}",
    "https://{b}.bucket.vpce-1a2b-3c.s3.{r}.vpce.amazonaws.com/{k}",
    "https://bucket.vpce-1a2b-3c.s3.{r}.vpce.amazonaws.com/{b}/{k}",
    "http://{b}.s3-website.{r}.amazonaws.com/{k}#top",
]


@given(
    bucket=st.sampled_from(["uploads", "my.dotted.bucket", "aliased"]),
    region=st.sampled_from(["ap-northeast-2", "us-east-1", "eu-central-1"]),
    form=st.sampled_from(FORMS),
    key=KEYS,
)
def test_a_url_built_from_an_object_names_that_object(
    bucket: str, region: str, form: str, key: str
) -> None:
    assume("website" not in form or not key.endswith("/"))
    url = form.format(b=bucket, r=region, k=quote(key, safe="/"))
    if "#" in form:
        # A `#` that was stored unencoded would be of the key; here it is one of two readings.
        assert ObjectRef(bucket, key) in refs(RESOLVER.resolve_url(url))
        return
    names_only(RESOLVER.resolve_url(url), ObjectRef(bucket, key))


@given(
    host=st.sampled_from(sorted(HOSTS)),
    folder=st.sampled_from(["", "t/", "2024/05/"]),
    name=KEYS,
    query=st.sampled_from(["", "?Expires=1&Signature=a~b_&Key-Pair-Id=K", "?w=200"]),
)
def test_a_cdn_url_leads_to_the_first_origin_whose_pattern_fits(
    host: str, folder: str, name: str, query: str
) -> None:
    path = folder + name
    url = f"https://{host}/{quote(path, safe='/')}{query}"
    if host == "d1.cloudfront.net":
        expected = ObjectRef("uploads", path)
    elif folder == "t/" and quote(path).endswith(".webp"):
        expected = ObjectRef("img.example.com", f"thumbs/{path}")
    else:
        expected = ObjectRef("uploads", f"public/{path}")
    if len(expected.key.encode()) <= LONGEST_KEY:
        names_only(RESOLVER.resolve_url(url), expected)


@given(bucket=st.sampled_from(sorted(BUCKETS)), key=KEYS)
def test_an_s3_uri_and_a_bare_key_are_taken_literally(bucket: str, key: str) -> None:
    for form in (f"s3://{bucket}/{key}", f"s3a://{bucket}/{key}"):
        if key.strip(" \t\r\n\f") == key:
            names_only(RESOLVER.resolve_url(form), ObjectRef(bucket, key))
        assert refs(RESOLVER.resolve_url(form))[0] == ObjectRef(bucket, key)
    names_only(RESOLVER.resolve(bucket=bucket, key=key), ObjectRef(bucket, key))


@given(key=KEYS)
def test_a_key_stored_unencoded_is_always_among_what_its_url_may_mean(key: str) -> None:
    plain = re.sub(r"[%?]", "", key) or "k"
    found = refs(RESOLVER.resolve_url(f"https://uploads.s3.amazonaws.com/{plain}"))
    assert ObjectRef("uploads", plain) in found


HOSTILE = st.one_of(
    st.text(max_size=200),
    st.lists(
        st.sampled_from(
            [
                "https://", "http:", "//", "/", "\\", "@", ":", "?", "#", ".", "%2f", "%00", "+",
                "uploads", "another", "s3", "s3-", "dualstack", "amazonaws.com", ".cn",
                "cdn.example.net", "us-east-1", "arn:aws:s3:::", "s3://", "&amp;", "versionId=",
                "bucket.vpce-1.", "\u0131", "\u212a", "\ud800", "\x00", " ", "\n", "k",
            ]
        ),
        max_size=14,
    ).map("".join),
)  # fmt: skip


@given(url=HOSTILE, key=st.none() | HOSTILE, bucket=st.none() | HOSTILE)
def test_arbitrary_text_never_raises_and_never_leaves_the_allow_list(
    url: str, key: str | None, bucket: str | None
) -> None:
    for found in (
        RESOLVER.resolve_url(url),
        RESOLVER.resolve(url=url, key=key, bucket=bucket),
        RESOLVER.resolve(url=url, key=key, bucket=bucket, in_bucket="uploads"),
    ):
        for ref in refs(found):
            assert ref.bucket in BUCKETS
            assert 0 < len(ref.key.encode()) <= 1024


@given(
    prefix=st.text("abcdefghijklmnopqrstuvwxyz0123456789-._@", max_size=20),
    suffix=st.text("abcdefghijklmnopqrstuvwxyz0123456789-._@", max_size=20),
)
def test_a_host_that_only_looks_like_ours_resolves_to_nothing(prefix: str, suffix: str) -> None:
    for host in ("d1.cloudfront.net", "uploads.s3.amazonaws.com"):
        changed = f"{prefix}{host}{suffix}"
        if changed != host and not changed.startswith(tuple(f"{b}.s3." for b in BUCKETS)):
            assert RESOLVER.resolve_url(f"https://{changed}/k") == Unresolved()

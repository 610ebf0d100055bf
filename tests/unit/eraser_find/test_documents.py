"""From a row's text to its objects: every shape, and everything that is not one."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal
from unicodedata import normalize
from urllib.parse import quote

import jsonpath
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonpath import JSONPath

import lethe_sandbox
from lethe_contracts.states import BlockReason
from lethe_eraser.catalog import (
    Bucket,
    Catalog,
    Ownership,
    ProductTable,
    ReferenceRule,
    load,
)
from lethe_eraser.catalog.model import Ignored
from lethe_eraser.catalog.paths import JsonPath
from lethe_eraser.domain import ObjectRef
from lethe_eraser.references import RowReader
from lethe_eraser.references.documents import Sorted

CATALOG: Catalog = load(Path(lethe_sandbox.__file__).parent / "catalog.yaml")
READER = RowReader(CATALOG)
FEATURE, TASK = CATALOG.features["image-to-image"].tables
PDF = CATALOG.features["pdf-extraction"].tables[0]
ME = "acct-000017"
UPLOAD = f"uploads/{ME}/2024/1 é.png"
UPLOAD_URL = f"https://d1sample.cloudfront.net/uploads/{ME}/2024/1%20%C3%A9.png"
UPLOAD_S3 = (
    "https://sample-uploads.s3.ap-northeast-2.amazonaws.com/uploads/acct-000017/2024/1%20%C3%A9.png"
)
RESULT = "public/2024/05/abc.png"
RESULT_URL = "https://cdn.sample.example/2024/05/abc.png"
WEBP_URL = "https://s3.ap-northeast-2.amazonaws.com/sample-results/public/2024/05/abc.webp"


def decided(
    product: ProductTable, values: Mapping[str, str | None], subject: str = ME
) -> Sorted | BlockReason:
    found = READER.read(product, values, subject)
    if isinstance(found, BlockReason):
        return found
    flat = [reference for column in found.values() for reference in column]
    return READER.sort(flat, subject, frozenset())


def option(value: Any) -> Sorted | BlockReason:
    return decided(FEATURE, {"option": json.dumps(value)})


def result(value: Any) -> Sorted | BlockReason:
    return decided(TASK, {"result": json.dumps(value)})


def uploads(*keys: str) -> tuple[ObjectRef, ...]:
    return tuple(ObjectRef("sample-uploads", key) for key in keys)


def results(*keys: str) -> tuple[ObjectRef, ...]:
    return tuple(ObjectRef("sample-results", key) for key in keys)


@pytest.mark.parametrize(
    "value",
    [
        {"inputImageUrl": UPLOAD_S3, "strength": 0.4},
        {"imageUrl": UPLOAD_URL},
        {"url": UPLOAD_URL, "url2": None},
        {"bucket": "sample-uploads", "key": UPLOAD, "url": UPLOAD_S3},
        {"bucket": "sample-uploads", "key": UPLOAD, "url": UPLOAD_URL},
        {"bucket": "sample-uploads", "key": UPLOAD},
        {"inputFileList": [{"key": UPLOAD, "url": UPLOAD_URL, "bucket": "sample-uploads"}]},
        {"inputFileList": [{"url": UPLOAD_URL}, {"url": UPLOAD_S3}, None]},
        {"inputImageUrl": UPLOAD_S3, "imageUrl": UPLOAD_URL},
    ],
)
def test_every_shape_of_an_option_names_its_upload(value: Any) -> None:
    assert option(value) == Sorted(uploads(UPLOAD), kept=0)


def test_every_shape_of_a_result_names_its_images() -> None:
    webp = "public/2024/05/abc.webp"
    assert result({"url": RESULT_URL}) == Sorted(results(RESULT), 0)
    assert result({"url": RESULT_URL, "webpUrl": WEBP_URL}) == Sorted(results(RESULT, webp), 0)
    files = [{"url": RESULT_URL}, {"url": WEBP_URL, "key": webp, "bucket": "sample-results"}]
    assert result({"fileList": files}) == Sorted(results(RESULT, webp), 0)


@pytest.mark.parametrize("text", [None, "", "  ", "null", "{}", "[]", '""'])
def test_a_null_where_it_cannot_be_names_nothing(text: str | None) -> None:
    assert decided(FEATURE, {"option": text}) == Sorted((), 0)
    assert decided(TASK, {"result": text}) == Sorted((), 0)


@pytest.mark.parametrize(
    "value",
    [
        {"inputImageUrl": None},
        {"url": ""},
        {"inputFileList": None},
        {"inputFileList": []},
        {"inputFileList": [None, {}]},
        {"style": "watercolour", "seed": 7, "size": {"w": 1}},
        {"prompt": "like https://another.example/x.png, please"},
        {"url": "data:image/png;base64,AAAA//AA"},
        {"bucket": None, "key": None, "url": None},
    ],
)
def test_an_option_without_a_reference_names_nothing(value: Any) -> None:
    assert option(value) == Sorted((), 0)


@pytest.mark.parametrize(
    "url",
    [
        "https://d1sample.cloudfront.net/uploads/acct-0000170/2024/1.png",
        "https://d1sample.cloudfront.net/templates/1.png",
        RESULT_URL,
        "https://cdn.sample.example/samples/1.png",
    ],
)
def test_an_input_that_is_not_the_persons_is_kept(url: str) -> None:
    assert option({"inputImageUrl": url}) == Sorted((), kept=1)


def test_a_shared_object_is_kept_even_as_a_result() -> None:
    value = {"url": "https://cdn.sample.example/samples/1.png", "webpUrl": WEBP_URL}
    assert result(value) == Sorted(results("public/2024/05/abc.webp"), kept=1)


def test_an_exotic_person_owns_what_lies_below_exactly_that_name() -> None:
    text = json.dumps(
        {"url": "https://d1sample.cloudfront.net/uploads/user+tag@example.com/2024/1.png"}
    )
    mine = decided(FEATURE, {"option": text}, "user+tag@example.com")
    assert mine == Sorted(uploads("uploads/user+tag@example.com/2024/1.png"), kept=0)
    assert decided(FEATURE, {"option": text}, "user+tag@example") == Sorted((), kept=1)


def test_a_url_that_may_mean_two_results_is_decided_by_what_is_there() -> None:
    found = READER.read(TASK, {"result": '{"url": "https://cdn.sample.example/2024/a+b.png"}'}, ME)
    assert not isinstance(found, BlockReason)
    references = found["result"]
    plus, space = results("public/2024/a+b.png", "public/2024/a b.png")
    assert list(READER.undecided(references)) == [plus, space]
    assert READER.sort(references, ME, frozenset({space})) == Sorted((space,), 0)
    assert READER.sort(references, ME, frozenset({plus})) == Sorted((plus,), 0)
    assert READER.sort(references, ME, frozenset()) == Sorted((plus,), 0)
    both = READER.sort(references, ME, frozenset({plus, space}))
    assert both is BlockReason.AMBIGUOUS_REFERENCE


def test_what_is_there_below_a_persons_own_prefix_is_theirs_in_every_reading() -> None:
    url = "https://d1sample.cloudfront.net/uploads/acct-000017/2024/a+b.png"
    found = READER.read(FEATURE, {"option": json.dumps({"url": url})}, ME)
    assert not isinstance(found, BlockReason)
    plus, space = uploads(f"uploads/{ME}/2024/a+b.png", f"uploads/{ME}/2024/a b.png")
    both = READER.sort(found["option"], ME, frozenset({plus, space}))
    assert both == Sorted((plus, space), 0)
    assert READER.sort(found["option"], ME, frozenset({space})) == Sorted((space,), 0)


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_a_name_is_found_in_the_unicode_form_it_has_in_the_bucket(
    form: Literal["NFC", "NFD"],
) -> None:
    person = normalize("NFC", "한글-사용자")
    written = normalize("NFC", f"uploads/{person}/2024/그림.png")
    value = {"bucket": "sample-uploads", "key": written}
    found = READER.read(FEATURE, {"option": json.dumps(value)}, person)
    assert not isinstance(found, BlockReason)
    there = uploads(normalize(form, written))
    assert READER.sort(found["option"], person, frozenset(there)) == Sorted(there, 0)
    somebody = READER.sort(found["option"], "acct-1", frozenset(there))
    assert somebody == Sorted((), 1)


def test_two_results_that_differ_in_their_unicode_form_only_are_never_guessed() -> None:
    forms = [normalize(form, "public/2024/그림.png") for form in ("NFC", "NFD")]
    url = "https://cdn.sample.example/2024/" + quote("그림.png")
    found = READER.read(TASK, {"result": json.dumps({"url": url})}, ME)
    assert not isinstance(found, BlockReason)
    both = READER.sort(found["result"], ME, frozenset(results(*forms)))
    assert both is BlockReason.AMBIGUOUS_REFERENCE


def test_a_presigned_url_of_one_version_means_the_whole_object() -> None:
    url = f"{UPLOAD_S3}?X-Amz-Expires=60&versionId=v1"
    assert option({"inputImageUrl": url}) == Sorted(uploads(UPLOAD), kept=0)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ({"url": "https://old-images.sample.example/a.png"}, BlockReason.UNRESOLVED_REFERENCE),
        ({"bucket": "another", "key": "k"}, BlockReason.UNRESOLVED_REFERENCE),
        ({"key": "k"}, BlockReason.UNRESOLVED_REFERENCE),
        (
            {"bucket": "sample-uploads", "key": "other", "url": UPLOAD_URL},
            BlockReason.REFERENCE_CONFLICT,
        ),
        (
            {"bucket": "sample-results", "key": UPLOAD, "url": UPLOAD_URL},
            BlockReason.REFERENCE_CONFLICT,
        ),
        ({"maskUrl": UPLOAD_URL}, BlockReason.UNCOVERED),
        ({"url": UPLOAD_URL, "extra": {"deep": [RESULT_URL]}}, BlockReason.UNCOVERED),
        ({"note": "see cdn.sample.example/2024/x.png"}, BlockReason.UNCOVERED),
        ({"mask": {"bucket": "sample-uploads", "key": "x"}}, BlockReason.UNCOVERED),
        ({"mask": f"uploads/{ME}/2024/2.png"}, BlockReason.UNCOVERED),
        ({RESULT_URL: True}, BlockReason.UNCOVERED),
        ({"callback": "https://another.example/hook"}, BlockReason.UNCOVERED),
        ({"raw": "arn:aws:s3:::sample-uploads/x"}, BlockReason.UNCOVERED),
        ({"raw": "first\narn:aws:s3:::sample-uploads/x"}, BlockReason.UNCOVERED),
        ({"raw": "arn:aws:s3-outposts:r:1:outpost/o/bucket/b/object/x"}, BlockReason.UNCOVERED),
        ({"note": "it is s3://sample-uploads/x, see there"}, BlockReason.UNCOVERED),
        ({"inner": json.dumps({"url": RESULT_URL})}, BlockReason.UNCOVERED),
        ([{"url": UPLOAD_URL}], BlockReason.MALFORMED_JSON),
        (UPLOAD_URL, BlockReason.MALFORMED_JSON),
        (json.dumps({"url": UPLOAD_URL}), BlockReason.MALFORMED_JSON),
        ("{", BlockReason.MALFORMED_JSON),
        ({"bucket": UPLOAD_URL}, BlockReason.UNRESOLVED_REFERENCE),
        (7, BlockReason.MALFORMED_JSON),
        ({"url": [UPLOAD_URL]}, BlockReason.MALFORMED_JSON),
        ({"url": {"href": UPLOAD_URL}}, BlockReason.MALFORMED_JSON),
        ({"bucket": "sample-uploads", "key": 7}, BlockReason.MALFORMED_JSON),
        ({"inputFileList": {"url": UPLOAD_URL}}, BlockReason.MALFORMED_JSON),
        ({"inputFileList": "uploads/x"}, BlockReason.MALFORMED_JSON),
        ({"inputFileList": [UPLOAD_URL]}, BlockReason.MALFORMED_JSON),
        ({"inputFileList": [[{"url": UPLOAD_URL}]]}, BlockReason.MALFORMED_JSON),
    ],
)
def test_what_no_rule_explains_blocks_the_row_by_name(value: Any, reason: BlockReason) -> None:
    assert option(value) is reason


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "{'url': 'x'}",
        '{"url": "https://d1sample.cloudfront.net/a", "url": "https://d1sample.cloudfront.net/b"}',
        "[" * 100_000,
        '{"a":' * 5_000 + "1" + "}" * 5_000,
        "9" * 10_000,
        "NaN",
        "https://d1sample.cloudfront.net/a",
    ],
)
def test_what_is_not_json_or_a_bomb_blocks_the_row(text: str) -> None:
    assert decided(FEATURE, {"option": text}) is BlockReason.MALFORMED_JSON


def test_a_plain_column_is_the_reference_itself() -> None:
    for path in ("manifests/7.json", "s3://sample-documents/manifests/7.json"):
        assert decided(PDF, {"manifest_path": path}) == Sorted(
            (ObjectRef("sample-documents", "manifests/7.json"),), 0
        )
    assert decided(PDF, {"manifest_path": None}) == Sorted((), 0)
    elsewhere = decided(PDF, {"manifest_path": "s3://another/manifests/7.json"})
    assert elsewhere is BlockReason.UNRESOLVED_REFERENCE


def test_a_json_string_can_be_the_reference_itself() -> None:
    whole = jsonpath.compile("$")
    assert isinstance(whole, JSONPath)
    rule = ReferenceRule(Ownership(), at=JsonPath(whole))
    read = READER.read_value((rule,), RESULT_URL, ME)
    assert not isinstance(read, BlockReason)
    assert READER.sort(read, ME, frozenset()) == Sorted(results(RESULT), 0)
    assert READER.read_value((), RESULT_URL, ME) is BlockReason.UNCOVERED
    assert READER.read_value((), 7, ME) == ()


@pytest.mark.parametrize("value", [{"help": [UPLOAD_URL]}, [UPLOAD_URL], UPLOAD_URL])
def test_a_value_that_is_ignored_as_a_whole_names_nothing(value: Any) -> None:
    whole = jsonpath.compile("$")
    assert isinstance(whole, JSONPath)
    assert READER.read_value((Ignored(JsonPath(whole)),), value, ME) == ()


def test_whatever_names_a_bucket_or_a_host_is_known_as_ours() -> None:
    catalog = replace(
        CATALOG, buckets={**CATALOG.buckets, "pics.example.com": Bucket("pics.example.com")}
    )
    reader = RowReader(catalog)
    for text in ("s3://sample-uploads/x", "at pics.example.com/x", "arn:aws-cn:s3:::x/y"):
        assert reader.is_ours(text)
    assert not reader.is_ours("https://another.example/x")


FILES = CATALOG.reference_sets["extracted_files"]


def test_a_manifest_names_its_files() -> None:
    read = READER.read_value(FILES, {"fileKeyList": ["a", "b", "a", None], "pages": 2}, ME)
    assert not isinstance(read, BlockReason)
    assert READER.sort(read, ME, frozenset()) == Sorted(
        (ObjectRef("sample-documents", "a"), ObjectRef("sample-documents", "b")), 0
    )
    assert READER.read_value(FILES, {"fileKeyList": []}, ME) == ()


@pytest.mark.parametrize(
    "text",
    ["null", "{}", "[]", '{"pages": 2}', '["a"]', '{"fileKeyList": {"a": "b"}}',
     '{"fileKeyList": "a"}', '{"fileKeyList": [7]}', '{"fileKeyList": [["a"]]}'],
)  # fmt: skip
def test_what_is_no_manifest_is_not_taken_for_an_empty_one(text: str) -> None:
    assert READER.read_value(FILES, json.loads(text), ME) is BlockReason.MALFORMED_JSON


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
    | st.sampled_from([UPLOAD_URL, RESULT_URL, UPLOAD, "sample-uploads", "https://x/y"]),
    lambda inner: st.lists(inner, max_size=4)
    | st.dictionaries(
        st.sampled_from(["url", "key", "bucket", "inputFileList", "imageUrl", "x"]), inner
    ),
    max_leaves=12,
)  # fmt: skip


@given(value=JSON)
def test_arbitrary_json_is_read_or_blocked_and_never_loses_a_url(value: Any) -> None:
    text = json.dumps(value)
    outcome = decided(FEATURE, {"option": text})
    if isinstance(outcome, Sorted):
        mine = text.count(json.dumps(UPLOAD_URL))
        others = text.count(json.dumps(RESULT_URL)) + text.count('"https://x/y"')
        if mine:
            assert uploads(UPLOAD)[0] in outcome.delete
        if not mine and not others:
            assert not {ref for ref in outcome.delete if ref.key == RESULT}

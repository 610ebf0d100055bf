"""The catalog's loader: what it understands, and what it answers to mistakes."""

import re
from pathlib import Path
from typing import Literal
from unicodedata import normalize

import jsonschema
import pytest
import yaml

import lethe_sandbox
from lethe_eraser.catalog import Catalog, CatalogError, Mask, ReferenceRule, TableName, load
from lethe_eraser.catalog_schema import json_schema
from lethe_eraser.domain import ObjectRef
from lethe_eraser.handlers import build
from tests.support.no_objects import NoObjects

SAMPLE = Path(lethe_sandbox.__file__).parent / "catalog.yaml"

GOOD = """\
version: 1
buckets: {mine: {region: ap-northeast-2, owner: "012345678901"}, other: }
hosts: {CDN.example.net: {bucket: mine, origin_path: /public}}
shared:
  - {bucket: mine, prefix: templates/}
  - {bucket: mine, key: logo.png}
  - {bucket: other, glob: "*.css"}
client_tables:
  client: {client_key: owner, request_type: type, request_id: rid, mask: {owner: erased}}
reference_sets:
  images:
    - {at: "$", url: url, key: key, bucket: bucket, ownership: owned}
    - {at: "$.list[*]", in_bucket: mine, ownership: {owned_under: "u/{client_key}/"}}
features:
  draw:
    handler: ai_generate
    feature:
      table: shop.draw
      mask: {option: {}, tags: [], prompt: null, name: gone, level: 0, public: false}
      keep: [created_at]
      references: {option: images, tags: []}
"""


def loaded(folder: Path, text: str) -> Catalog:
    path = folder / "catalog.yaml"
    path.write_text(text, encoding="utf-8")
    return load(path)


def problems(folder: Path, text: str) -> tuple[str, ...]:
    with pytest.raises(CatalogError) as caught:
        build(loaded(folder, text), NoObjects())
    return caught.value.problems


def test_a_catalog_is_resolved(tmp_path: Path) -> None:
    catalog = loaded(tmp_path, GOOD)
    table = catalog.features["draw"].tables[0]
    assert table.table == TableName("shop", "draw")
    assert (table.kind, table.primary_key, table.request_id) == ("feature", "id", "id")
    assert table.masks == {
        "option": Mask("{}", is_json=True),
        "tags": Mask("[]", is_json=True),
        "prompt": Mask(None),
        "name": Mask("gone"),
        "level": Mask("0"),
        "public": Mask("false"),
    }
    assert table.columns == {*table.masks, "id", "created_at"}
    first, second = table.references["option"]
    assert isinstance(first, ReferenceRule)
    assert isinstance(second, ReferenceRule)
    assert first.ownership.prefix("acct-1") == ""
    assert second.ownership.prefix("acct-1") == "u/acct-1/"
    assert catalog.client_tables[0].table == TableName("public", "client")
    assert catalog.hosts["cdn.example.net"][0].origin_path == "/public"
    assert catalog.buckets["mine"].owner == "012345678901"
    shared = {
        ref: catalog.shared.holds(ObjectRef(*ref))
        for ref in (
            ("mine", "templates/a.png"),
            ("mine", "logo.png"),
            ("other", "x/y.css"),
            ("mine", "logo.png.bak"),
            ("other", "templates/a.png"),
        )
    }
    assert list(shared.values()) == [True, True, True, False, False]


@pytest.mark.parametrize("entry", ["prefix: 템플릿/", "key: 템플릿/가.png", 'glob: "템*가.png"'])
@pytest.mark.parametrize("written", ["NFC", "NFD"])
@pytest.mark.parametrize("stored", ["NFC", "NFD"])
def test_what_is_shared_is_so_in_every_unicode_form(
    tmp_path: Path, entry: str, written: Literal["NFC", "NFD"], stored: Literal["NFC", "NFD"]
) -> None:
    text = GOOD.replace("prefix: templates/", normalize(written, entry))
    shared = loaded(tmp_path, text).shared
    assert shared.holds(ObjectRef("mine", normalize(stored, "템플릿/가.png")))
    assert not shared.holds(ObjectRef("mine", normalize(stored, "템플/나.png")))


def test_the_sample_products_catalog_is_complete() -> None:
    catalog = load(SAMPLE)
    handlers = build(catalog, NoObjects())
    assert len(catalog.features) == 19
    assert all(handlers(name) is not None for name in catalog.features)
    assert handlers("video-upscale") is None
    assert len(catalog.client_tables) == 3


def test_the_json_schema_takes_what_the_loader_takes() -> None:
    validator = jsonschema.Draft202012Validator(json_schema())
    validator.check_schema(json_schema())
    for text in (GOOD, SAMPLE.read_text(encoding="utf-8")):
        validator.validate(yaml.safe_load(text))
    assert not validator.is_valid(yaml.safe_load(GOOD.replace("handler:", "handlr:")))


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        (
            "    handler: ai_generate",
            "    handlr: ai_generate",
            (
                "catalog.yaml:16: features.draw.handlr: unknown name; did you mean handler?"
                " valid are: feature, handler, options, task"
            ),
        ),
        (
            "ai_generate",
            "ai_generator",
            (
                "catalog.yaml:16: features.draw.handler: unknown handler ai_generator;"
                " did you mean ai_generate? valid are: ai_generate, pdf"
            ),
        ),
        (
            "bucket: bucket, ownership: owned}",
            "bucket: bucket}",
            (
                "catalog.yaml:12: reference_sets.images.0: says nothing of ownership;"
                " write `ownership: owned`"
            ),
        ),
        (
            "ownership: owned}",
            "ownership: theirs}",
            "catalog.yaml:12: reference_sets.images.0.ownership: unknown ownership;",
        ),
        (
            "u/{client_key}/",
            "u/{client_key}",
            "catalog.yaml:13: reference_sets.images.1.ownership: owned_under holds",
        ),
        ("u/{client_key}/", "u/", "reference_sets.images.1.ownership: owned_under holds"),
        (
            "references: {option: images, tags: []}",
            "references: {option: imags, tags: []}",
            "unknown set imags; did you mean images? valid are: images",
        ),
        (
            "references: {option: images, tags: []}",
            "references: {option: images}",
            "catalog.yaml:19: features.draw.feature.mask.tags: is JSON and may name objects",
        ),
        (
            "references: {option: images, tags: []}",
            "references: {option: images, tags: [], url: images}",
            "features.draw.feature.references.url: names objects and is not masked",
        ),
        (
            "keep: [created_at]",
            "keep: [created_at, prompt]",
            "features.draw.feature.mask.prompt: is masked and kept; choose one",
        ),
        ("in_bucket: mine", "in_bucket: mien", "unknown bucket mien; did you mean mine?"),
        ("{bucket: other, glob", "{bucket: othr, glob", "catalog.yaml:7: shared.2.bucket: unknown"),
        (
            "{bucket: mine, key: logo.png}",
            "{bucket: mine, key: a, prefix: b}",
            "shared.1: name the shared objects by exactly one of prefix, key, glob, tag",
        ),
        ('"$.list[*]"', '"$.list["', "reference_sets.images.1.at: not a JSONPath"),
        ('"$.list[*]"', '"list[*]"', "a JSONPath begins with `$`"),
        ("mask: {owner: erased}", "mask: {type: x}", "the client key stays: add `owner: erased`"),
        (
            "mask: {owner: erased}",
            "mask: {owner: erased, rid: 0}",
            "column rid is needed to find the row; do not mask it",
        ),
        ("prompt: null", "prompt: {a: 1}", "a mask is null, {}, [], or a constant"),
        ('owner: "012345678901"', "owner: 12345678901", "is read as a number; put it in quotes"),
        ("version: 1", "version: 2", "catalog.yaml:1: version: input should be 1"),
        ("table: shop.draw", "table: a.b.c", "does not look like one"),
        ("      table: shop.draw\n", "", "features.draw.feature.table: is missing"),
        (
            "features:\n",
            (
                "features:\n  more: {handler: ai_generate, feature: {table: shop.draw,"
                " mask: {p: null}}}\n"
            ),
            "table shop.draw is claimed by features.more.feature already",
        ),
        ("  draw:", "  draw: {}\n  draw:", "draw stands twice"),
        ("version: 1", "version: 2026-13-45", "catalog.yaml:1: is read as a date or a number and"),
        ("version: 1", "? [version]\n: 1", "catalog.yaml:1: a name must be a text"),
        ("version: 1", "version: " + "[" * 5000, "catalog.yaml: is nested deeper than any catalog"),
        (
            "    handler: ai_generate",
            "    task: {table: t, mask: {r: null}}\n    handler: ai_generate",
            "features.draw.task: says not whose task a row is: add `request_id: <column>`",
        ),
        (
            "    handler: ai_generate",
            "    options: {a: 1}\n    handler: ai_generate",
            "catalog.yaml:16: features.draw.options: ai_generate takes none",
        ),
        (
            "handler: ai_generate",
            "handler: pdf",
            "features.draw.options.manifest: field required; the handler pdf takes manifest, files",
        ),
        (
            "handler: ai_generate",
            "handler: pdf\n    options: {manifest: prompt, files: imgs}",
            "options.manifest: must be a column with references: option, tags",
        ),
        (
            'ownership: {owned_under: "u/{client_key}/"}',
            "ownership: if_unreferenced",
            "if_unreferenced needs a look-up of this very table: add one for shop.draw",
        ),
        (
            "features:\n",
            "look_ups: {a: {table: t, expression: x, forms: [no key]}}\nfeatures:\n",
            "look_ups.a: a form names the key: write {key} or {encoded_key} in it",
        ),
        (
            "features:\n",
            "look_ups: {a: {table: t, expression: x; drop table t}}\nfeatures:\n",
            "an expression is no statement; take out the semicolon",
        ),
        (
            "features:\n",
            "look_ups: {a: {table: t, expression: x, buckets: [mien]}}\nfeatures:\n",
            "unknown bucket mien; did you mean mine?",
        ),
        (
            "features:\n",
            "ignored_tables: {shop.draw: nothing in it}\nfeatures:\n",
            "table shop.draw is claimed by",
        ),
        (
            "    handler: ai_generate",
            (
                "    handler: ai_generate\n    task: {table: t, request_id: r, mask: {p: null},"
                " unfinished: {state: [queued]}}"
            ),
            "how old may an unfinished row be? add `created_at: <column>`",
        ),
        ("bucket: mine, origin_path", "bucket: [", "catalog.yaml:3:"),
        ("CDN.example.net", "https://cdn.example.net", "does not look like one"),
        (
            "other: }\n",
            "other: {replicas: [mine]}}\n",
            "catalog.yaml:5: shared.0: mine holds copies; name other instead",
        ),
        (
            "other: }\n",
            (
                "other: {replicas: [mine]}}\n"
                "look_ups: {a: {table: t, expression: x, buckets: [mine]}}\n"
            ),
            "look_ups.a.buckets.0: mine holds copies; name other instead",
        ),
        (
            "hosts: {CDN",
            "hosts: {cdn.example.net: {bucket: other}, CDN",
            "catalog.yaml:3: hosts.CDN.example.net: stands twice: upper and lower case",
        ),
    ],
)
def test_a_mistake_is_answered_with_its_place_and_its_remedy(
    tmp_path: Path, before: str, after: str, expected: str
) -> None:
    assert before in GOOD
    found = problems(tmp_path, GOOD.replace(before, after, 1))
    assert any(expected in problem for problem in found), found


def test_a_look_up_knows_how_an_object_is_written(tmp_path: Path) -> None:
    (tmp_path / "catalog.yaml").write_text(
        GOOD.replace(
            "features:\n",
            "look_ups:\n  urls:\n    table: shop.draw\n    expression: a\n    buckets: [mine]\n"
            '    forms: ["https://x/{bucket}/{encoded_key}", "{key}"]\nfeatures:\n',
            1,
        ),
        encoding="utf-8",
    )
    [look_up] = load(tmp_path / "catalog.yaml").look_ups
    tricky = ObjectRef("mine", "a b/{bucket}+한.png")
    assert look_up.forms_of(tricky) == (
        "https://x/mine/a%20b/%7Bbucket%7D%2B%ED%95%9C.png",
        "a b/{bucket}+한.png",
    )
    assert look_up.forms_of(ObjectRef("other", "k")) == ()


def test_a_look_up_knows_an_object_by_its_copies(tmp_path: Path) -> None:
    look_up = "look_ups: {all: {table: t, expression: x, forms: ['s3://{bucket}/{key}']}}\n"
    text = GOOD.replace("{mine: {", "{mine: {replicas: [other], ")
    text = text.replace('  - {bucket: other, glob: "*.css"}\n', "")
    [found] = loaded(tmp_path, text.replace("features:\n", f"{look_up}features:\n", 1)).look_ups
    assert found.forms_of(ObjectRef("mine", "k")) == ("s3://mine/k", "s3://other/k")


def test_the_catalog_on_the_page_is_one(tmp_path: Path) -> None:
    page = (Path(__file__).parents[3] / "docs" / "catalog.md").read_text()
    written = "".join(re.findall(r"^```yaml\n(.*?)^```", page, re.MULTILINE | re.DOTALL))
    jsonschema.Draft202012Validator(json_schema()).validate(yaml.safe_load(written))
    (tmp_path / "catalog.yaml").write_text(written)
    catalog = load(tmp_path / "catalog.yaml")
    assert [look_up.name for look_up in catalog.look_ups] == ["collages", "covers"]
    assert catalog.active_account is not None
    assert catalog.look_ups[1].forms_of(ObjectRef("pictures", "a b.png")) == (
        "https://pictures.s3.ap-northeast-2.amazonaws.com/a%20b.png",
    )
    build(catalog, NoObjects())


def test_all_mistakes_are_answered_at_once(tmp_path: Path) -> None:
    text = GOOD.replace("in_bucket: mine", "in_bucket: mien").replace("option: images", "option: x")
    assert len(problems(tmp_path, text)) >= 2


def test_a_file_that_cannot_be_read_says_which_variable_names_it(tmp_path: Path) -> None:
    with pytest.raises(CatalogError, match="LETHE_ERASER_CATALOG names the file"):
        load(tmp_path / "nowhere.yaml")
    for content in (b"", b"- a\n", b"\xff\xfe\x00", b"a: \x00"):
        path = tmp_path / "catalog.yaml"
        path.write_bytes(content)
        with pytest.raises(CatalogError):
            load(path)

"""At its smallest scale the sample has every shape and special case, and is always the same."""

import json
from collections import Counter, defaultdict
from collections.abc import Iterator
from functools import cache
from random import Random

import pytest

from lethe_sandbox.ground_truth import GroundTruth, Row, row_digests
from lethe_sandbox.product import (
    ACCOUNT,
    DOCUMENTS,
    FEATURES,
    RESULTS,
    TABLES,
    UPLOADS,
    feature_table,
    json_type,
    task_table,
)
from lethe_sandbox.seed import HEAVY, SMALLEST_SCALE, SeedError, make
from lethe_sandbox.seed.cast import CAME_BACK, plan
from lethe_sandbox.seed.records import SeedObject, SeedRow
from lethe_sandbox.seed.witness import Witness
from tests.support.sample_references import places, shape

SEED = 5
CLIENTS = ("client", "client_old", "client_temp")


class Sample:
    def __init__(self, seed: int, scale: float) -> None:
        planned, made = make(seed, scale)
        self.cases = planned.cases
        self.everything = list(made)
        self.rows = [each for each in self.everything if isinstance(each, SeedRow)]
        self.objects = [each for each in self.everything if isinstance(each, SeedObject)]
        self.bodies = {(o.truth.bucket, o.truth.key): o.bodies for o in self.objects}
        witness = Witness(seed, scale, planned)
        for each in self.everything:
            witness.saw(each)
        self.truth: GroundTruth = witness.tells()

    def table(self, name: str) -> Iterator[tuple[Row, dict[str, str | None]]]:
        for row in self.rows:
            if row.truth.table == name:
                yield row.truth, dict(zip(TABLES[name].columns, row.values, strict=True))

    def json_columns(self) -> Iterator[tuple[Row, str, str | None]]:
        for feature in FEATURES:
            for table, column in (
                (feature_table(feature), "option"),
                (task_table(feature), "result"),
            ):
                for row, values in self.table(table.name):
                    yield row, column, values[column]


@cache
def sample(seed: int = SEED, scale: float = SMALLEST_SCALE) -> Sample:
    return Sample(seed, scale)


def test_the_same_seed_and_scale_give_the_same_everything() -> None:
    again = Sample(SEED, SMALLEST_SCALE)
    assert again.everything == sample().everything
    assert again.truth == sample().truth


def test_another_seed_gives_another_sample_with_the_same_cast() -> None:
    other = sample(SEED + 1)
    assert other.rows != sample().rows
    assert list(other.truth.persons) == list(sample().truth.persons)


@pytest.mark.parametrize("scale", [0, -1, 0.0001, 11])
def test_a_scale_that_makes_no_sense_is_refused(scale: float) -> None:
    with pytest.raises(SeedError, match="a scale is from"):
        make(SEED, scale)


def test_the_heavy_person_has_exactly_what_the_scale_asks_for() -> None:
    scaled = sample(SEED, 0.03)
    assert scaled.truth.persons[HEAVY].requests == 840
    owned = [o for o in scaled.truth.all_objects() if o.owner == HEAVY]
    images = [o for o in owned if not o.key.startswith("manifests/")]
    assert len(images) == 1500


def test_at_full_scale_there_are_two_hundred_others() -> None:
    planned = plan(Random(SEED), 1.0)  # noqa: S311 - repeatable on purpose
    assert len(planned.members) == 201
    assert sum(case.person == HEAVY for case in planned.cases) == 28_000


@pytest.mark.parametrize("scale", [SMALLEST_SCALE, 0.03, 1.0])
def test_about_a_third_of_the_persons_is_left_alone(scale: float) -> None:
    members = plan(Random(SEED), scale).members  # noqa: S311 - repeatable on purpose
    alone = sum(not member.requested for member in members) / len(members)
    assert 0.25 < alone < 0.42
    assert len({member.key for member in members}) == len(members)


@pytest.mark.parametrize("column", ["jsonb", "text", "json"])
def test_every_shape_of_an_option_stands_in_every_column_type(column: str) -> None:
    shapes = Counter(
        shape(value)
        for row, name, value in sample().json_columns()
        if name == "option" and json_type(row.type) == column
    )
    empty = '""' if column != "text" else ""
    assert not {
        *(
            f"{name} {form}"
            for name in ("inputImageUrl", "imageUrl", "url")
            for form in ("s3", "cdn")
        ),
        *(f"bucket+key+url {form}" for form in ("s3", "cdn", "path")),
        *(f"inputFileList 2 keys {form}" for form in ("s3", "cdn")),
        "imageUrl path",
        *(f"empty {value}" for value in (None, "null", "{}", "[]", empty)),
        "no reference",
    } - set(shapes)


@pytest.mark.parametrize("column", ["jsonb", "text", "json"])
def test_every_shape_of_a_result_stands_in_every_column_type(column: str) -> None:
    shapes = Counter(
        shape(value)
        for row, name, value in sample().json_columns()
        if name == "result" and json_type(row.type) == column
    )
    empty = '""' if column != "text" else ""
    assert not {
        *(f"url {form}" for form in ("s3", "cdn", "path")),
        *(f"url+webpUrl {form}" for form in ("s3", "cdn")),
        "fileList 1 urls cdn",
        "fileList 2 mixed cdn",
        "fileList 3 keys s3",
        "fileList 4 urls s3",
        *(f"empty {value}" for value in (None, "null", "{}", "[]", empty)),
    } - set(shapes)


def test_shapes_are_mixed_within_every_table() -> None:
    shapes = defaultdict(set)
    for row, _, value in sample().json_columns():
        shapes[row.table].add(shape(value))
    assert len(shapes) == 36
    assert min(len(each) for each in shapes.values()) >= 4


def test_whatever_is_erased_can_be_found_and_whatever_stays_is_not_asked_for() -> None:
    """Each erased object is named by an erased row of its owner, and no result of anybody else."""
    named: dict[str | None, set[tuple[str, str]]] = defaultdict(set)
    for row, column, value in sample().json_columns():
        found = places(value)
        if row.fate == "erased":
            assert None not in found, "an erased row names a host that nobody knows"
            owned = {place for place in found if place is not None}
            named[row.owner] |= owned
            if column == "result":
                stored = (sample().truth.objects[bucket].get(key) for bucket, key in owned)
                owners = {one.owner if one else row.owner for one in stored}
                assert owners <= {row.owner, None}
        elif row.fate == "blocked" and sample().truth.persons[row.owner or ""].role != CAME_BACK:
            assert None in found
    for row, values in sample().table("pdf_extraction"):
        path = (values["manifest_path"] or "").removeprefix(f"s3://{DOCUMENTS}/")
        if row.fate == "erased" and path:
            listed = json.loads(sample().bodies[DOCUMENTS, path][-1])["fileKeyList"]
            named[row.owner] |= {(DOCUMENTS, key) for key in (path, *listed)}
    for one in sample().truth.all_objects():
        if one.fate == "erased":
            assert (one.bucket, one.key) in named[one.owner]
        elif one.fate == "blocked":
            assert (one.bucket, one.key) not in named[one.owner]


def test_digests_are_those_of_the_rows() -> None:
    for row in sample().rows:
        assert row.truth.digests == row_digests(row.values)


def borrowed() -> set[tuple[bool, bool]]:
    """(the row's person is to be erased, the object's owner is) for inputs of somebody else."""
    found = set()
    truth = sample().truth
    for row, column, value in sample().json_columns():
        for place in places(value):
            one = truth.objects[place[0]].get(place[1]) if place else None
            if column == "option" and one and one.owner and row.owner and one.owner != row.owner:
                found.add((truth.persons[row.owner].requested, truth.persons[one.owner].requested))
    return found


def test_people_use_each_others_pictures_in_every_direction() -> None:
    assert {(True, False), (False, True), (True, True)} <= borrowed()


@pytest.mark.parametrize(
    ("prefix", "bucket", "column"),
    [("templates/", UPLOADS, "option"), ("public/samples/", RESULTS, "result")],
)
def test_erased_and_other_people_share_objects(prefix: str, bucket: str, column: str) -> None:
    fates = {
        row.fate
        for row, name, value in sample().json_columns()
        for place in places(value)
        if name == column and place and place[0] == bucket and place[1].startswith(prefix)
    }
    assert {"erased", "not_requested"} <= fates
    shared = [one for one in sample().truth.objects[bucket].values() if one.fate == "shared"]
    assert shared
    assert all(one.key.startswith(prefix) for one in shared)


@pytest.mark.parametrize("bucket", [RESULTS, DOCUMENTS])
def test_lookalike_keys_belong_to_somebody_who_stays(bucket: str) -> None:
    objects = sample().truth.objects[bucket]
    pairs = [
        (one.fate, objects[f"{key}.bak"].fate)
        for key, one in objects.items()
        if f"{key}.bak" in objects
    ]
    assert ("erased", "not_requested") in pairs


def test_ids_of_one_document_begin_like_those_of_another() -> None:
    keys = set(sample().truth.objects[DOCUMENTS])
    assert any(key.replace("/1.png", "/11.png") in keys for key in keys if key.endswith("/1.png"))


def test_the_versioned_bucket_has_histories_and_markers_of_people_of_both_kinds() -> None:
    for fate in ("erased", "not_requested"):
        documents = [o for o in sample().truth.objects[DOCUMENTS].values() if o.fate == fate]
        assert {len(one.etags) for one in documents} >= {1, 2, 3}
        assert any(one.deleted for one in documents)


def test_client_keys_are_exotic_and_alike() -> None:
    persons = sample().truth.persons
    requested = {key for key, person in persons.items() if person.requested}
    assert {"user+tag@example.com", "한글-사용자", "with a space", "o'brien & sons"} <= requested
    for key, other in (
        ("acct-000019", "acct-000019.bak"),
        ("acct-000019", "ACCT-000019"),
        ("user+tag@example.com", "user tag@example.com"),
        ("100%_wild", "100 and wild"),
    ):
        assert persons[key].requested
        assert not persons[other].requested
        assert {row.owner for row in sample().truth.all_rows()} >= {key, other}


def test_urls_of_exotic_keys_are_percent_encoded() -> None:
    options = [value for _, _, value in sample().json_columns() if value]
    assert any("uploads/user%2Btag%40example.com/" in value for value in options)
    assert any("uploads/user%2Btag@example.com/" in value for value in options)
    assert any("uploads/%ED%95%9C" in value for value in options)
    assert any("uploads/100%25_wild/" in value for value in options)
    assert any("uploads/c%23-fan%3Fpage%3D1/" in value for value in options)


def client_rows() -> Iterator[tuple[Row, str, str | None, str | None]]:
    for name in CLIENTS:
        for row, values in sample().table(name):
            kind, number = list(values.values())[2:4]
            yield row, name, kind, number


def test_requests_stand_in_several_client_tables_and_twice_in_one() -> None:
    where = defaultdict(list)
    for row, name, kind, number in client_rows():
        where[row.owner, kind, number].append((name, row.fate))
    tables = [sorted(rows) for rows in where.values()]
    assert [("client", "erased"), ("client_temp", "erased")] in tables
    assert [("client", "names_blocked"), ("client_temp", "names_blocked")] in tables
    assert [("client", "erased"), ("client", "erased")] in tables
    assert [("client_old", "erased"), ("client_old", "erased")] in tables


def test_client_rows_name_nothing_or_what_is_gone() -> None:
    rows = {(row.table, row.id) for row in sample().truth.all_rows()}
    erased = [entry for entry in client_rows() if entry[0].fate == "erased"]
    assert {name for _, name, _, number in erased if number is None} == set(CLIENTS)
    gone = [
        (feature_table(kind or "").name, int(number))
        for _, _, kind, number in erased
        if kind in FEATURES and number is not None
    ]
    assert set(gone) - rows
    tasks = {
        (table.removesuffix("_task"), int(values["feature_id"] or 0))
        for table in TABLES
        if table.endswith("_task")
        for _, values in sample().table(table)
    }
    orphans = {(table.removesuffix("_feature"), number) for table, number in set(gone) - rows}
    assert orphans & tasks, "no task survived its feature row"
    assert orphans - tasks


def test_some_people_stand_in_one_client_table_only() -> None:
    tables = defaultdict(set)
    for row, name, _, _ in client_rows():
        tables[row.owner].add(name)
    assert {"client_old"} in tables.values()
    assert {"client_temp"} in tables.values()


def test_one_person_has_no_data_at_all() -> None:
    truth = sample().truth
    nobody = [person for person in truth.persons.values() if person.role == "no data"]
    assert [person.end for person in nobody] == ["verified"]
    assert nobody[0].key not in {row.owner for row in truth.all_rows()}


def test_blocked_ends_name_their_rows() -> None:
    truth = sample().truth
    counted = Counter((row.owner, row.reason) for row in truth.all_rows() if row.reason)
    expected = {
        (person.key, reason): count
        for person in truth.persons.values()
        for reason, count in person.reasons.items()
    }
    assert counted == expected
    assert {reason for _, reason in expected} == {
        "unknown_type",
        "unresolved_reference",
        "manifest_missing",
        "subject_active",
    }
    blocked = [person for person in truth.persons.values() if person.end == "blocked"]
    assert max(len(person.reasons) for person in blocked) == 3
    assert all(person.requested and person.reasons for person in blocked)
    # Blocked people lose what is not blocked.
    for person in blocked:
        if person.role == CAME_BACK:
            continue
        fates = {row.fate for row in truth.all_rows() if row.owner == person.key}
        assert {"blocked", "erased"} <= fates
    assert any(one.fate == "blocked" for one in truth.objects[RESULTS].values())
    assert any(one.fate == "blocked" for one in truth.objects[DOCUMENTS].values())


def test_who_came_back_stays_whole_and_whoever_was_not_asked_for_has_an_account() -> None:
    truth = sample().truth
    (back,) = (person for person in truth.persons.values() if person.role == CAME_BACK)
    assert (back.requested, back.end, back.reasons) == (True, "blocked", {"subject_active": 1})
    rows = [row for row in truth.all_rows() if row.owner == back.key]
    assert {row.fate for row in rows} == {"blocked"}
    assert {row.table for row in rows if row.reason} == {ACCOUNT}
    assert len(rows) > 10
    objects = [one.fate for one in truth.all_objects() if one.owner == back.key]
    assert set(objects) == {"blocked"}
    customers = {row.owner for row in truth.rows[ACCOUNT].values()}
    asked = {person.key for person in truth.requested}
    assert customers & asked == {back.key}
    assert customers | asked == set(truth.persons)


def test_those_who_are_left_alone_have_the_same_troubles() -> None:
    truth = sample().truth
    alone = [row for row in truth.all_rows() if row.fate == "not_requested"]
    assert "video-upscale" in {row.type for row in alone}
    assert not any(row.reason for row in alone)
    untouched = [value for row, _, value in sample().json_columns() if row.fate == "not_requested"]
    assert any(None in places(value) for value in untouched)


def test_manifests_have_up_to_a_thousand_files_and_some_are_missing() -> None:
    sizes = set()
    missing: Counter[str] = Counter()
    for row, values in sample().table("pdf_extraction"):
        path = values["manifest_path"]
        if path is None:
            continue
        key = path.removeprefix(f"s3://{DOCUMENTS}/")
        bodies = sample().bodies.get((DOCUMENTS, key))
        if bodies is None:
            missing[row.fate] += 1
        else:
            sizes.add(len(json.loads(bodies[-1])["fileKeyList"]))
    assert {0, 1, 1000} <= sizes
    assert missing == {"blocked": 3, "not_requested": 1}


def test_prompts_are_long_or_missing_or_empty() -> None:
    prompts = [
        values["prompt"]
        for feature in FEATURES
        for _, values in sample().table(feature_table(feature).name)
    ]
    assert None in prompts
    assert "" in prompts
    assert max(len((prompt or "").encode()) for prompt in prompts) > 10_000


def test_some_rows_are_nobodys() -> None:
    assert any(row.fate == "nobodys" for row in sample().truth.all_rows())
    assert any(one.fate == "nobodys" for one in sample().truth.all_objects())

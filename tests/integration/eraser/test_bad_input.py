"""Whatever a row or a manifest holds: that row is blocked by name, and the rest goes on."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import pytest

from lethe_eraser.check.rows import check_rows
from tests.integration.eraser.world import NOTHING, SUBJECT, World, to_the_end

BOMB: Final = "[" * 200_000
ELSEWHERE: Final = "https://another-company.s3.amazonaws.com/theirs.png"
LOOK_ALIKE: Final = "https://cdn.test.example.evil.example/x.png"

RESULTS: Final = {
    "not json": "malformed_json",
    "[1, 2": "malformed_json",
    '["a list"]': "malformed_json",
    '{"url": 7}': "malformed_json",
    '{"url": {"nested": "x"}}': "malformed_json",
    '{"url": "a", "url": "b"}': "malformed_json",
    "7": "malformed_json",
    '"https://cdn.test.example/a.png"': "malformed_json",
    BOMB: "malformed_json",
    '{"a":' * 5000 + "1" + "}" * 5000: "malformed_json",
    "1" * 10_000: "malformed_json",
    json.dumps({"note": "x" * 10_485_760}): "malformed_json",
    json.dumps({"url": ELSEWHERE}): "unresolved_reference",
    json.dumps({"url": LOOK_ALIKE}): "unresolved_reference",
    json.dumps({"url": "https://cdn.test.example@evil.example/x.png"}): "unresolved_reference",
    json.dumps({"url": None, "other": ELSEWHERE}): "uncovered",
    json.dumps({"\u0000": ELSEWHERE}).replace("\\u0000", "n"): "uncovered",
}
HARMLESS: Final = ["null", "{}", "[]", '""', "", "   "]

MANIFESTS: Final = {
    b"": "manifest_invalid",
    b"null": "manifest_invalid",
    b"[]": "manifest_invalid",
    b'{"fileKeyList": {}}': "manifest_invalid",
    b'{"fileKeyList": ["a"], "fileKeyList": []}': "manifest_invalid",
    b"\x89PNG": "manifest_invalid",
    BOMB.encode(): "manifest_invalid",
    b'{"fileKeyList": [' + b'"k",' * 300_000 + b'"k"]}': "manifest_invalid",
    b'{"fileKeyList": ["' + b"k" * 1025 + b'"]}': "unresolved_reference",
    json.dumps({"fileKeyList": [], "cover": ELSEWHERE}).encode(): "uncovered",
}


@pytest.fixture
async def bad(world: World) -> World:
    """A person with every bad thing, and with two requests that are as they should be."""
    for number, result in enumerate([*RESULTS, *HARMLESS]):
        request = await world.sketch(number)
        await world.write(
            "update sketch_task set result = :r where feature_id = :f", r=result, f=request
        )
    for number, manifest in enumerate(MANIFESTS):
        await world.document(number, files=0)
        world.put("documents", f"manifests/{SUBJECT}-{number}.json", manifest)
    await world.document(100, files=3)
    await world.sketch(100)
    return world


async def test_a_bad_row_is_blocked_by_name_and_the_rest_is_erased(bad: World) -> None:
    tasks = await bad.rows("select * from sketch_task order by id")
    documents = await bad.rows("select * from document order by id")
    await bad.accept(bad.requested())
    assert await to_the_end(bad, bad.eraser(batch_rows=50)) == "blocked"
    expected = Counter([*RESULTS.values(), *MANIFESTS.values()])
    assert await bad.value("select reasons from lethe.job") == expected

    left = await bad.rows("select * from sketch_task where result <> '{}' order by id")
    assert left == tasks[: len(RESULTS)]
    left = await bad.rows("select * from document where manifest_path is not null order by id")
    assert left == documents[: len(MANIFESTS)]
    # The manifests that could not be read are there, and nothing else of the documents.
    assert bad.keys("documents") == {
        f"manifests/{SUBJECT}-{number}.json" for number in range(len(MANIFESTS))
    }
    # Every option was readable: all inputs are gone. Results of replaced values were never named.
    assert bad.keys("uploads") == set()
    assert f"public/{SUBJECT}-100.png" not in bad.keys("results")
    stay = await bad.value("select count(*) from client where client_key = :s", s=SUBJECT)
    assert stay == len(RESULTS) + len(MANIFESTS)


async def test_what_is_mended_is_found_by_the_next_request(bad: World) -> None:
    await bad.accept(bad.requested())
    await to_the_end(bad, bad.eraser(batch_rows=50))
    await bad.write("update sketch_task set result = '{}'")
    for number in range(len(MANIFESTS)):
        bad.put("documents", f"manifests/{SUBJECT}-{number}.json", b'{"fileKeyList": []}')
    await bad.accept(bad.requested())
    await to_the_end(bad, bad.eraser(batch_rows=50))
    states = await bad.rows("select state from lethe.job order by job_id")
    assert [row.state for row in states] == ["blocked", "verified"]


LARGE: Final = json.dumps({"note": "x" * 10_485_760})
DEEP: Final = '{"a":' * 2000 + "1" + "}" * 2000
NO_JSON: Final = {"no JSON": "not json", "cut short": '{"url": "', "a bomb of lists": BOMB}
"""What a column of type jsonb does not take."""


@dataclass(frozen=True)
class Place:
    """Where something bad may stand, and what it is called then."""

    table: str
    column: str
    bad: Mapping[str, tuple[str, str | None]]
    """By what it is: the value, and the reason; None for what is harmless and erased."""
    object: tuple[str, str]
    """The bucket and key of what is named there when it is not bad."""
    type: str = "text"


def _called(reason: str, *values: Mapping[str, str]) -> dict[str, tuple[str, str | None]]:
    return {name: (value, reason) for some in values for name, value in some.items()}


_OPTIONS: Final = _called(
    "malformed_json",
    {
        "a list": '[{"bucket": "b", "key": "k"}]',
        "a number": "7",
        "a text": '"uploads/a.png"',
        "10 MB": LARGE,
        "a bomb of objects": DEEP,
        "a bomb of lists in a field": '{"key": ' + "[" * 2000 + "]" * 2000 + "}",
    },
) | {
    "null": ("null", None),
    "another company's": ('{"bucket": "another-company", "key": "a"}', "unresolved_reference"),
    "another company's URL": (json.dumps({"mask": ELSEWHERE}), "uncovered"),
}

_UPLOAD: Final = ("uploads", "uploads/{subject}/{number}.png")

PLACES: Final = {
    "option": Place("sketch_feature", "option", _OPTIONS, _UPLOAD, type="jsonb"),
    "option in a text": Place(
        "sketch_feature", "option", _OPTIONS | _called("malformed_json", NO_JSON), _UPLOAD
    ),
    "result": Place(
        "sketch_task",
        "result",
        _called(
            "malformed_json",
            NO_JSON,
            {
                "a list": json.dumps([{"url": ELSEWHERE}]),
                "10 MB": LARGE,
                "a bomb of objects": DEEP,
            },
        )
        | {
            "null": ("null", None),
            "another company's": (json.dumps({"url": ELSEWHERE}), "unresolved_reference"),
        },
        ("results", "public/{subject}-{number}.png"),
    ),
    "manifest": Place(
        "document",
        "manifest",
        _called(
            "manifest_invalid",
            NO_JSON,
            {
                "null": "null",
                "a list": '["files/a.png"]',
                "a bomb of objects": DEEP,
                "10 MB that do not end": LARGE[:-2],
            },
        )
        | {
            "another company's": (json.dumps({"fileKeyList": [ELSEWHERE]}), "unresolved_reference"),
        },
        ("documents", "files/{subject}/{number}/0.png"),
    ),
}


async def _ruin(world: World, place: Place, number: int, value: str) -> int:
    """Make a request with its objects, and put something bad into it; gives its row."""
    if place.column == "manifest":
        row = await world.document(number)
        world.put("documents", f"manifests/{SUBJECT}-{number}.json", value.encode())
        return row
    request = await world.sketch(number)
    owner = "id" if place.table == "sketch_feature" else "feature_id"
    bad = await world.write(
        f"update {place.table} set {place.column} = cast(:v as {place.type})"  # noqa: S608 - our own names
        f" where {owner} = :r returning id",
        v=value,
        r=request,
    )
    return int(bad)


async def _mend(world: World, place: Place, number: int, row: int) -> None:
    """Let a request be as it was before it was ruined."""
    key = f"uploads/{SUBJECT}/{number}.png"
    good = {
        "option": {"bucket": world.buckets["uploads"], "key": key},
        "result": {"url": f"https://cdn.test.example/{SUBJECT}-{number}.png"},
        "manifest": {"fileKeyList": [f"files/{SUBJECT}/{number}/{n}.png" for n in range(2)]},
    }
    text = json.dumps(good[place.column])
    if place.column == "manifest":
        world.put("documents", f"manifests/{SUBJECT}-{number}.json", text.encode())
        return
    await world.write(
        f"update {place.table} set {place.column} = cast(:v as {place.type}) where id = :r",  # noqa: S608 - our own names
        v=text,
        r=row,
    )


@pytest.mark.parametrize("where", PLACES)
async def test_each_bad_value_is_called_by_its_name_and_nothing_is_lost(
    world: World, where: str
) -> None:
    place = PLACES[where]
    if where == "option in a text":
        await world.write("alter table sketch_feature alter column option type text")
    rows = {
        name: await _ruin(world, place, number, value)
        for number, (name, (value, _)) in enumerate(place.bad.items())
    }
    await world.sketch(100)
    await world.document(100, files=3)
    before = await _whole(world, place)
    async with world.engine.connect() as connection:
        # What is run before every window stumbles over none of it; it opens no manifest.
        findings = await check_rows(connection, world.catalog, 100)
    named = set() if place.column == "manifest" else {f"public.{place.table}.{place.column}"}
    assert {one.where for one in findings} == named
    await world.accept(world.requested())
    assert await to_the_end(world, world.eraser(batch_rows=50)) == "blocked"

    expected = {name: reason for name, (_, reason) in place.bad.items() if reason is not None}
    names = {str(row): name for name, row in rows.items()}
    blocked = await world.rows("select table_name, row_key, reason from lethe.blocked_row")
    assert {names[row.row_key]: row.reason for row in blocked} == expected
    assert {row.table_name for row in blocked} == {f"public.{place.table}"}
    # What is blocked is as it was, and can be found again; the rest is erased.
    unchanged = before.items() & (await _whole(world, place)).items()
    assert {id_ for id_, _ in unchanged} == {rows[name] for name in expected}
    assert (await world.left_of(SUBJECT))["client"] == len(expected)
    numbers = [number for number, name in enumerate(place.bad) if name in expected]
    bucket, key = place.object
    left = {key.format(subject=SUBJECT, number=number) for number in numbers}
    assert left <= world.keys(bucket)
    assert not any(f"{SUBJECT}/100" in key or f"{SUBJECT}-100" in key for key in _keys(world))

    # Mended, they are found and erased; only what nothing names any more cannot be.
    for number in numbers:
        await _mend(world, place, number, rows[list(place.bad)[number]])
    await world.accept(world.requested())
    assert await to_the_end(world, world.eraser(batch_rows=50)) == "verified"
    assert await world.left_of(SUBJECT) == {**NOTHING, "objects": len(place.bad) - len(expected)}


async def _whole(world: World, place: Place) -> dict[int, str]:
    """Every row of the place's table as text: Python reads no bomb."""
    query = f"select id, row_to_json(whole)::text from {place.table} as whole"  # noqa: S608 - our own names
    rows: Sequence[tuple[int, str]] = await world.rows(query)
    return dict(rows)


def _keys(world: World) -> set[str]:
    return set().union(*(world.keys(bucket) for bucket in world.buckets))

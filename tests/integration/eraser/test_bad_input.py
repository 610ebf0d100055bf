"""Whatever a row or a manifest holds: that row is blocked by name, and the rest goes on."""

import json
from collections import Counter
from typing import Final

import pytest

from tests.integration.eraser.world import SUBJECT, World, to_the_end

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

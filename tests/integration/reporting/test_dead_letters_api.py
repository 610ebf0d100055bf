"""`/v1/dead-letters`: what is shown of a record nobody could handle, and what never is."""

from typing import Any

import httpx

from tests.integration.reporting.running import Api
from tests.integration.reporting.story import Story

INSERT = """
insert into lethe.dead_letter (
    topic, "partition", "offset", key, reason, error_class, attempts,
    origin_topic, origin_partition, origin_offset, headers, payload, state
) values (
    :topic, 3, :offset, :key, :reason, 'NotOursError', 1,
    'erasure.requests.v1', 3, 17, :headers, :payload, :state
)
"""


async def bury(api: Api, offset: int, **changed: Any) -> None:
    values = {
        "topic": "erasure.requests.v1.DLT",
        "offset": offset,
        "key": b"k",
        "reason": "not_ours",
        "headers": b"x-mail\0kim@example.com",
        "payload": b"kim@example.com",
        "state": "open",
    }
    await api.run(INSERT, **{**values, **changed})


def offsets(answer: httpx.Response) -> list[int]:
    assert answer.status_code == 200, answer.text
    return [item["offset"] for item in answer.json()["items"]]


async def test_a_dead_letter_is_shown_without_what_it_holds(api: Api) -> None:
    ref = Story().ref
    await bury(api, 1, key=ref.encode())
    answer = await api.get("/v1/dead-letters")
    (shown,) = answer.json()["items"]
    assert shown["reason"] == "not_ours"
    assert shown["subject_ref"] == ref
    assert shown["origin_offset"] == 17
    assert shown["state"] == "open"
    assert {"payload", "headers", "key"}.isdisjoint(shown)
    assert "kim@example.com" not in answer.text


async def test_what_a_foreign_record_could_smuggle_in_is_not_shown(api: Api) -> None:
    await bury(api, 1, key=b"kim@example.com", reason="failed for kim@example.com")
    answer = await api.get("/v1/dead-letters")
    (shown,) = answer.json()["items"]
    assert shown["subject_ref"] is None
    assert shown["reason"] == "unknown"
    assert "kim" not in answer.text


async def test_open_ones_are_listed_unless_others_are_asked_for(api: Api) -> None:
    await bury(api, 1)
    await bury(api, 2, state="replayed")
    await bury(api, 3, topic="erasure.events.v1.DLT")
    assert offsets(await api.get("/v1/dead-letters")) == [3, 1]
    assert offsets(await api.get("/v1/dead-letters", state="replayed")) == [2]
    assert offsets(await api.get("/v1/dead-letters", state="all")) == [3, 2, 1]
    of_events = await api.get("/v1/dead-letters", topic="erasure.events.v1.DLT")
    assert offsets(of_events) == [3]


async def test_pages_follow_each_other(api: Api) -> None:
    for offset in range(5):
        await bury(api, offset)
    first = await api.get("/v1/dead-letters", limit=3)
    assert offsets(first) == [4, 3, 2]
    second = await api.get("/v1/dead-letters", limit=3, cursor=first.json()["next_cursor"])
    assert offsets(second) == [1, 0]
    assert second.json()["next_cursor"] is None


async def test_a_query_that_is_not_understood_is_refused(api: Api) -> None:
    for query in ({"state": "opened"}, {"cursor": "x"}, {"stat": "open"}, {"topic": "a\0b"}):
        answer = await api.get("/v1/dead-letters", **query)
        assert answer.status_code == 422, query

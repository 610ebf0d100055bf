"""`/v1/requests` on a real socket and a real database."""

from datetime import timedelta
from uuid import UUID, uuid4

import httpx
import pytest
from sqlalchemy import text

from lethe_contracts.events import Accepted, BatchErased, HoldApplied, Started, Verified
from lethe_reporting.storage.requests import LONGEST_TIMELINE, _timeline
from tests.integration.reporting.running import Api, make_key
from tests.integration.reporting.story import CIPHERTEXT, Story
from tests.support.serving import client


def ids(answer: httpx.Response) -> list[UUID]:
    assert answer.status_code == 200, answer.text
    return [UUID(item["id"]) for item in answer.json()["items"]]


async def test_a_request_shows_its_counts_blockers_and_timeline(api: Api) -> None:
    story = Story()
    hold = story.held()
    life = story.life(blocked=True)
    await api.project(hold, *life)
    answer = await api.get(f"/v1/requests/{story.request_id}")
    assert answer.status_code == 200
    shown = answer.json()
    assert shown["state"] == "blocked"
    assert shown["blockers"] == {"uncovered": 3}
    assert shown["counts"]["upscale"]["feature_rows"] == 9
    assert shown["totals"]["objects_gone"] == 18
    assert shown["team"] == "support"
    assert shown["subject_ref"] == story.ref
    assert shown["overdue"] is False
    assert shown["timeline_complete"] is True
    assert [entry["event"] for entry in shown["timeline"]] == [
        "held",
        "requested",
        "accepted",
        "started",
        "batch_erased",
        "batch_erased",
        "erased",
        "blocked",
    ]
    times = [entry["at"] for entry in shown["timeline"]]
    assert times == sorted(times)
    batch = shown["timeline"][4]
    assert batch["details"] == {"request_type": "upscale", "batch": 1}
    assert batch["source"] == "lethe/eraser"
    assert CIPHERTEXT not in answer.text


async def test_a_request_of_which_only_the_eraser_spoke_is_shown_with_what_is_known(
    api: Api,
) -> None:
    story = Story()
    await api.project(story.says(Accepted, not_before=story.begun))
    shown = (await api.get(f"/v1/requests/{story.request_id}")).json()
    assert shown["state"] == "accepted"
    assert (shown["team"], shown["deadline"], shown["overdue"]) == (None, None, False)
    await api.project(story.asked())
    shown = (await api.get(f"/v1/requests/{story.request_id}")).json()
    assert (shown["state"], shown["team"]) == ("accepted", "support")


async def test_an_unknown_request_is_a_problem(api: Api) -> None:
    answer = await api.get(f"/v1/requests/{uuid4()}")
    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["type"] == "urn:lethe:problem:unknown-request"


async def test_filters_choose_by_state_team_and_deadline(api: Api) -> None:
    waiting = Story(team="crm")
    late = Story(due_in=timedelta(minutes=-5))
    done_late = Story(due_in=timedelta(minutes=-5))
    blocked_late = Story(due_in=timedelta(minutes=-5))
    await api.project(
        waiting.asked(),
        late.asked(),
        late.says(Started),
        *done_late.life(),
        *blocked_late.life(blocked=True),
    )
    newest_first = sorted(
        (each.request_id for each in (waiting, late, done_late, blocked_late)), reverse=True
    )
    assert ids(await api.get("/v1/requests")) == newest_first
    assert ids(await api.get("/v1/requests", status="running")) == [late.request_id]
    both = await api.get("/v1/requests", status=["running", "verified"])
    assert set(ids(both)) == {late.request_id, done_late.request_id}
    assert ids(await api.get("/v1/requests", team="crm")) == [waiting.request_id]
    overdue = await api.get("/v1/requests", overdue="true")
    assert set(ids(overdue)) == {late.request_id, blocked_late.request_id}
    assert all(item["overdue"] for item in overdue.json()["items"])
    rest = await api.get("/v1/requests", overdue="false")
    assert set(ids(rest)) == {waiting.request_id, done_late.request_id}
    soon = await api.get("/v1/requests", due_before=waiting.deadline.isoformat())
    assert waiting.request_id not in ids(soon)
    assert len(ids(soon)) == 3
    assert ids(await api.get("/v1/requests", team="crm", overdue="true")) == []


async def test_pages_follow_each_other_without_a_gap_while_requests_come_in(api: Api) -> None:
    stories = [Story() for _ in range(7)]
    await api.project(*(story.asked() for story in stories))
    expected = sorted((story.request_id for story in stories), reverse=True)
    found: list[UUID] = []
    query: dict[str, str] = {"limit": "3"}
    for _ in range(3):
        answer = await api.get("/v1/requests", **query)
        found += ids(answer)
        await api.project(Story().asked(), stories[0].says(Started))
        cursor = answer.json()["next_cursor"]
        if cursor is None:
            break
        query["cursor"] = cursor
    assert cursor is None
    assert found == expected


async def test_a_full_last_page_has_no_next_one(api: Api) -> None:
    await api.project(Story().asked(), Story().asked())
    answer = await api.get("/v1/requests", limit=2)
    assert len(ids(answer)) == 2
    assert answer.json()["next_cursor"] is None


@pytest.mark.parametrize(
    ("query", "pointer"),
    [
        ({"stauts": "running"}, "/query/*"),
        ({"status": "acct-000017"}, "/query/status/0"),
        ({"limit": "0"}, "/query/limit"),
        ({"limit": "201"}, "/query/limit"),
        ({"limit": "many"}, "/query/limit"),
        ({"overdue": "acct-000017"}, "/query/overdue"),
        ({"due_before": "2026-11-20T00:00:00"}, "/query/due_before"),
        ({"due_before": "2030"}, "/query/due_before"),
        ({"cursor": "acct-000017"}, "/query/cursor"),
        ({"team": "a\0b"}, "/query/team"),
    ],
)
async def test_a_query_that_is_not_understood_is_refused_without_quoting_it(
    api: Api, query: dict[str, str], pointer: str
) -> None:
    answer = await api.get("/v1/requests", **query)
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"
    assert [error["pointer"] for error in answer.json()["errors"]] == [pointer]
    assert "acct-000017" not in answer.text
    assert "stauts" not in answer.text
    assert "acct-000017" not in api.log.getvalue()


@pytest.mark.parametrize(
    "path", ["/v1/requests", f"/v1/requests/{UUID(int=0)}", "/v1/dead-letters"]
)
async def test_every_route_needs_a_key_with_the_scope(
    api: Api, reporting_url: str, path: str
) -> None:
    unknown = f"lethe_{'a' * 12}_{'b' * 43}"
    other_scope = make_key(reporting_url, "erasure:read")
    for key, status in ((None, 401), (unknown, 401), ("x", 401), (other_scope, 403)):
        async with client(str(api.client.base_url), key) as http:
            answer = await http.get(path)
        assert answer.status_code == status
        assert answer.headers["content-type"] == "application/problem+json"


async def test_a_wrong_id_path_and_method_are_problems(api: Api) -> None:
    for answer, status in (
        (await api.get("/v1/requests/acct-000017"), 422),
        (await api.get("/v1/nothing"), 404),
        (await api.client.post("/v1/requests"), 405),
    ):
        assert answer.status_code == status
        assert answer.headers["content-type"] == "application/problem+json"
        assert "acct-000017" not in answer.text


async def test_a_long_timeline_shows_its_newest_events_and_says_so(api: Api) -> None:
    story = Story()
    words = [story.asked()] + [
        story.says(BatchErased, n, request_type="upscale", batch=n)
        for n in range(1, LONGEST_TIMELINE + 1)
    ]
    await api.project(*words)
    shown = (await api.get(f"/v1/requests/{story.request_id}")).json()
    assert len(shown["timeline"]) == LONGEST_TIMELINE
    assert shown["timeline_complete"] is False
    assert shown["timeline"][-1]["details"]["batch"] == LONGEST_TIMELINE


async def test_the_hold_of_a_held_request_is_named(api: Api) -> None:
    story = Story()
    hold_id = uuid4()
    await api.project(story.asked(), story.says(HoldApplied, hold_id=hold_id))
    path = f"/v1/requests/{story.request_id}"
    assert (await api.get(path)).json()["hold_id"] == str(hold_id)
    await api.project(story.says(Verified))
    assert (await api.get(path)).json()["hold_id"] is None


async def test_the_api_describes_itself(api: Api) -> None:
    document = (await api.get("/openapi.json")).json()
    assert document["openapi"].startswith("3.1")
    for path in ("/v1/requests", "/v1/requests/{request_id}", "/v1/dead-letters"):
        operation = document["paths"][path]["get"]
        assert operation["security"] == [{"TeamKey": []}]
        assert {"401", "403", "422", "503"} <= set(operation["responses"])


async def test_a_timeline_is_found_by_indexes_however_long_the_log_is(api: Api) -> None:
    story = Story()
    await api.project(story.held(), *story.life())
    query = _timeline(story.request_id, story.ref).compile(
        dialect=api.engine.dialect, compile_kwargs={"render_postcompile": True}
    )
    async with api.engine.begin() as connection:
        # Of a table this small PostgreSQL would read all.
        await connection.execute(text("set local enable_seqscan = off"))
        explained = await connection.exec_driver_sql(f"explain {query}", dict(query.params))
        plan = explained.scalars().all()
    for index in ("event_log_of_request", "event_log_of_person"):
        assert any(index in line for line in plan), "\n".join(plan)

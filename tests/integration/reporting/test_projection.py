"""The fold on real tables: repetition, any order, several consumers, and the log as its source."""

import asyncio
import random
from collections.abc import Sequence
from typing import Any

import pytest
from sqlalchemy.exc import DataError

from lethe_contracts.codec import Envelope, type_of
from lethe_contracts.events import ALL, Accepted, BatchErased, Event, Started, Watermark
from lethe_contracts.sources import INTAKE
from lethe_reporting.domain import RequestView, apply, request_ids
from lethe_reporting.storage.projection import view_of
from tests.integration.reporting.running import Api
from tests.integration.reporting.story import CIPHERTEXT, Story

BY_TYPE = {type_of(event): event for event in ALL}


async def read_model(api: Api) -> list[RequestView]:
    rows = await api.rows("select * from lethe.request order by request_id")
    return [view_of(row._mapping) for row in rows]


async def from_log(api: Api, order: str) -> list[RequestView]:
    """Make the read model anew from nothing but the log."""
    views: dict[Any, RequestView] = {}
    for row in await api.rows(f"select * from lethe.event_log order by {order}"):  # noqa: S608 - the test's own words
        model = BY_TYPE[row.type]
        secret = {"subject": ""} if "subject" in model.model_fields else {}
        envelope: Envelope[Event] = Envelope(
            row.event_id,
            row.source,
            row.aggregate,
            row.sequence,
            row.time,
            row.subject_ref,
            model.model_validate({**row.data, **secret}),
        )
        for request_id in request_ids(envelope.event):
            views[request_id] = apply(views.get(request_id), request_id, envelope)
    return [views[request_id] for request_id in sorted(views)]


async def test_every_event_again_changes_nothing(api: Api) -> None:
    life = Story().life()
    await api.project(*life)
    once = await read_model(api)
    logged = await api.rows("select * from lethe.event_log order by position")
    await api.project(*life)
    await api.project(*reversed(life))
    assert await read_model(api) == once
    assert await api.rows("select * from lethe.event_log order by position") == logged
    assert len(logged) == len(life)


async def test_the_read_model_made_anew_from_the_log_is_the_read_model(api: Api) -> None:
    stories = [Story(), Story(), Story()]
    said = [
        word
        for story in stories
        for word in (*story.life(blocked=story is stories[0]), story.cancel_asked())
    ]
    random.Random(7).shuffle(said)  # noqa: S311 - an order, no secret
    for start in range(0, len(said), 5):
        await api.project(*said[start : start + 5])
    live = await read_model(api)
    assert len(live) == 3
    for order in ("position", "position desc", "event_id", "time desc", "md5(event_id::text)"):
        assert await from_log(api, order) == live


@pytest.mark.parametrize("seed", range(6))
async def test_no_order_and_no_cut_into_batches_matters(api: Api, seed: int) -> None:
    story = Story()
    life = story.life()
    await api.project(*life)
    expected = await read_model(api)
    await api.run("truncate lethe.request, lethe.event_log")
    chance = random.Random(seed)  # noqa: S311 - likewise
    shuffled = chance.sample(life, len(life))
    while shuffled:
        size = chance.randint(1, 3)
        await api.project(*shuffled[:size])
        shuffled = shuffled[size:]
    assert await read_model(api) == expected


async def test_two_consumers_at_once_lose_no_word_of_a_request_that_neither_had_seen(
    api: Api,
) -> None:
    stories = [Story() for _ in range(8)]
    asked = [story.asked() for story in stories]
    answered = [story.says(Accepted, not_before=story.begun) for story in stories]
    begun = [story.says(Started) for story in stories]
    # Each transaction names the requests in another order.
    await asyncio.gather(
        api.project(*asked), api.project(*reversed(answered)), api.project(*begun[4:], *begun[:4])
    )
    for row in await api.rows("select state, team, requested_sequence from lethe.request"):
        assert tuple(row) == ("running", "support", 1)


async def test_one_event_for_many_requests_moves_them_all(api: Api) -> None:
    first, second = Story(), Story()
    both = (first.request_id, second.request_id)
    await api.project(first.asked(), first.says(Started, 4, request_ids=both))
    rows = await api.rows("select request_id, state, team from lethe.request order by 1")
    assert [tuple(row) for row in rows] == sorted(
        [(first.request_id, "running", "support"), (second.request_id, "running", None)]
    )


async def test_no_ciphertext_is_kept_anywhere(api: Api) -> None:
    await api.project(*Story().life())
    for table in ("event_log", "request"):
        dumped: Sequence[Any] = await api.rows(f"select t::text from lethe.{table} t")  # noqa: S608 - the test's own words
        assert dumped
        assert not [row for row in dumped if CIPHERTEXT in row[0] or '"subject"' in row[0]]


async def test_a_watermark_is_not_logged_and_a_hold_is(api: Api) -> None:
    story = Story()
    held = story.held()
    watermark: Envelope[Event] = Envelope(
        story.job_id,
        INTAKE,
        story.job_id,
        1,
        story.begun,
        story.ref,
        Watermark(settled_until={3: story.begun}),
    )
    await api.project(held, watermark)
    rows = await api.rows("select event_id from lethe.event_log")
    assert [row.event_id for row in rows] == [held.id]
    assert await read_model(api) == []


async def test_a_number_no_column_takes_leaves_nothing_behind(api: Api) -> None:
    story = Story()
    with pytest.raises(DataError):
        await api.project(story.asked(), story.asked(attempt=2**40))
    assert await read_model(api) == []
    assert await api.rows("select 1 from lethe.event_log") == []


async def test_the_log_keeps_source_sequence_and_trace(api: Api) -> None:
    story = Story()
    word = story.says(BatchErased, 5, request_type="upscale", batch=1)
    await api.project(word)
    (row,) = await api.rows("select * from lethe.event_log")
    assert (row.source, row.aggregate, row.sequence) == ("lethe/eraser", story.job_id, 1)
    assert row.type == "lethe.erasure.batch_erased.v1"
    assert row.request_ids == [story.request_id]
    assert row.traceparent == word.traceparent
    assert row.data["batch"] == 1

"""What an operator sees and does by `lethe eraser`, with jobs and with quarantine."""

import asyncio
import json
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from typer.testing import CliRunner, Result

from lethe_contracts.events import Held, Released
from lethe_eraser.cli import app
from lethe_eraser.storage import control
from lethe_eraser.storage.control import SetAside
from lethe_eraser.window import Window
from tests.integration.eraser.world import (
    CONTROL_FRESH,
    NOTHING,
    SUBJECT,
    Eraser,
    World,
    put_in,
    to_the_end,
    until_begun,
)

Lethe = Callable[..., Any]


@pytest.fixture
def environment(
    world: World, database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LETHE_ERASER_DATABASE_URL", database_url)
    monkeypatch.setenv("LETHE_ERASER_KAFKA_BOOTSTRAP", "nowhere:9")
    monkeypatch.setenv("LETHE_ERASER_CATALOG", str(tmp_path / "catalog.yaml"))
    monkeypatch.setenv("LETHE_ERASER_SUBJECT_CIPHER_KEYS", world.ring.render())
    monkeypatch.setenv("COLUMNS", "200")


pytestmark = pytest.mark.usefixtures("environment")


async def lethe_eraser(*arguments: str) -> Result:
    # The command runs a loop of its own.
    return await asyncio.to_thread(CliRunner().invoke, app, list(arguments))


async def document(*arguments: str) -> Any:
    result = await lethe_eraser(*arguments, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


async def job_id(world: World) -> str:
    return str(await world.value("select job_id from lethe.job order by created_at desc limit 1"))


async def test_jobs_lists_what_owes_something_the_earliest_deadline_first(world: World) -> None:
    await world.accept(world.requested(days=5, ref="1.later"), ref="1.later")
    await world.accept(world.requested(days=3, ref="1.sooner"), ref="1.sooner")
    await world.accept(world.requested(days=-1, ref="1.late"), ref="1.late")
    await world.sketch(1)
    listed = await document("jobs")
    assert [one["state"] for one in listed] == ["accepted"] * 3
    assert [one["deadline"] for one in listed] == sorted(one["deadline"] for one in listed)
    assert await document("jobs", "--overdue") == listed[:1]
    assert await document("jobs", "--limit", "2") == listed[:2]
    more = "there are more; --limit shows them\n"
    assert (await lethe_eraser("jobs", "--limit", "2")).stderr == more
    assert (await lethe_eraser("jobs", "--limit", "3")).stderr == ""
    assert await document("jobs", "--state", "verified") == []
    shown = (await lethe_eraser("jobs")).stdout
    assert all(one["job_id"] in shown for one in listed)
    assert "no such jobs" in (await lethe_eraser("jobs", "--state", "held")).stdout


async def test_show_tells_all_that_may_stop_a_job_and_no_person(world: World) -> None:
    await world.sketch(1)
    await world.accept(world.requested())
    await world.accept(Held(hold_id=uuid4()))
    found = await document("show", await job_id(world))
    assert found["state"] == "held"
    assert found["held_from"] == "accepted"
    assert found["holds"] == 1
    assert found["control_settled_until"] is not None
    shown = (await lethe_eraser("show", await job_id(world))).stdout
    assert "held" in shown
    assert SUBJECT not in shown


@pytest.mark.parametrize("columns", [60, 80, 120])
async def test_ids_and_what_is_said_of_a_job_are_whole_on_any_terminal(
    world: World, monkeypatch: pytest.MonkeyPatch, columns: int
) -> None:
    await world.sketch(1)
    await world.sketch(2, url="https://old.test.example/2.png")
    await world.accept(world.requested())
    assert await to_the_end(world, world.eraser()) == "blocked"
    id_ = await job_id(world)
    monkeypatch.setenv("COLUMNS", str(columns))
    for command in (("jobs",), ("show", id_)):
        shown = (await lethe_eraser(*command)).stdout
        assert id_ in shown
        assert "unresolved_reference: 1" in shown
        assert "…" not in shown
        assert max(map(len, shown.splitlines())) <= columns
    assert "sketch in client: done" in shown
    ref = str(await world.value("select subject_ref from lethe.job"))
    assert ref in "".join(shown.split()), "folded, and whole"


async def test_what_has_ended_says_how_it_goes_on(world: World) -> None:
    await world.sketch(1, url="https://old.test.example/1.png")
    await world.accept(world.requested())
    assert await to_the_end(world, world.eraser()) == "blocked"
    id_ = await job_id(world)
    for command in (("pause", id_), ("resume", id_), ("run-now", id_, "--confirm")):
        refused = await lethe_eraser(*command)
        assert (refused.exit_code, refused.output) == (
            1,
            "lethe: the job has ended (blocked); lethe eraser retry begins it anew\n",
        )


async def test_an_unknown_job_is_refused_and_a_bad_id_is_usage() -> None:
    for command in ("show", "pause", "resume", "retry"):
        result = await lethe_eraser(command, str(uuid4()))
        assert result.exit_code == 1
        assert "no such job" in result.output
    assert (await lethe_eraser("show", "17")).exit_code == 2


async def test_a_paused_job_begins_nothing_more_and_goes_on_when_resumed(world: World) -> None:
    for number in range(3):
        await world.sketch(number)
    await world.accept(world.requested())
    eraser = world.eraser(batch_rows=1)

    async def pause() -> None:
        await until_begun(world, 2)
        assert (await lethe_eraser("pause", await job_id(world))).exit_code == 0

    after_first_batch(eraser, pause)
    await eraser.until_idle()
    assert await world.state() == "running"
    # The second was under way, and finished.
    assert (await world.left_of(SUBJECT))["result"] == 1
    assert "already" in (await lethe_eraser("pause", await job_id(world))).stdout
    assert (await document("show", await job_id(world)))["paused"] is True

    assert (await lethe_eraser("resume", await job_id(world))).exit_code == 0
    assert "not paused" in (await lethe_eraser("resume", await job_id(world))).stdout
    assert await to_the_end(world, eraser) == "verified"
    assert (await lethe_eraser("pause", await job_id(world))).exit_code == 1


def after_first_batch(eraser: Eraser, then: Callable[[], Any]) -> None:
    real = eraser.batches.mask
    done: list[int] = []

    async def mask(*args: Any) -> Any:
        after = await real(*args)
        if not done:
            done.append(1)
            await then()
        return after

    put_in(eraser.batches, "mask", mask)


async def test_run_now_wants_to_be_confirmed_and_lets_one_job_alone_run_by_day(
    world: World,
) -> None:
    world.window = Window.parse("01:00-05:00", "UTC")
    world.clock.now = datetime(2026, 11, 20, 12, tzinfo=UTC)
    await world.accept(world.requested(ref="1.waits"), ref="1.waits")
    world.clock.now += timedelta(seconds=1)
    await world.sketch(1)
    await world.accept(world.requested())
    id_ = await job_id(world)
    await world.write("update lethe.job set not_before = now() + interval '9 hours'")
    refused = await lethe_eraser("run-now", id_)
    assert refused.exit_code == 2
    assert "--confirm" in refused.output
    eraser = world.eraser()
    await eraser.until_idle()
    assert await world.state() == "accepted"

    assert (await lethe_eraser("run-now", id_, "--confirm")).exit_code == 0
    assert await to_the_end(world, eraser) == "verified"
    assert await world.left_of(SUBJECT) == NOTHING
    states = await world.rows("select state from lethe.job order by state")
    assert [state for (state,) in states] == ["accepted", "verified"]
    assert (await lethe_eraser("run-now", id_, "--confirm")).exit_code == 1


async def test_run_now_overrules_no_hold_and_no_stale_control(world: World) -> None:
    world.window = Window.parse("01:00-05:00", "UTC")
    world.clock.now = datetime(2026, 11, 20, 12, tzinfo=UTC)
    await world.sketch(1)
    await world.accept(world.requested())
    await world.write("update lethe.job set not_before = now() + interval '1 day'")
    assert (await lethe_eraser("run-now", await job_id(world), "--confirm")).exit_code == 0
    await world.settled(ago=timedelta(minutes=5))
    await world.eraser().until_idle()
    assert await world.state() == "accepted"
    async with world.engine.connect() as connection:
        # It pages: somebody waits for this job.
        assert await control.count_stale(connection, CONTROL_FRESH) == 1
    await world.accept(Held(hold_id=uuid4()))
    await world.settled()
    await world.eraser().until_idle()
    assert await world.state() == "held"


async def test_whoever_lets_a_job_go_on_hears_what_still_stops_it(world: World) -> None:
    await world.accept(world.requested())
    id_ = await job_id(world)
    hold = uuid4()
    await world.accept(Held(hold_id=hold))
    by_hold = "what still stops it: legal holds on its person: 1;"
    by_pause = "what still stops it: it is paused; lethe eraser resume"
    for command in (("resume", id_), ("run-now", id_, "--confirm"), ("retry", id_)):
        told = await lethe_eraser(*command)
        assert told.exit_code == 0
        assert by_hold in told.stdout
        assert by_pause not in told.stdout
    assert by_hold not in (await lethe_eraser("pause", id_)).stdout
    await world.accept(Released(hold_id=hold))
    assert (await lethe_eraser("retry", id_)).stdout.splitlines()[1].startswith(by_pause)
    assert "what still stops it" not in (await lethe_eraser("resume", id_)).stdout

    await world.write("update lethe.job set retry_at = timestamptz '2100-01-01 09:00+09'")
    by_error = "what still stops it: it waits until 2100-01-01 00:00:00Z for its next try;"
    assert by_error in (await lethe_eraser("run-now", id_, "--confirm")).stdout
    assert "what still stops it" not in (await lethe_eraser("retry", id_)).stdout

    async with world.engine.begin() as connection:
        bucket = await world.value("select bucket from lethe.job")
        # Of the whole partition; and one of another bucket, which stops nothing here.
        for offset, of in enumerate((None, bucket + 1)):
            aside = SetAside("erasure.requests.v1", bucket % 16, offset, of, None, "invalid_event")
            await control.set_aside(connection, aside)
    stopped = (await lethe_eraser("run-now", id_, "--confirm")).stdout
    assert "what still stops it: records in quarantine: 1; see lethe eraser quarantine" in stopped
    assert (await document("show", id_))["quarantined_records"] == 1

    await world.write("update lethe.job set state = 'erased', scanning = true")
    world.clock.now += timedelta(seconds=1)
    await world.accept(world.requested())
    next_ = await job_id(world)
    told = await lethe_eraser("run-now", next_, "--confirm")
    assert f"what still stops it: job {id_} of the same person goes first" in told.stdout
    assert (await document("show", next_))["waits_for"] == id_
    assert (await document("show", id_))["waits_for"] is None


async def test_show_tells_when_the_last_lock_ends_and_what_the_cdn_owes(world: World) -> None:
    await world.accept(world.requested())
    await world.write("update lethe.job set locked_until = '2099-01-02 03:04:05+00'")
    await world.write(
        "insert into lethe.invalidation (job_id, number, batch, distribution, paths, done)"
        " select job_id, n, 1, 'E2ABC', '', n = 1 from lethe.job, generate_series(1, 3) n"
    )
    shown = await document("show", await job_id(world))
    assert shown["locked_until"][:10] == "2099-01-02"
    assert shown["invalidations_left"] == 2


async def test_a_blocked_job_is_retried_when_what_blocked_it_is_mended(world: World) -> None:
    await world.sketch(1)
    await world.sketch(2, url="https://old.test.example/2.png")
    await world.accept(world.requested())
    eraser = world.eraser()
    assert await to_the_end(world, eraser) == "blocked"
    before = (await world.said())[-1].event.totals["sketch"]
    assert before.rows_blocked == 1

    assert (await lethe_eraser("retry", await job_id(world))).exit_code == 0
    assert await world.state() == "running"
    assert await to_the_end(world, eraser) == "blocked", "nothing was mended yet"
    assert (await world.said())[-1].event.totals["sketch"] == before

    world.put("results", "public/2.png")
    await world.write(
        "update sketch_task set result = :r where result like '%old.test.example%'",
        r=json.dumps({"url": "https://cdn.test.example/2.png"}),
    )
    assert (await lethe_eraser("retry", await job_id(world))).exit_code == 0
    assert await to_the_end(world, eraser) == "verified"
    assert await world.left_of(SUBJECT) == NOTHING
    after = (await world.said())[-1].event.totals["sketch"]
    assert after.rows_blocked == 0
    assert after.objects_gone == 4
    assert after.client_rows == 2
    refused = await lethe_eraser("retry", await job_id(world))
    assert refused.exit_code == 1
    assert "for good" in refused.output


async def test_a_job_that_waits_after_errors_is_tried_at_once(world: World) -> None:
    await world.sketch(1)
    await world.accept(world.requested())
    await world.write("update lethe.job set retry_at = now() + interval '1 hour', attempts = 4")
    eraser = world.eraser()
    await eraser.until_idle()
    assert await world.state() == "accepted"
    assert (await lethe_eraser("retry", await job_id(world))).exit_code == 0
    assert await world.value("select attempts from lethe.job") == 0
    await eraser.until_idle()
    assert await world.state() == "verified"


async def test_a_blocked_job_is_not_retried_beside_another_one_of_its_person(world: World) -> None:
    await world.sketch(1, url="https://old.test.example/1.png")
    await world.accept(world.requested())
    eraser = world.eraser()
    assert await to_the_end(world, eraser) == "blocked"
    first = await job_id(world)
    await world.accept(world.requested())
    refused = await lethe_eraser("retry", first)
    assert refused.exit_code == 1
    assert "another job" in refused.output


async def test_a_record_in_quarantine_is_listed_and_released_with_a_name_and_a_reason(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "nothing" in (await lethe_eraser("quarantine", "list")).stdout
    event = UUID(int=7)
    async with world.engine.begin() as connection:
        record = SetAside("erasure.requests.v1", 3, 41, 19, event, "invalid_event")
        await control.set_aside(connection, record)
    [listed] = await document("quarantine", "list")
    assert listed["record"] == "erasure.requests.v1/3/41"
    assert listed["bucket"] == 19
    assert listed["event_id"] == str(event)
    for columns in (60, 80, 200):
        monkeypatch.setenv("COLUMNS", str(columns))
        shown = (await lethe_eraser("quarantine", "list")).stdout
        assert "erasure.requests.v1/3/41" in shown
        assert str(event) in shown
        assert "…" not in shown
        if columns >= 80:
            assert re.search(r"invalid_event[ │]+\d{4}-\d\d-\d\d \d\d:\d\dZ", shown)

    release = ("quarantine", "release", "erasure.requests.v1/3/41", "--by", "Kim")
    assert (await lethe_eraser(*release)).exit_code == 2
    assert (await lethe_eraser(*release, "--reason", " ")).exit_code == 2
    assert (await lethe_eraser(*release, "--reason", "junk")).exit_code == 0
    assert (await lethe_eraser(*release, "--reason", "junk")).exit_code == 1
    assert await document("quarantine", "list") == []
    kept = await world.rows("select released_by, note from lethe.quarantine")
    assert [tuple(row) for row in kept] == [("Kim", "junk")]
    for place in ("x", "t/2147483648/1", f"t/1/{2**63}"):
        bad = await lethe_eraser("quarantine", "release", place, "--by", "Kim", "--reason", "y")
        assert (bad.exit_code, bad.output[:6]) == (2, "lethe:"), place


async def test_who_releases_one_of_several_records_hears_what_stops_its_people_still(
    world: World,
) -> None:
    """An event that was replayed and not read lies there twice; one without a key stops all."""
    event, topic = UUID(int=7), "erasure.requests.v1"
    async with world.engine.begin() as connection:
        for offset, bucket, id_ in (
            (41, 19, event),
            (57, 19, event),
            (58, None, None),
            (59, 35, None),
        ):
            await control.set_aside(connection, SetAside(topic, 3, offset, bucket, id_, "not_ours"))

    async def released(offset: int) -> str:
        place = f"{topic}/3/{offset}"
        done = await lethe_eraser("quarantine", "release", place, "--by", "Kim", "--reason", "junk")
        assert done.exit_code == 0
        return done.stdout

    still = "released; other records stop its people still: {}\n"
    assert await released(41) == still.format(2)
    assert await released(57) == still.format(1)
    assert await released(58) == still.format(1)
    assert await released(59) == "released; its bucket is worked on again\n"


async def test_a_retry_waits_for_the_window_though_the_job_was_run_by_day_before(
    world: World,
) -> None:
    world.window = Window.parse("01:00-05:00", "UTC")
    world.clock.now = datetime(2026, 11, 20, 12, tzinfo=UTC)
    await world.sketch(1, url="https://old.test.example/1.png")
    await world.accept(world.requested())
    id_ = await job_id(world)
    assert (await lethe_eraser("run-now", id_, "--confirm")).exit_code == 0
    assert await to_the_end(world, world.eraser()) == "blocked"
    told = await lethe_eraser("retry", id_)
    assert told.stdout == "the job is tried again in the window\n"
    await world.eraser().until_idle()
    assert (await document("show", id_))["batches"] == 1
    assert await world.state() == "running"
    world.clock.now += timedelta(hours=14)
    assert await to_the_end(world, world.eraser()) == "blocked"

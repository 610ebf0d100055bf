"""`lethe outbox`: what an operator sees and does."""

import asyncio
import json
import re
from typing import Any

import pytest
from sqlalchemy import create_engine, event, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from typer.testing import CliRunner, Result

from lethe_outbox import Message, ReorderError, requeue
from lethe_outbox.operations.listing import Wanted, rows
from lethe_outbox.schema import Status
from lethe_relay import outbox_cli
from lethe_relay.outbox_cli import app
from lethe_runtime.database import DatabaseAwayError, NotMigratedError
from tests.support.outbox_upkeep import make_month, months_ago, put
from tests.support.outbox_world import append, statuses


@pytest.fixture
def environment(database_url: str, kafka: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LETHE_RELAY_INTAKE_DATABASE_URL", database_url)
    monkeypatch.setenv("LETHE_RELAY_PRODUCT_DATABASE_URL", database_url)
    monkeypatch.setenv("LETHE_RELAY_KAFKA_BOOTSTRAP", kafka)
    monkeypatch.setenv("COLUMNS", "200")


async def lethe_outbox(*arguments: str) -> Result:
    # The command runs a loop of its own.
    return await asyncio.to_thread(CliRunner().invoke, app, list(arguments))


async def refuse(engine: AsyncEngine, number: int, status: Status) -> None:
    async with engine.begin() as connection:
        await connection.execute(
            text("update lethe.outbox set status = :status where id = :id"),
            {"status": int(status), "id": number},
        )
        await connection.execute(
            text(
                "insert into lethe.outbox_dead"
                " select id, created_at, event_id, bucket, topic, key, status, 'too_large', true"
                " from lethe.outbox where id = :id"
            ),
            {"id": number},
        )


@pytest.fixture
async def three_rows(engine: AsyncEngine, environment: None) -> AsyncEngine:
    """One waits, one is in its dead-letter topic, one is not even there."""
    del environment
    await append(engine, *(Message("t", "acct-000017", b"") for _ in range(3)))
    await refuse(engine, 2, Status.DEAD_LETTERED)
    await refuse(engine, 3, Status.DLT_FAILED)
    return engine


async def test_status_shows_counts_ages_and_what_was_refused_but_no_key(
    three_rows: AsyncEngine,
) -> None:
    del three_rows
    shown = await lethe_outbox("status")
    assert shown.exit_code == 0
    assert "DLT_FAILED" in shown.output
    assert "too_large" in shown.output
    assert "acct-000017" not in shown.output


async def test_status_for_programs(three_rows: AsyncEngine) -> None:
    del three_rows
    shown = await lethe_outbox("status", "--json")
    found = json.loads(shown.output)
    assert set(found) == {"intake", "product"}
    intake = found["intake"]
    assert (intake["pending"], intake["dead_lettered"], intake["dlt_failed"]) == (1, 1, 1)
    assert intake["oldest_pending_seconds"] >= 0
    assert [(row["id"], row["status"]) for row in intake["refused"]] == [
        (2, "DEAD_LETTERED"),
        (3, "DLT_FAILED"),
    ]


async def test_status_of_one_outbox_is_shown_while_the_other_cannot_be_asked(
    three_rows: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    nowhere = str(three_rows.url.set(database="nowhere").render_as_string(hide_password=False))
    monkeypatch.setenv("LETHE_RELAY_INTAKE_DATABASE_URL", nowhere)
    shown = await lethe_outbox("status")
    assert shown.exit_code == 1
    assert "DLT_FAILED" in shown.stdout
    assert "the database of intake" in shown.stderr
    shown = await lethe_outbox("status", "--json")
    assert (shown.exit_code, set(json.loads(shown.stdout))) == (1, {"product"})
    monkeypatch.setenv("LETHE_RELAY_PRODUCT_DATABASE_URL", nowhere)
    shown = await lethe_outbox("status")
    assert (shown.exit_code, shown.stdout) == (1, "")
    assert "the database of product" in shown.stderr


async def test_requeue_brings_back_what_failed_for_good_unless_told_which(
    three_rows: AsyncEngine,
) -> None:
    shown = await lethe_outbox("requeue", "--outbox", "intake")
    assert shown.output == "1 row of intake is pending again\n"
    assert await statuses(three_rows) == [Status.PENDING, Status.DEAD_LETTERED, Status.PENDING]
    shown = await lethe_outbox("requeue", "--outbox", "intake", "--id", "2")
    assert shown.output == "1 row of intake is pending again\n"
    assert await statuses(three_rows) == [Status.PENDING] * 3
    shown = await lethe_outbox("requeue", "--outbox", "intake")
    assert (shown.exit_code, shown.output) == (0, "0 rows of intake are pending again\n")


async def test_requeue_says_which_of_the_named_rows_it_left_and_why(
    three_rows: AsyncEngine,
) -> None:
    named = ("--id", "1", "--id", "2", "--id", "99", "--id", "98")
    for option in ("--dry-run", "--json"):
        shown = await lethe_outbox("requeue", "--outbox", "intake", *named, option)
        assert shown.exit_code == 1
        if option == "--dry-run":
            assert shown.stdout == "1 row of intake would be pending again\n"
            assert shown.stderr == (
                "lethe: 1 of the named rows (1) is not refused, so nothing is to be brought back;"
                " 2 of the named rows (98, 99) are not there (any more); see lethe outbox show\n"
            )
    assert json.loads(shown.stdout) == {
        "intake": {"requeued": 1, "dry_run": False, "not_refused": [1], "not_there": [98, 99]}
    }
    assert await statuses(three_rows) == [Status.PENDING, Status.PENDING, Status.DLT_FAILED]


async def test_what_cannot_be_asked_is_one_sentence(
    database_url: str, environment: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    del environment
    shown = await lethe_outbox("list")
    assert isinstance(shown.exception, NotMigratedError)
    monkeypatch.setenv(
        "LETHE_RELAY_INTAKE_DATABASE_URL", "postgresql+psycopg://nobody:secret@127.0.0.1:1/none"
    )
    shown = await lethe_outbox("list")
    assert isinstance(shown.exception, DatabaseAwayError)
    assert "secret" not in str(shown.exception)
    del database_url


SUBJECT = "acct-000017"


async def rows_of(*arguments: str) -> list[dict[str, object]]:
    shown = await lethe_outbox("list", "--outbox", "intake", "--json", *arguments)
    assert shown.exit_code == 0, shown.output
    found: list[dict[str, object]] = json.loads(shown.stdout)
    return found


async def ids_of(*arguments: str) -> list[object]:
    return [row["id"] for row in await rows_of(*arguments)]


@pytest.fixture
async def many_rows(three_rows: AsyncEngine) -> AsyncEngine:
    """Beside the three: one of another key and topic, one that was sent, and one of long ago."""
    engine = three_rows
    await make_month(engine, months_ago(3))
    await append(engine, Message("other", "k", b"12345"), Message("t", "k", b""))
    async with engine.begin() as connection:
        await put(connection, months_ago(3), Message("t", "k", b""))
        await connection.execute(
            text("update lethe.outbox set status = 1, sent_at = now() where id = 5")
        )
    return engine


async def test_list_filters_by_status_topic_key_and_age(many_rows: AsyncEngine) -> None:
    del many_rows
    assert await ids_of() == [1, 2, 3, 4, 6]
    assert await ids_of("--status", "pending", "--status", "sent") == [1, 4, 5, 6]
    assert await ids_of("--status", "dlt_failed") == [3]
    assert await ids_of("--topic", "other") == [4]
    assert await ids_of("--key", "k") == [4, 6]
    assert await ids_of("--older-than", "30d") == [6]
    assert await ids_of("--newer-than", "30d", "--key", SUBJECT) == [1, 2, 3]
    assert await ids_of("--status", "sent", "--older-than", "1h") == []
    assert await ids_of("--limit", "2") == [1, 2]
    shown = await lethe_outbox("list", "--outbox", "intake", "--limit", "4")
    assert "there are more of intake; --limit shows them" in shown.output
    assert "there are more" not in (await lethe_outbox("list", "--limit", "5")).output


async def test_of_sent_rows_the_newest_are_listed(many_rows: AsyncEngine) -> None:
    async with many_rows.begin() as connection:
        await connection.execute(text("update lethe.outbox set status = 1, sent_at = now()"))
    assert await ids_of("--status", "sent", "--limit", "2") == [5, 6]
    assert await ids_of("--status", "sent", "--status", "sent", "--limit", "2") == [5, 6]


async def test_beside_sent_rows_what_waits_comes_first(many_rows: AsyncEngine) -> None:
    """However low the ids of what was sent are."""
    async with many_rows.begin() as connection:
        await connection.execute(text("update lethe.outbox set status = 1 where id in (1, 5)"))
    both = ("--status", "pending", "--status", "sent")
    found = {limit: await ids_of(*both, "--limit", str(limit)) for limit in range(1, 5)}
    assert found == {1: [4], 2: [4, 6], 3: [4, 5, 6], 4: [1, 4, 5, 6]}
    # Rows 2 and 3 are refused, 4 and 6 wait.
    every = (*both, "--status", "dlt_failed", "--status", "dead_lettered")
    assert await ids_of(*every, "--limit", "3") == [2, 3, 4]
    assert await ids_of(*every, "--limit", "5") == [2, 3, 4, 5, 6]


async def test_a_row_that_is_sent_while_rows_are_listed_is_listed_once(
    many_rows: AsyncEngine,
) -> None:
    listing = create_async_engine(many_rows.url)
    beside = create_engine(many_rows.url.set(drivername="postgresql+psycopg"))
    selects: list[str] = []

    @event.listens_for(listing.sync_engine, "after_cursor_execute")
    def note(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if "lethe.outbox" in statement:
            selects.append(statement)
        if len(selects) == 1:
            with beside.begin() as connection:
                connection.execute(text("update lethe.outbox set status = 1 where id = 4"))

    found = await rows(listing, Wanted([Status.PENDING, Status.SENT]))
    assert len(selects) == 2
    assert [each.id for each in found] == [1, 4, 5, 6]
    beside.dispose()
    await listing.dispose()


async def test_list_tells_what_waits_and_no_key_and_no_payload(many_rows: AsyncEngine) -> None:
    await append(many_rows, *(Message("t", SUBJECT, b"") for _ in range(2)))
    async with many_rows.begin() as connection:
        await connection.execute(text("update lethe.outbox set status = 1 where id = 8"))
    found = {row["id"]: row for row in await rows_of("--status", "pending", "--status", "sent")}
    waits = {1: False, 4: False, 5: False, 6: False, 7: True, 8: False}
    assert {number: row["held"] for number, row in found.items()} == waits
    for number, held in waits.items():
        one = await lethe_outbox("show", str(number), "--outbox", "intake", "--json")
        assert json.loads(one.stdout)["held"] is held
    assert found[4]["bytes"] == 5
    assert found[5]["sent_at"] is not None
    shown = await lethe_outbox("list", "--outbox", "intake")
    assert shown.exit_code == 0
    assert "waits" in shown.output
    assert "held back" in shown.output
    for output in (shown.output, json.dumps(list(found.values()))):
        assert SUBJECT not in output
        assert "12345" not in output
    shown = await lethe_outbox("list", "--outbox", "intake", "--topic", "nobody's")
    assert (shown.exit_code, shown.stdout) == (0, "")


async def test_show_gives_key_and_headers_and_the_payload_only_when_asked(
    many_rows: AsyncEngine,
) -> None:
    async with many_rows.connect() as connection:
        event_id = str(
            await connection.scalar(text("select event_id from lethe.outbox where id = 4"))
        )
    shown = await lethe_outbox("show", "4", "--outbox", "intake", "--json")
    found = json.loads(shown.stdout)
    assert (found["event_id"], found["key"], found["headers"]) == (
        event_id,
        "k",
        [["ce_id", event_id]],
    )
    assert "payload_base64" not in found
    shown = await lethe_outbox("show", event_id, "--outbox", "intake", "--payload")
    assert shown.exit_code == 0
    assert event_id in shown.output
    assert "12345" in shown.output
    assert "12345" not in (await lethe_outbox("show", "4", "--outbox", "intake")).output
    shown = await lethe_outbox("show", "3", "--outbox", "intake", "--json", "--payload")
    found = json.loads(shown.stdout)
    assert (found["status"], found["held"], found["payload_base64"]) == ("DLT_FAILED", True, "")
    assert found["died_at"] is not None


async def test_show_keeps_what_was_written_from_being_read_as_markup(
    three_rows: AsyncEngine,
) -> None:
    message = Message("t", "k", b"[bold]\x1b[2J", (("h", b"[/nothing]"),))
    await append(three_rows, message)
    shown = await lethe_outbox("show", "4", "--outbox", "intake", "--payload")
    assert "[bold]\\x1b[2J" in shown.output
    assert "[/nothing]" in shown.output


async def test_requeue_can_be_tried_first(three_rows: AsyncEngine) -> None:
    shown = await lethe_outbox("requeue", "--outbox", "intake", "--dry-run")
    assert shown.output == "1 row of intake would be pending again\n"
    assert (await statuses(three_rows)).count(Status.PENDING) == 1
    shown = await lethe_outbox("requeue", "--outbox", "intake", "--json")
    assert json.loads(shown.stdout) == {
        "intake": {"requeued": 1, "dry_run": False, "not_refused": [], "not_there": []}
    }


async def test_requeue_reads_page_by_page_and_ends_although_rows_fail_again(
    engine: AsyncEngine, environment: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    del environment
    await append(engine, *(Message("t", "acct-000017", b"") for _ in range(9)))
    for number in range(1, 9):
        dead = Status.DEAD_LETTERED if number == 4 else Status.DLT_FAILED
        await refuse(engine, number, dead)
    pages: list[list[int]] = []

    async def watched(connection: AsyncConnection, ids: list[int], **options: Any) -> int:
        pages.append(ids)
        return await requeue(connection, ids, **options)

    async def fails_again(connection: AsyncConnection, ids: list[int], **options: Any) -> int:
        if not pages:
            # Neither is among what an earlier look found.
            async with engine.begin() as other:
                await other.execute(text("delete from lethe.outbox_dead where id = 7"))
            await refuse(engine, 9, Status.DLT_FAILED)
        if len(pages) == 1:
            await refuse(engine, pages[0][0], Status.DLT_FAILED)
        return await watched(connection, ids, **options)

    monkeypatch.setattr(outbox_cli, "_AT_ONCE", 3)
    monkeypatch.setattr(outbox_cli, "requeue", watched)
    shown = await lethe_outbox("requeue", "--outbox", "intake", "--dry-run")
    assert shown.output == "7 rows of intake would be pending again\n"
    assert pages == [[1, 2, 3], [5, 6, 7], [8]]
    pages.clear()
    monkeypatch.setattr(outbox_cli, "requeue", fails_again)
    shown = await lethe_outbox("requeue", "--outbox", "intake")
    assert shown.output == "6 rows of intake are pending again\n"
    assert pages == [[1, 2, 3], [5, 6, 8]]


async def test_requeue_behind_later_events_must_be_accepted(three_rows: AsyncEngine) -> None:
    async with three_rows.begin() as connection:
        await connection.execute(text("update lethe.outbox_dead set held = false"))
    shown = await lethe_outbox("requeue", "--outbox", "intake", "--id", "2")
    assert isinstance(shown.exception, ReorderError)
    assert (await statuses(three_rows)).count(Status.PENDING) == 1
    shown = await lethe_outbox("requeue", "--outbox", "intake", "--id", "2", "--accept-reorder")
    assert shown.exit_code == 0
    assert (await statuses(three_rows)).count(Status.PENDING) == 2


async def test_a_refusal_says_how_many_came_back_before_it(
    three_rows: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox_cli, "_AT_ONCE", 1)
    await append(three_rows, Message("t", "acct-000018", b""), Message("t", "acct-000018", b""))
    await refuse(three_rows, 4, Status.DLT_FAILED)
    async with three_rows.begin() as connection:
        await connection.execute(text("update lethe.outbox_dead set held = false where id = 4"))
    shown = await lethe_outbox("requeue", "--outbox", "intake", "--dry-run")
    assert str(shown.exception).endswith("; none came back")
    shown = await lethe_outbox("requeue", "--outbox", "intake")
    assert isinstance(shown.exception, ReorderError)
    assert str(shown.exception).endswith("; 1 row before them is pending again")
    assert (await statuses(three_rows)).count(Status.PENDING) == 3


PURGE = ("purge", "--outbox", "intake", "--approve-by", "Kim Minji", "--older-than", "7d")


async def age_the_dead(engine: AsyncEngine, *ids: int) -> None:
    async with engine.begin() as connection:
        await connection.execute(
            text(
                "update lethe.outbox_dead set died_at = now() - interval '8 days'"
                " where id = any (:ids)"
            ),
            {"ids": list(ids)},
        )


async def test_purge_removes_what_is_old_when_confirmed_and_notes_who_when_and_what(
    three_rows: AsyncEngine,
) -> None:
    await age_the_dead(three_rows, 3)
    shown = await lethe_outbox(*PURGE)
    assert (shown.exit_code, shown.output) == (
        0,
        "1 row of intake would be removed; nothing was (--confirm does it)\n",
    )
    assert len(await statuses(three_rows)) == 3
    shown = await lethe_outbox(*PURGE, "--confirm", "--json")
    document = json.loads(shown.stdout)["intake"]
    assert (document["confirmed"], len(document["purged"])) == (True, 1)
    assert await statuses(three_rows) == [Status.PENDING, Status.DEAD_LETTERED]
    async with three_rows.connect() as connection:
        (noted,) = (await connection.execute(text("select * from lethe.outbox_purged"))).mappings()
        assert str(noted["event_id"]) == document["purged"][0]
        assert (noted["approved_by"], noted["older_than_seconds"]) == ("Kim Minji", 7 * 86_400)
        assert (noted["status"], noted["reason"]) == (Status.DLT_FAILED, "too_large")
        assert noted["database_user"]
        assert SUBJECT not in str(dict(noted))
    shown = await lethe_outbox(*PURGE, "--confirm")
    assert shown.output == "0 rows of intake are removed\n"
    async with three_rows.connect() as connection:
        assert await connection.scalar(text("select count(*) from lethe.outbox_purged")) == 1


async def test_purge_takes_more_than_one_transaction_holds(
    three_rows: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The package exports a function of the module's name.
    monkeypatch.setattr("lethe_outbox.operations.purging.AT_ONCE", 1)
    await age_the_dead(three_rows, 2, 3)
    shown = await lethe_outbox(*PURGE, "--confirm")
    assert shown.output == "2 rows of intake are removed\n"
    assert await statuses(three_rows) == [Status.PENDING]


@pytest.mark.parametrize(
    "arguments",
    [
        ("purge", "--outbox", "intake", "--older-than", "7d", "--confirm"),
        ("purge", "--outbox", "intake", "--approve-by", "Kim", "--confirm"),
        ("purge", "--outbox", "intake", "--approve-by", " ", "--older-than", "7d"),
        ("purge", "--outbox", "intake", "--approve-by", "Kim", "--older-than", "0d"),
        ("purge", "--outbox", "intake", "--approve-by", "Kim", "--older-than", "week"),
        ("list", "--outbox", "nowhere"),
        ("requeue", "--id", "2"),
        ("requeue", "--id", "0", "--outbox", "intake"),
        ("requeue", "--id", "9223372036854775808", "--outbox", "intake"),
        ("schema", "--schema", ""),
        ("show", "none", "--outbox", "intake"),
    ],
    ids=" ".join,
)
async def test_wrong_usage_ends_with_2(environment: None, arguments: tuple[str, ...]) -> None:
    del environment
    assert (await lethe_outbox(*arguments)).exit_code == 2


async def test_a_row_that_is_not_there_ends_with_1(three_rows: AsyncEngine) -> None:
    del three_rows
    for identity in ("99", "01890000-0000-7000-8000-000000000000"):
        shown = await lethe_outbox("show", identity, "--outbox", "intake")
        assert (shown.exit_code, shown.stdout) == (1, "")
        assert shown.stderr.strip() == "lethe: intake has no such row (any more)"
    everywhere = await lethe_outbox("show", "99")
    assert everywhere.stderr.strip() == "lethe: the outboxes have no such row (any more)"


async def test_without_a_name_it_is_about_every_outbox(
    three_rows: AsyncEngine, environment: None
) -> None:
    """Both names are of one database here, so each row is found twice, and dealt with once."""
    del environment
    shown = await lethe_outbox("list", "--json")
    found = [(row["outbox"], row["id"]) for row in json.loads(shown.stdout)]
    assert found == [(name, number) for name in ("intake", "product") for number in (1, 2, 3)]
    assert "rows: product" in (await lethe_outbox("list")).output
    shown = await lethe_outbox("show", "2")
    assert shown.exit_code == 2
    assert "intake and product have such a row each" in shown.output
    assert (await lethe_outbox("show", "99")).exit_code == 1
    shown = await lethe_outbox("requeue")
    assert shown.output == (
        "1 row of intake is pending again\n0 rows of product are pending again\n"
    )
    await age_the_dead(three_rows, 2)
    purge = ("purge", "--older-than", "7d", "--approve-by", "Kim", "--confirm")
    shown = await lethe_outbox(*purge)
    assert shown.output == "1 row of intake is removed\n0 rows of product are removed\n"
    assert await statuses(three_rows) == [Status.PENDING, Status.PENDING]


async def test_status_is_read_on_a_terminal_of_80_columns(
    three_rows: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    del three_rows
    monkeypatch.setenv("COLUMNS", "80")
    lines = (await lethe_outbox("status")).output.splitlines()
    pending = next(line for line in lines if "pending" in line and "oldest" not in line)
    assert pending.replace("│", " ").split() == ["pending", "1", "1"]
    assert not any("…" in line for line in lines[:15])
    listed = (await lethe_outbox("list", "--outbox", "intake")).output
    assert re.search(r" \d{4}-\d\d-\d\d \d\d:\d\d:\d\dZ ", listed)


@pytest.mark.parametrize("columns", [60, 80, 150])
async def test_ids_of_rows_are_whole_on_any_terminal(
    engine: AsyncEngine, environment: None, monkeypatch: pytest.MonkeyPatch, columns: int
) -> None:
    del environment
    late = "select setval(pg_get_serial_sequence('lethe.outbox', 'id'), 9000000000)"
    async with engine.begin() as connection:
        await connection.execute(text(late))
    await append(engine, Message("t", "acct-000017", b""))
    await refuse(engine, 9000000001, Status.DLT_FAILED)
    monkeypatch.setenv("COLUMNS", str(columns))
    for command in (("list",), ("status",), ("show", "9000000001", "--outbox", "intake")):
        shown = (await lethe_outbox(*command)).output
        assert "9000000001" in shown
        assert "…" not in shown
        assert max(map(len, shown.splitlines())) <= columns

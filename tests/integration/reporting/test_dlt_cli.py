"""`lethe dlt` as an operator uses it, on the whole of reporting."""

import asyncio
import json
from typing import Any

from typer.testing import CliRunner, Result

from lethe_contracts.codec import encode
from lethe_contracts.topics import REQUESTS
from lethe_reporting.dlt_cli import app
from lethe_runtime.database import NotMigratedError
from tests.integration.reporting.running import Service
from tests.integration.reporting.story import Story
from tests.support.waiting import until


async def lethe(service: Service, *arguments: str) -> Result:
    """Run `lethe dlt` in this process: starting one takes longer than everything it does."""
    runner = CliRunner(env={**service.environment, "COLUMNS": "250"})
    return await asyncio.to_thread(lambda: runner.invoke(app, arguments))


async def said(service: Service, *arguments: str) -> tuple[int, Any]:
    result = await lethe(service, *arguments, "--json")
    assert result.stdout, result.output
    return result.exit_code, json.loads(result.stdout)


async def test_junk_is_given_up_with_a_name_and_a_reason_and_never_sent(service: Service) -> None:
    story = Story()
    letter = await service.bury(story.asked())
    filters = ("--key", story.ref, "--error-reason", "too_large", "--since", "1h")
    code, listed = await said(service, "list", *filters)
    assert (code, [each["id"] for each in listed]) == (0, [letter])
    assert (await said(service, "list", "--until", "1h"))[1] == []

    who = ("--by", "Kim", "--reason", "test traffic")
    code, would = await said(service, "discard", *filters, *who, "--dry-run")
    assert (code, would) == (0, [{"id": letter, "outcome": "would_be_discarded"}])
    assert [each["id"] for each in await service.dead_letters()] == [letter]

    code, done = await said(service, "discard", str(letter), *who)
    assert (code, done) == (0, [{"id": letter, "outcome": "discarded"}])
    code, again = await said(service, "replay", str(letter))
    assert (code, again) == (0, [{"id": letter, "outcome": "discarded_before"}])
    code, shown = await said(service, "show", str(letter))
    assert shown["state"] == "discarded"
    (decision,) = shown["decisions"]
    assert (decision["decided_by"], decision["reason"]) == ("Kim", "test traffic")
    assert {"payload", "headers", "key"}.isdisjoint(shown)
    unknown = await lethe(service, "show", "999999")
    assert (unknown.exit_code, "no dead letter 999999" in str(unknown.exception)) == (1, True)


async def test_what_the_relay_was_refused_is_brought_back_by_its_outbox_and_closes_itself(
    service: Service,
) -> None:
    asked = Story().asked()
    relay = (("error-refused-by", b"relay-intake"), ("origin-row", b"17"))
    letter = await service.bury(asked, *relay)
    command = "lethe outbox requeue --outbox intake --id 17"
    code, refused = await said(service, "replay", str(letter))
    assert (code, refused) == (
        1,
        [{"id": letter, "outcome": "in_outbox", "bring_back": command}],
    )
    table = (await lethe(service, "list")).stdout
    assert f"{letter}: its row is in the outbox; bring it back: {command}" in table

    # The operator does so: the relay publishes the row.
    await service.publish(asked)

    async def closed() -> bool:
        return await service.dead_letters() == []

    await until(closed, what="the dead letter closing itself", within=30)
    (found,) = await service.dead_letters("all")
    assert found["state"] == "replayed"
    code, shown = await said(service, "show", str(letter))
    assert [each["decided_by"] for each in shown["decisions"]] == ["lethe-reporting"]


async def test_a_row_that_is_no_number_an_id_can_be_is_left_for_the_operator_to_fill_in(
    service: Service,
) -> None:
    relay = ("error-refused-by", b"relay-intake")
    for row in (b"9" * 5_000, b"-1", b""):
        await service.bury(Story().asked(), relay, ("origin-row", row))
    code, refused = await said(service, "replay", "--all")
    assert (code, {each["outcome"] for each in refused}) == (1, {"in_outbox"})
    command = "lethe outbox requeue --outbox intake --id ID"
    assert {each["bring_back"] for each in refused} == {command}
    assert (await lethe(service, "list")).stdout.count(f"bring it back: {command}") == len(refused)
    assert (await said(service, "show", str(refused[0]["id"])))[0] == 0


async def test_one_that_dies_again_is_open_again_under_another_id(service: Service) -> None:
    record = encode(Story().asked())
    broken = [(name, value) for name, value in record.headers if name != "ce_type"]
    await service.producer.send_and_wait(
        REQUESTS, record.value, key=record.key.encode(), headers=broken
    )
    (first,) = await until(service.dead_letters, what="the dead letter")
    code, done = await said(service, "replay", "--all")
    assert (code, done) == (0, [{"id": first["id"], "outcome": "replayed"}])

    async def another() -> list[Any]:
        return [each for each in await service.dead_letters() if each["id"] != first["id"]]

    (second,) = await until(another, what="another dead letter")
    assert second["event_id"] == first["event_id"]
    assert second["origin_offset"] > first["origin_offset"]


async def test_a_database_that_is_not_migrated_is_one_line(database_url: str) -> None:
    environment = {
        "LETHE_REPORTING_DATABASE_URL": database_url,
        "LETHE_REPORTING_KAFKA_BOOTSTRAP": "127.0.0.1:1",
    }
    for command in (["list"], ["show", "17"]):
        result = await asyncio.to_thread(CliRunner(env=environment).invoke, app, command)
        assert isinstance(result.exception, NotMigratedError)
        assert "lethe migrate --only reporting" in str(result.exception)

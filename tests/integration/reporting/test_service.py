"""The whole of reporting between real topics, a real database, Redis and its own API."""

import json
from uuid import uuid4

from uuid_utils.compat import uuid7

from lethe_contracts.codec import encode
from lethe_contracts.events import Accepted, Started, Verified
from tests.integration.reporting.running import Service
from tests.integration.reporting.story import Story
from tests.support.waiting import until

REQUESTS, EVENTS = "erasure.requests.v1", "erasure.events.v1"


async def verified(service: Service, story: Story) -> bool:
    return await service.state(story.request_id) == "verified"


async def test_a_life_that_arrives_twice_is_seen_once(service: Service) -> None:
    story = Story()
    life = story.life()
    await service.publish(*life, *life)
    await until(lambda: verified(service, story), what="verified")
    group = {"group": "lethe-reporting"}

    async def all_read() -> bool:
        seen = sum(
            service.counted("outbox_consumer_records_total", **group, topic=topic, outcome=fate)
            for topic in (REQUESTS, EVENTS)
            for fate in ("handled", "duplicate")
        )
        return seen == 2 * len(life)

    await until(all_read, what="every record, the repeated ones too")
    assert len(await service.rows("select 1 from lethe.event_log")) == len(life)
    shown = (await service.client.get(f"/v1/requests/{story.request_id}")).json()
    assert shown["counts"]["upscale"]["feature_rows"] == 9
    assert len(shown["timeline"]) == len(life)
    for event in ("requested", "verified"):
        assert service.counted("reporting_events_projected_total", type=event) == 1
    assert service.counted("reporting_events_projected_total", type="batch_erased") == 2


async def test_the_eraser_may_be_heard_before_intake(service: Service) -> None:
    story = Story()
    asked = story.asked()
    await service.publish(story.says(Accepted, not_before=story.begun), story.says(Started, 3))

    async def running() -> bool:
        return await service.state(story.request_id) == "running"

    await until(running, what="running")
    await service.publish(asked)

    async def completed() -> bool:
        shown = (await service.client.get(f"/v1/requests/{story.request_id}")).json()
        return shown["team"] == "support" and shown["deadline"] is not None

    await until(completed, what="intake's part")
    assert await service.state(story.request_id) == "running"


async def test_a_record_nobody_can_read_is_a_dead_letter_and_the_partition_moves_on(
    service: Service,
) -> None:
    story = Story()
    record = encode(story.asked())
    foreign_key = b"kim@example.com"
    unknown = [
        (name, value.replace(b"requested.v1", b"requested.v9")) for name, value in record.headers
    ]
    broken = [(name, value) for name, value in record.headers if name != "ce_id"]
    broken.append(("ce_id", str(uuid7()).encode()))
    send = service.producer.send_and_wait
    key = story.ref.encode()
    await send(REQUESTS, b"whatever", key=foreign_key)
    await send(REQUESTS, record.value, key=key, headers=unknown)
    await send(REQUESTS, b"{not json", key=key, headers=broken)
    await send(REQUESTS, None, key=key, headers=broken)
    await service.publish(story.asked(), story.says(Verified))

    async def four() -> bool:
        return len(await service.dead_letters()) == 4

    await until(lambda: verified(service, story), what="what came behind them")
    await until(four, what="four dead letters")
    found = await service.dead_letters()
    assert sorted(each["reason"] for each in found) == [
        "invalid_event",
        "invalid_event",
        "not_ours",
        "unknown_version",
    ]
    assert {each["origin_topic"] for each in found} == {REQUESTS}
    assert {each["topic"] for each in found} == {f"{REQUESTS}.DLT"}
    by_reason = {each["reason"]: each for each in found}
    assert by_reason["not_ours"]["subject_ref"] is None
    assert by_reason["unknown_version"]["subject_ref"] == story.ref
    (kept,) = await service.rows("select payload from lethe.dead_letter where reason = 'not_ours'")
    assert bytes(kept.payload) == b"whatever"
    assert "kim@example.com" not in service.log.getvalue()


async def test_a_number_no_column_takes_is_a_dead_letter(service: Service) -> None:
    story = Story()
    await service.publish(story.asked(attempt=2**40))

    async def one() -> bool:
        return [each["reason"] for each in await service.dead_letters()] == ["invalid_event"]

    await until(one, what="the dead letter")


async def test_replaying_twice_publishes_once_and_takes_effect_once(service: Service) -> None:
    story = Story()
    # A dead letter of the relay: it could be handled, had it only been published.
    number = await service.bury(story.asked())
    letter = str(number)

    code, out, err = await service.lethe("dlt", "list", "--json")
    assert code == 0, err
    assert [each["id"] for each in json.loads(out)] == [number]
    assert json.loads(out)[0]["reason"] == "too_large"

    code, out, err = await service.lethe("dlt", "replay", letter, "--json")
    assert code == 0, err
    assert json.loads(out) == [{"id": number, "outcome": "replayed"}]

    async def requested() -> bool:
        return await service.state(story.request_id) == "requested"

    await until(requested, what="the replayed request")
    code, out, err = await service.lethe("dlt", "replay", letter, "--json")
    assert code == 0, err
    assert json.loads(out) == [{"id": number, "outcome": "replayed_before"}]
    assert await service.dead_letters() == []
    assert [each["state"] for each in await service.dead_letters("all")] == ["replayed"]

    code, out, _ = await service.lethe("dlt", "replay", "--all", "--json")
    assert (code, json.loads(out)) == (0, [])
    code, out, _ = await service.lethe("dlt", "replay", "999999999")
    assert (code, out) == (1, "999999999\tunknown\n")
    # The record behind the replayed one proves that nothing more was published.
    later = Story()
    await service.publish(later.asked())

    async def later_seen() -> bool:
        return await service.state(later.request_id) == "requested"

    await until(later_seen, what="a later request")
    assert len(await service.rows("select 1 from lethe.event_log")) == 2


async def test_a_dead_letter_without_an_origin_of_ours_is_not_sent_anywhere(
    service: Service,
) -> None:
    headers = [("error-reason", b"x"), ("origin-topic", b"somebody.elses.topic")]
    await service.producer.send_and_wait(f"{EVENTS}.DLT", b"x", key=b"k", headers=headers)
    (found,) = await until(service.dead_letters, what="the dead letter")
    code, out, _ = await service.lethe("dlt", "replay", str(found["id"]))
    assert (code, out) == (1, f"{found['id']}\twithout origin\n")
    assert len(await service.dead_letters()) == 1


async def test_it_is_ready_once_everything_it_needs_answered(service: Service) -> None:
    await until(service.ready, what="ready")
    report = (await service.client.get("/readyz")).json()
    assert set(report["dependencies"]) == {
        "database",
        "kafka",
        "lethe-reporting",
        "lethe-reporting-dead-letters",
        "redis",
    }
    assert (await service.client.get("/healthz")).status_code == 200
    assert "reporting_events_projected_total" in (await service.client.get("/metrics")).text


async def test_an_operator_makes_a_key_that_opens_the_api(service: Service) -> None:
    create = ("reporting", "keys", "create", "--team", "dpo", "--scope", "reporting:read")
    code, out, err = await service.lethe(*create)
    assert code == 0, err
    headers = {"Authorization": f"Bearer {out.strip()}"}
    answer = await service.client.get(f"/v1/requests/{uuid4()}", headers=headers)
    assert answer.status_code == 404


async def test_migrating_makes_the_tables_and_the_groups_and_may_be_repeated(
    service: Service, database_url: str
) -> None:
    service.environment["LETHE_REPORTING_DATABASE_URL"] = database_url
    for _ in range(2):
        code, out, err = await service.lethe("migrate", "--only", "reporting")
        assert (code, out) == (0, "reporting: at 0002\n"), err

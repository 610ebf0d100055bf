"""What intake says at any hour, and what it does to a job that runs."""

import asyncio
import json
from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from uuid_utils.compat import uuid7

from lethe_contracts.events import (
    CancelRequested,
    Held,
    HoldApplied,
    Released,
    Verified,
)
from lethe_contracts.keyring import KeyRing
from lethe_eraser.domain import Job, ObjectRef
from lethe_eraser.storage import people
from lethe_eraser.storage.journal import Intent, Journal
from lethe_eraser.window import Window
from lethe_outbox import PoisonError
from tests.integration.eraser.world import (
    NOTHING,
    OTHER,
    SUBJECT,
    Eraser,
    World,
    put_in,
    to_the_end,
    until_begun,
)

REF = "1.5ub7ec7"


def after_batch(eraser: Eraser, number: int, then: Any) -> None:
    """Run `then` when batch `number` was committed."""
    real = eraser.batches.mask
    done: list[int] = []

    async def mask(*args: Any) -> Any:
        after = await real(*args)
        done.append(1)
        if len(done) == number:
            await then()
        return after

    put_in(eraser.batches, "mask", mask)


async def test_a_hold_between_two_batches_stops_the_next(world: World) -> None:
    """Of two batches under way one is masked when the hold comes: the other is the last."""
    for number in range(4):
        await world.sketch(number)
    await world.accept(world.requested())
    hold = uuid7()
    eraser = world.eraser(batch_rows=1)

    async def held_with_the_second_under_way() -> None:
        await until_begun(world, 2)
        await world.accept(Held(hold_id=hold))

    after_batch(eraser, 1, held_with_the_second_under_way)
    await eraser.until_idle()

    assert await world.state() == "held"
    assert (await world.left_of(SUBJECT))["result"] == 2
    assert await world.names() == [
        "accepted", "started", "batch_erased", "hold_applied", "batch_erased", "hold_applied",
    ]  # fmt: skip
    await eraser.until_idle()
    assert (await world.left_of(SUBJECT))["result"] == 2

    await world.accept(Released(hold_id=hold))
    assert await to_the_end(world, eraser) == "verified"
    assert await world.left_of(SUBJECT) == NOTHING
    assert (await world.said())[-1].event.totals["sketch"].objects_gone == 8


async def test_a_batch_whose_intent_was_committed_finishes_and_the_hold_has_the_last_word(
    world: World,
) -> None:
    for number in range(2):
        await world.sketch(number)
    await world.accept(world.requested())
    hold = uuid7()
    eraser = world.eraser(batch_rows=1)
    delete, intend = eraser.batches.delete, eraser.batches.intend
    held = asyncio.Event()
    intended: list[int] = []

    async def held_meanwhile(intent: Any) -> Any:
        await world.accept(Held(hold_id=hold))
        held.set()
        return await delete(intent)

    async def second_after_the_hold(*args: Any) -> Any:
        if intended:
            await held.wait()
        intended.append(1)
        return await intend(*args)

    put_in(eraser.batches, "delete", held_meanwhile)
    put_in(eraser.batches, "intend", second_after_the_hold)
    await eraser.until_idle()
    assert len(intended) == 2
    assert await world.names() == [
        "accepted", "started", "hold_applied", "batch_erased", "hold_applied",
    ]  # fmt: skip
    assert await world.state() == "held"
    assert (await world.left_of(SUBJECT))["result"] == 1


async def test_a_hold_that_the_job_row_does_not_know_stops_it_too(world: World) -> None:
    await world.sketch(1)
    await world.accept(world.requested())
    hold = uuid7()
    eraser = world.eraser()
    real = eraser.batches.collect

    async def held_meanwhile(*args: Any) -> Any:
        await world.write(
            "insert into lethe.hold (subject_ref, hold_id) values (:r, :h)", r=REF, h=hold
        )
        return await real(*args)

    put_in(eraser.batches, "collect", held_meanwhile)
    await eraser.until_idle()
    last = (await world.said())[-1].event
    assert isinstance(last, HoldApplied)
    assert last.hold_id == hold
    assert (await world.left_of(SUBJECT))["result"] == 1


async def test_a_hold_during_the_scan_leaves_the_client_rows(world: World) -> None:
    await world.sketch(1)
    await world.accept(world.requested())
    hold = uuid7()
    eraser = world.eraser()
    real = eraser.verification.scan

    async def held_meanwhile(*args: Any) -> Any:
        found = await real(*args)
        await world.accept(Held(hold_id=hold))
        return found

    put_in(eraser.verification, "scan", held_meanwhile)
    await eraser.until_idle()
    assert await world.state() == "held"
    assert (await world.left_of(SUBJECT))["client"] == 1
    put_in(eraser.verification, "scan", real)
    await world.accept(Released(hold_id=hold))
    assert await world.names() == [
        "accepted", "started", "batch_erased", "erased", "hold_applied", "erased",
    ]  # fmt: skip
    assert await to_the_end(world, eraser) == "verified"


async def test_several_holds_and_only_the_last_release_counts(world: World) -> None:
    first, second = uuid7(), uuid7()
    await world.accept(Held(hold_id=first), world.requested(), Held(hold_id=second))
    await world.accept(Released(hold_id=first))
    await world.eraser().until_idle()
    assert await world.state() == "held"
    await world.accept(Released(hold_id=second), Held(hold_id=second))
    await world.eraser().until_idle()
    assert await world.state() == "verified"


async def test_a_request_joins_a_running_job_and_both_are_told(world: World) -> None:
    await world.sketch(1)
    first, second = world.requested(), world.requested(days=1)
    await world.accept(first)
    eraser = world.eraser(batch_rows=1)
    after_batch(eraser, 1, lambda: world.accept(second))
    await eraser.until_idle()
    assert await world.value("select count(*) from lethe.job") == 1
    last = (await world.said())[-1].event
    assert isinstance(last, Verified)
    assert set(last.request_ids) == {first.request_id, second.request_id}
    assert await world.value("select deadline from lethe.job") == second.deadline


async def test_a_request_during_the_scan_opens_the_next_job_which_waits(world: World) -> None:
    await world.sketch(1)
    await world.accept(world.requested())
    eraser = world.eraser()
    real = eraser.verification.scan
    at_scan: list[Any] = []

    async def joined_meanwhile(*args: Any) -> Any:
        if not at_scan:
            await world.accept(world.requested())
            at_scan.append(await world.rows("select state from lethe.job order by created_at"))
            # Nobody else may take the person's next job now.
            await world.eraser().until_idle()
        return await real(*args)

    put_in(eraser.verification, "scan", joined_meanwhile)
    await eraser.until_idle()
    states = [row.state for row in at_scan[0]]
    assert states == ["erased", "accepted"]
    await to_the_end(world, world.eraser())
    assert [r.state for r in await world.rows("select state from lethe.job")] == ["verified"] * 2


async def test_a_redrive_is_answered_with_a_snapshot_and_no_second_erasure(world: World) -> None:
    await world.sketch(1)
    request = world.requested()
    await world.accept(request)
    await world.eraser().until_idle()
    before = await world.said()
    await world.accept(world.requested(attempt=2, request_id=request.request_id))
    await world.eraser().until_idle()
    [answer] = (await world.said())[len(before) :]
    assert answer.event == before[-1].event
    assert answer.sequence == before[-1].sequence + 1
    assert await world.value("select attempt from lethe.job_request") == 2


async def test_a_cancelled_request_is_not_erased(world: World) -> None:
    await world.sketch(1)
    request = world.requested()
    await world.accept(request)
    await world.accept(CancelRequested(request_id=request.request_id))
    await world.eraser().until_idle()
    assert await world.names() == ["accepted", "cancelled"]
    assert (await world.left_of(SUBJECT))["objects"] == 2
    # Whatever arrives late or again, it stays withdrawn.
    await world.accept(world.requested(attempt=2, request_id=request.request_id))
    await world.eraser().until_idle()
    assert (await world.names())[-1] == "cancelled"


async def test_a_cancel_that_came_first_is_remembered(world: World) -> None:
    request = world.requested()
    await world.accept(CancelRequested(request_id=request.request_id))
    await world.accept(request)
    await world.eraser().until_idle()
    assert await world.names() == ["cancelled"]
    assert await world.value("select subject_ciphertext from lethe.job") is None


async def test_a_batch_of_many_people_is_accepted_in_one_transaction(world: World) -> None:
    records = [
        world.record(world.requested(ref=f"1.{n}", subject=f"acct-{n}"), ref=f"1.{n}")
        for n in range(50)
    ]
    await world.accept_records(*records)
    assert await world.value("select count(*) from lethe.job") == 50
    assert len(await world.said()) == 50


async def test_two_consumers_at_once_open_one_job(world: World) -> None:
    requests = [world.requested() for _ in range(8)]
    await asyncio.gather(*(world.accept(request) for request in requests))
    assert await world.value("select count(*) from lethe.job") == 1
    assert await world.value("select count(*) from lethe.job_request") == 8
    sequences = [one.sequence for one in await world.said()]
    assert sequences == list(range(1, 9))


async def test_the_earliest_deadline_goes_first(world: World) -> None:
    for n, days in enumerate((5, 1, 3)):
        await world.accept(
            world.requested(ref=f"1.{n}", subject=f"acct-{n}", days=days), ref=f"1.{n}"
        )
    await world.eraser().until_idle()
    verified = [one.subject_ref for one in await world.said() if one.event.name == "verified"]
    assert verified == ["1.1", "1.2", "1.0"]


async def test_a_word_of_intake_ends_no_pause(world: World) -> None:
    """A round waits so that writers can finish, and what expires by itself is asked for seldom."""
    asked = world.requested()
    await world.accept(asked)
    await world.write("update lethe.job set retry_at = now() + interval '1 hour'")
    hold = uuid7()
    await world.accept(
        world.requested(request_id=asked.request_id, attempt=2),
        world.requested(),
        Held(hold_id=hold),
        Released(hold_id=hold),
    )
    assert await world.value("select retry_at > now() from lethe.job")
    await world.eraser().until_idle()
    assert await world.state() == "accepted"


async def test_a_window_that_was_widened_is_open_for_who_was_told_to_wait(world: World) -> None:
    world.window = Window.parse("01:00-05:00", "UTC")
    world.clock.now = world.clock.now.replace(hour=12)
    await world.sketch(1)
    await world.accept(world.requested())
    await world.write("update lethe.job set not_before = now() + interval '1 day'")
    await world.eraser().until_idle()
    assert await world.state() == "accepted"
    world.window = Window.parse("always", "UTC")
    assert await to_the_end(world, world.eraser()) == "verified"


async def test_nothing_is_erased_outside_the_window_and_it_stops_at_a_batch(world: World) -> None:
    for number in range(4):
        await world.sketch(number)
    world.window = Window.parse("01:00-05:00", "Asia/Seoul")
    world.clock.now = world.clock.now.replace(hour=3)  # noon in Seoul
    await world.accept(world.requested())
    accepted = (await world.said())[0].event
    assert accepted.model_dump()["not_before"] == world.window.next_open(world.clock.now)
    eraser = world.eraser(batch_rows=1)
    await eraser.until_idle()
    assert await world.names() == ["accepted"]

    world.clock.now = world.clock.now.replace(hour=19)  # tonight has come

    async def five_o_clock() -> None:
        await until_begun(world, 3)
        world.clock.now = world.clock.now.replace(hour=20)

    after_batch(eraser, 2, five_o_clock)
    await eraser.until_idle()
    assert await world.state() == "running"
    # The third was under way, and finished.
    assert (await world.left_of(SUBJECT))["result"] == 1
    assert await world.value("select count(*) from lethe.journal where not masked") == 0

    world.clock.now += timedelta(hours=23)
    await eraser.until_idle()
    assert await world.state() == "verified"
    assert (await world.said())[-1].event.totals["sketch"].objects_gone == 8


async def test_records_that_can_never_be_handled_have_a_reason(world: World) -> None:
    good = world.record(world.requested())
    elsewhere = replace(world, ring=KeyRing.generate())
    poison = {
        "undecryptable_subject": world.record(
            world.requested().model_copy(update={"subject": elsewhere.requested().subject})
        ),
        "not_ours": replace(good, headers=()),
        "invalid_event": replace(good, value=b"{"),
        "unknown_version": _retyped(good, "lethe.erasure.requested.v9"),
        "unknown_type": _retyped(good, "lethe.erasure.forgotten.v1"),
    }
    for reason, record in poison.items():
        with pytest.raises(PoisonError) as raised:
            await world.accept_records(good, record)
        assert raised.value.reason == reason
    with pytest.raises(PoisonError):
        await world.accept_records(replace(good, key=b"1.another"))
    assert await world.value("select count(*) from lethe.job") == 0
    await world.accept_records(good)
    assert await world.value("select count(*) from lethe.job") == 1


async def test_a_request_id_of_another_person_is_poison(world: World) -> None:
    request = world.requested()
    await world.accept(request)
    stolen = world.requested(request_id=request.request_id, ref="1.two", subject="acct-2")
    with pytest.raises(PoisonError, match="invalid_event"):
        await world.accept(stolen, ref="1.two")


async def test_a_request_id_of_two_people_in_one_batch_is_poison(world: World) -> None:
    request = world.requested()
    stolen = world.requested(request_id=request.request_id, ref="1.two", subject="acct-2")
    with pytest.raises(PoisonError, match="invalid_event"):
        await world.accept_records(world.record(request), world.record(stolen, ref="1.two"))
    assert await world.value("select count(*) from lethe.job") == 0


async def test_one_hold_may_stand_on_several_people(world: World) -> None:
    hold = uuid7()
    for ref in ("1.one", "1.two"):
        await world.accept(Held(hold_id=hold), ref=ref)
        await world.accept(world.requested(ref=ref), ref=ref)
    await world.accept(Released(hold_id=hold), ref="1.one")
    rows = await world.rows("select subject_ref, state from lethe.job order by 1")
    assert [tuple(row) for row in rows] == [("1.one", "accepted"), ("1.two", "held")]


async def test_a_row_that_the_product_writes_late_is_found_and_erased(world: World) -> None:
    await world.sketch(1)
    await world.accept(world.requested())
    eraser = world.eraser()
    real = eraser.verification.conclude
    late: list[int] = []

    async def written_meanwhile(*args: Any) -> Any:
        if not late:
            late.append(await world.sketch(2))
        return await real(*args)

    put_in(eraser.verification, "conclude", written_meanwhile)
    assert await to_the_end(world, eraser) == "verified"
    assert await world.left_of(SUBJECT) == NOTHING
    assert await world.value("select round from lethe.job") == 2
    assert (await world.names())[-4:] == ["started", "batch_erased", "erased", "verified"]
    assert (await world.said())[-1].event.totals["sketch"].client_rows == 2


async def test_a_product_that_never_stops_writing_is_blocked_in_the_end(world: World) -> None:
    await world.sketch(1)
    await world.accept(world.requested())
    eraser = world.eraser()
    real = eraser.batches.delete

    async def touched(intent: Any) -> Any:
        gone = await real(intent)
        await world.write("update sketch_task set gpu_name = 'h100'")
        return gone

    put_in(eraser.batches, "delete", touched)
    assert await to_the_end(world, eraser) == "blocked"
    last = (await world.said())[-1].event.model_dump()
    assert last["reasons"] == {"still_writing": 1}
    assert (await world.left_of(SUBJECT))["client"] == 1


async def test_an_object_that_comes_back_is_deleted_again(world: World) -> None:
    await world.sketch(1)
    await world.accept(world.requested())
    eraser = world.eraser()
    real = eraser.verification.scan
    again: list[UUID] = []

    async def uploaded_meanwhile(*args: Any) -> Any:
        if not again:
            again.append(uuid7())
            world.put("results", f"public/{SUBJECT}-1.png")
        return await real(*args)

    put_in(eraser.verification, "scan", uploaded_meanwhile)
    assert await to_the_end(world, eraser) == "verified"
    assert await world.left_of(SUBJECT) == NOTHING


async def test_what_the_journal_holds_unfinished_when_the_scan_ends_goes_round_again(
    world: World,
) -> None:
    """The job would end without its journal, and the object's name would be lost."""
    await world.sketch(1)
    await world.accept(world.requested())
    eraser = world.eraser()
    real = eraser.verification.scan
    pending = ObjectRef(world.buckets["results"], f"public/{SUBJECT}-pending.png")
    world.put("results", pending.key)
    written: list[int] = []

    async def scan(job: Job, *args: Any) -> Any:
        found = await real(job, *args)
        if not written:
            written.append(job.batches + 1)
            intent = Intent.of_objects(written[0], "sketch", [pending], if_unreferenced=False)
            async with world.engine.begin() as connection:
                await Journal(world.cipher).write(connection, job.job_id, job.round, intent)
        return found

    put_in(eraser.verification, "scan", scan)
    assert await to_the_end(world, eraser) == "verified"
    assert pending.key not in world.keys("results")


async def test_an_object_that_s3_does_not_delete_blocks_its_row_alone(world: World) -> None:
    await world.sketch(1)
    locked = await world.sketch(2)
    await world.document(1)
    file = f"files/{SUBJECT}/1/1.png"

    class Locked:
        """Refuses two keys, as S3 does for locked ones."""

        async def delete(self, refs: Any, held: Any = None) -> Any:
            refused = {r for r in refs if r.key in {f"public/{SUBJECT}-2.png", file}}
            done = await world.store.delete([r for r in refs if r not in refused], held)
            return replace(done, failed=dict.fromkeys(refused, "AccessDenied"))

        def __getattr__(self, name: str) -> Any:
            return getattr(world.store, name)

    await world.accept(world.requested())
    assert await to_the_end(world, world.eraser(objects=Locked())) == "blocked"
    last = (await world.said())[-1].event.model_dump(mode="json")
    assert last["reasons"] == {"object_not_deleted": 2}
    assert f"public/{SUBJECT}-2.png" in world.keys("results")
    # The manifest is what its locked file is found through: it stays.
    assert world.keys("documents") == {file, f"manifests/{SUBJECT}-1.json"}
    assert await world.value(
        "select result from sketch_task where feature_id = :f", f=locked
    ) == json.dumps({"url": f"https://cdn.test.example/{SUBJECT}-2.png"})
    assert (await world.left_of(SUBJECT))["client"] == 2
    # One batch of both types.
    assert await world.value("select count(*) from lethe.journal") == 1


def _retyped(record: Any, name: str) -> Any:
    headers = tuple((k, name.encode() if k == "ce_type" else v) for k, v in record.headers)
    return replace(record, headers=headers)


async def test_whoever_is_more_urgent_goes_first_at_the_next_batch(world: World) -> None:
    for number in range(4):
        await world.sketch(number)
    await world.sketch(1, subject=OTHER)
    await world.accept(world.requested(days=5))
    eraser = world.eraser(batch_rows=1, concurrency=1)

    async def somebody_urgent() -> None:
        await world.accept(world.requested(ref="1.urgent", subject=OTHER, days=1), ref="1.urgent")
        await eraser.executor.look_ahead()

    after_batch(eraser, 1, somebody_urgent)
    await eraser.until_idle()
    verified = [one.subject_ref for one in await world.said() if isinstance(one.event, Verified)]
    assert verified == ["1.urgent", REF]
    assert await world.left_of(SUBJECT) == NOTHING


async def test_a_job_that_had_its_turn_lets_others_have_theirs(world: World) -> None:
    for number in range(3):
        await world.sketch(number)
    await world.sketch(1, subject=OTHER)
    await world.accept(world.requested(days=1))
    await world.write("update lethe.job set batches = 32")
    eraser = world.eraser(batch_rows=1, concurrency=1)

    async def somebody_small() -> None:
        await world.accept(world.requested(ref="1.small", subject=OTHER, days=5), ref="1.small")
        await eraser.executor.look_ahead()

    after_batch(eraser, 1, somebody_small)
    await eraser.until_idle()
    verified = [one.subject_ref for one in await world.said() if isinstance(one.event, Verified)]
    assert verified == ["1.small", REF]


async def test_nobody_makes_room_while_a_worker_is_free(world: World) -> None:
    for number in range(2):
        await world.sketch(number)
    await world.accept(world.requested(days=5))
    eraser = world.eraser(batch_rows=1, concurrency=2)

    async def somebody_urgent() -> None:
        await world.accept(world.requested(ref="1.urgent", subject=OTHER, days=1), ref="1.urgent")
        await eraser.executor.look_ahead()

    after_batch(eraser, 1, somebody_urgent)
    await eraser.executor.run_next(asyncio.Event())
    verified = [one.subject_ref for one in await world.said() if isinstance(one.event, Verified)]
    assert verified == [REF]


async def test_a_request_id_that_two_erasers_take_for_two_people_is_one_persons(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither sees the other's request before both have decided."""
    request = world.requested()
    stolen = world.requested(request_id=request.request_id, ref="1.two", subject="acct-2")
    both_decided = asyncio.Barrier(2)
    save = people.save

    async def save_together(*args: Any) -> None:
        await both_decided.wait()
        await save(*args)

    monkeypatch.setattr(people, "save", save_together)
    took = await asyncio.gather(
        world.accept(request), world.accept(stolen, ref="1.two"), return_exceptions=True
    )
    assert sorted(map(repr, took)) == ["None", "PoisonError('invalid_event')"]
    requests = "select count(r) from lethe.job left join lethe.job_request r using (job_id)"
    assert await world.value(requests) == 1
    assert await world.value("select count(*) from lethe.job") == 1

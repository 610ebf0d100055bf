"""Nobody is erased who is a customer, or became one again after they asked to be erased."""

from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from uuid_utils.compat import uuid7

from lethe_contracts.events import Blocked, CancelRequested
from lethe_contracts.states import BlockReason
from lethe_eraser.catalog import CatalogError
from lethe_eraser.check import check_schema, unclaimed_tables
from lethe_eraser.check.explain import account_rule
from lethe_eraser.storage import jobs, operations
from lethe_eraser.storage.events import Announcer
from lethe_outbox import Outbox
from tests.integration.eraser.test_control import after_batch
from tests.integration.eraser.world import (
    NOTHING,
    OTHER,
    SUBJECT,
    World,
    make_catalog,
    put_in,
    to_the_end,
    until_begun,
)

ENTRY = """
active_account:
  table: account
  subject: client_key
  active: {status: [active, trial]}
  opened_at: opened_at
features:
  sketch:"""
LATER, EARLIER = timedelta(seconds=1), timedelta(days=-1)


@pytest.fixture
async def shop(world: World, tmp_path: Path) -> World:
    """The world with accounts, of which only the other person has one, an active one."""
    await world.write(
        "create table public.account"
        " (client_key text primary key, status text, opened_at timestamptz)"
    )
    world.catalog = make_catalog(tmp_path, world.buckets, {"\nfeatures:\n  sketch:": ENTRY})
    await account(world, "active", EARLIER, subject=OTHER)
    return world


async def account(
    world: World, status: str | None, opened: timedelta, *, subject: str = SUBJECT
) -> None:
    """Let a person have an account, opened so long after now on the world's clock."""
    await world.write(
        "insert into public.account values (:k, :s, :o) on conflict (client_key)"
        " do update set status = excluded.status, opened_at = excluded.opened_at",
        k=subject,
        s=status,
        o=world.clock() + opened,
    )


async def retry(world: World) -> None:
    job_id = await world.value("select job_id from lethe.job order by created_at desc limit 1")
    async with world.engine.begin() as connection:
        answer = await operations.retry(connection, Announcer(Outbox("lethe")), job_id)
    assert answer == operations.Obeyed(changed=True)


@pytest.mark.parametrize(
    ("status", "opened", "ends"),
    [
        pytest.param("active", EARLIER, "blocked", id="active"),
        pytest.param("trial", EARLIER, "blocked", id="active in another way"),
        pytest.param("closed", EARLIER, "verified", id="opened before and closed"),
        pytest.param("active", LATER, "blocked", id="opened again after the request"),
        pytest.param("closed", LATER, "blocked", id="opened again after it and closed again"),
        pytest.param(None, LATER, "blocked", id="opened again and nobody knows how it stands"),
        pytest.param(None, EARLIER, "verified", id="opened before and nobody knows"),
        pytest.param("closed", timedelta(), "verified", id="opened at that very moment, closed"),
    ],
)
async def test_an_account_decides(
    shop: World, status: str | None, opened: timedelta, ends: str
) -> None:
    await shop.sketch(1)
    await account(shop, status, opened)
    before = await shop.product()
    await shop.accept(shop.requested())
    assert await to_the_end(shop, shop.eraser()) == ends
    if ends == "verified":
        assert await shop.left_of(SUBJECT) == NOTHING
        return
    assert await shop.product() == before
    assert len(shop.keys("uploads")) == 1
    last = (await shop.said())[-1].event
    assert isinstance(last, Blocked)
    assert last.reasons == {BlockReason.SUBJECT_ACTIVE: 1}
    assert await shop.names() == ["accepted", "blocked"]


async def test_without_an_account_one_is_nobodys_customer(shop: World) -> None:
    await shop.sketch(1)
    await shop.accept(shop.requested())
    assert await to_the_end(shop, shop.eraser()) == "verified"


async def test_who_comes_back_between_two_batches_keeps_the_rest(shop: World) -> None:
    """Of two batches under way one is masked when they do: the other is the last."""
    for number in range(4):
        await shop.sketch(number)
    await shop.accept(shop.requested())
    eraser = shop.eraser(batch_rows=1)

    async def come_back_with_the_second_under_way() -> None:
        await until_begun(shop, 2)
        await account(shop, "active", LATER)

    after_batch(eraser, 1, come_back_with_the_second_under_way)
    assert await to_the_end(shop, eraser) == "blocked"
    left = await shop.left_of(SUBJECT)
    assert (left["option"], left["result"], left["client"]) == (2, 2, 4)
    names = await shop.names()
    assert (names.count("batch_erased"), names[-1]) == (2, "blocked")


async def test_who_comes_back_before_the_end_keeps_their_client_rows(shop: World) -> None:
    await shop.sketch(1)
    await shop.accept(shop.requested())
    eraser = shop.eraser()
    real = eraser.verification.scan

    async def scan(*args: Any) -> Any:
        found = await real(*args)
        await account(shop, "active", LATER)
        return found

    put_in(eraser.verification, "scan", scan)
    assert await to_the_end(shop, eraser) == "blocked"
    assert (await shop.left_of(SUBJECT))["client"] == 1


async def test_a_batch_that_was_begun_before_leaves_the_block_the_last_word(shop: World) -> None:
    for number in range(2):
        await shop.sketch(number)
    await shop.accept(shop.requested())
    eraser = shop.eraser(batch_rows=1)
    intend, real = eraser.batches.intend, eraser.batches.delete

    async def intended(*args: Any) -> Any:
        begun = await intend(*args)
        # Before the next batch can begin, which it may while S3 works on this one.
        await account(shop, "active", LATER)
        return begun

    async def delete(intent: Any) -> Any:
        async with shop.engine.begin() as connection:
            [job] = (await jobs_of(shop)).values()
            assert await eraser.batches._fence.begin(connection, job) is None
        return await real(intent)

    put_in(eraser.batches, "intend", intended)
    put_in(eraser.batches, "delete", delete)
    await eraser.until_idle()
    assert await shop.state() == "blocked"
    assert (await shop.names())[-3:] == ["blocked", "batch_erased", "blocked"]
    assert (await shop.left_of(SUBJECT))["option"] == 1


async def jobs_of(world: World) -> dict[UUID, Any]:
    ids = [job_id for (job_id,) in await world.rows("select job_id from lethe.job")]
    async with world.engine.connect() as connection:
        return await jobs.of_ids(connection, ids)


async def test_retry_looks_again_and_what_was_opened_before_it_is_settled(shop: World) -> None:
    await shop.sketch(1)
    await shop.accept(shop.requested())
    await account(shop, "active", LATER)
    eraser = shop.eraser()
    assert await to_the_end(shop, eraser) == "blocked"
    await retry(shop)
    assert await to_the_end(shop, eraser) == "blocked", "still a customer"
    await shop.write(
        "update public.account set status = 'closed', opened_at = now() where status <> ''"
    )
    await retry(shop)
    assert await to_the_end(shop, eraser) == "verified"
    assert await shop.left_of(SUBJECT) == NOTHING


async def test_a_retry_does_not_excuse_an_account_that_is_opened_after_it(shop: World) -> None:
    await shop.sketch(1)
    await shop.accept(shop.requested())
    await account(shop, "active", LATER)
    eraser = shop.eraser()
    assert await to_the_end(shop, eraser) == "blocked"
    await retry(shop)
    await shop.write(
        "update public.account set status = 'closed', opened_at = now() + interval '1 hour'"
    )
    assert await to_the_end(shop, eraser) == "blocked"


async def test_the_earliest_request_that_is_not_withdrawn_counts(shop: World) -> None:
    await shop.sketch(1)
    await account(shop, "closed", timedelta(hours=1))
    first = uuid7()
    await shop.accept(shop.requested(request_id=first))
    shop.clock.now += timedelta(hours=2)
    second = shop.requested()
    await shop.accept(second)
    # A re-drive says when it was asked for again; the first word counts.
    await shop.accept(shop.requested(request_id=first, attempt=2))
    [job] = (await jobs_of(shop)).values()
    assert job.looked_at == shop.clock() - timedelta(hours=2)
    await shop.accept(CancelRequested(request_id=first))
    assert await to_the_end(shop, shop.eraser()) == "verified"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("alter table public.account rename to accounts", "the database has none"),
        ("alter table public.account rename column status to state", "did you mean state"),
        ("alter table public.account drop constraint account_pkey", "create one on public.account"),
        (
            "alter table public.account alter column opened_at type timestamp",
            "opened_at is timestamp without time zone",
        ),
        (
            "alter table public.account alter column client_key type uuid using gen_random_uuid()",
            "client_key is uuid; an account id is compared as text",
        ),
    ],
)
async def test_what_cannot_be_asked_refuses_the_start(shop: World, change: str, says: str) -> None:
    async with shop.engine.connect() as connection:
        await check_schema(connection, shop.catalog)
    await shop.write(change)
    async with shop.engine.connect() as connection:
        with pytest.raises(CatalogError) as refused:
            await check_schema(connection, shop.catalog)
    [problem] = refused.value.problems
    assert says in problem


async def test_its_table_is_claimed_and_its_other_columns_are_the_products(shop: World) -> None:
    await shop.write("alter table public.account add column plan text")
    async with shop.engine.connect() as connection:
        assert await check_schema(connection, shop.catalog) == ()
        assert await unclaimed(shop) == []


async def unclaimed(world: World) -> list[str]:
    async with world.engine.connect() as connection:
        return [one.table for one in await unclaimed_tables(connection, world.catalog)]


def test_explain_says_when_nobody_is_erased(shop: World) -> None:
    assert account_rule(shop.catalog.active_account) == (
        "nobody is erased while public.account says that status is active or trial,"
        " or that opened_at is after their request"
    )
    assert account_rule(None) is None


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"  subject: client_key\n": ""}, "active_account.subject: is missing"),
        ({"[active, trial]": "[]"}, "active_account.active.status"),
        ({"{status: [active, trial]}": "{}"}, "active_account.active"),
        ({"  opened_at:": "  open_at:"}, "did you mean opened_at?"),
        ({"table: account\n": "table: client\n"}, "table public.client is claimed by"),
    ],
)
def test_an_entry_that_says_too_little_is_answered_with_its_line(
    shop: World, tmp_path: Path, change: dict[str, str], says: str
) -> None:
    [(before, after)] = change.items()
    entry = ENTRY.replace(before, after)
    with pytest.raises(CatalogError) as refused:
        make_catalog(tmp_path, shop.buckets, {"\nfeatures:\n  sketch:": entry})
    assert any(says in problem and "catalog.yaml:" in problem for problem in refused.value.problems)

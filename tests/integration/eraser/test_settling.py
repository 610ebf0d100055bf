"""Too early to say anything: what the product may still write to postpones the end, for a time."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import pytest

from lethe_eraser.catalog import CatalogError
from tests.integration.eraser.world import NOTHING, SUBJECT, World, make_catalog

SETTLE: Final = {
    "features:\n": "settle: {after_seconds: 600, at_most_seconds: 3600}\nfeatures:\n",
    "keep: [id, status, gpu, created_at]": (
        "keep: [id, gpu]\n      created_at: created_at\n"
        "      unfinished: {status: [queued, running]}"
    ),
}


@pytest.fixture
async def settling(world: World, tmp_path: Path) -> World:
    world.catalog = make_catalog(tmp_path, world.buckets, SETTLE)
    return world


async def ages(world: World, request: int, age: timedelta, status: str = "done") -> None:
    await world.write(
        "update sketch_feature set created_at = :at, status = :s where id = :i",
        at=datetime.now(UTC) - age,
        s=status,
        i=request,
    )


async def looked_at_again(world: World) -> str:
    await world.write("update lethe.job set retry_at = null")
    await world.eraser().until_idle()
    return await world.state()


async def test_a_young_row_postpones_the_end_and_what_comes_late_costs_no_round(
    settling: World,
) -> None:
    request = await settling.sketch(1)
    await ages(settling, request, timedelta(minutes=1))
    await settling.accept(settling.requested())
    await settling.eraser().until_idle()
    assert await settling.state() == "erased"
    [(wait, rounds)] = await settling.rows("select retry_at - now(), round from lethe.job")
    assert timedelta(minutes=4) < wait <= timedelta(minutes=5)
    # The product finishes the request meanwhile.
    settling.put("results", f"public/{SUBJECT}-late.png")
    await settling.write(
        "update sketch_task set result = :r where feature_id = :f",
        r=f'{{"url": "https://cdn.test.example/{SUBJECT}-late.png"}}',
        f=request,
    )
    assert await looked_at_again(settling) == "erased"
    assert await settling.value("select round from lethe.job") == rounds == 1
    await ages(settling, request, timedelta(minutes=11))
    await looked_at_again(settling)
    assert await looked_at_again(settling) == "verified"
    assert await settling.left_of(SUBJECT) == NOTHING


async def test_an_unfinished_request_is_waited_for_and_then_blocked(settling: World) -> None:
    stuck, done = await settling.sketch(1), await settling.sketch(2)
    await ages(settling, stuck, timedelta(minutes=30), "running")
    await ages(settling, done, timedelta(hours=9))
    await settling.accept(settling.requested())
    await settling.eraser().until_idle()
    assert await settling.state() == "erased"
    await ages(settling, stuck, timedelta(hours=2), "running")
    assert await looked_at_again(settling) == "blocked"
    assert await settling.value("select reasons from lethe.job") == {"still_writing": 1}
    left = await settling.rows("select request_id from client where client_key = :s", s=SUBJECT)
    assert [row.request_id for row in left] == [stuck]


async def test_a_finished_one_is_verified_at_once(settling: World) -> None:
    request = await settling.sketch(1)
    await ages(settling, request, timedelta(minutes=30), "queued")
    await settling.accept(settling.requested())
    await settling.eraser().until_idle()
    assert await settling.state() == "erased"
    await ages(settling, request, timedelta(minutes=30), "done")
    assert await looked_at_again(settling) == "verified"


@pytest.mark.parametrize(
    ("created", "status", "expected"),
    [
        ("now() + interval '2 hours'", "done", "blocked"),
        ("now() + interval '2 hours'", "queued", "blocked"),
        ("'2099-01-01'", "done", "blocked"),
        ("'infinity'", "done", "blocked"),
        ("'infinity'", "queued", "blocked"),
        ("'-infinity'", "queued", "blocked"),
        ("null", "queued", "blocked"),
        ("'-infinity'", "done", "verified"),
        ("'4000-01-01 BC'", "done", "verified"),
        ("null", "done", "verified"),
        # A clock of the product that is a little ahead is waited for.
        ("now() + interval '30 minutes'", "done", "erased"),
        ("now() + interval '30 minutes'", "queued", "erased"),
    ],
)
async def test_a_moment_that_never_comes_is_not_waited_for(
    settling: World, created: str, status: str, expected: str
) -> None:
    odd, plain = await settling.sketch(1), await settling.sketch(2)
    await ages(settling, plain, timedelta(hours=9))
    await settling.write("alter table sketch_feature alter created_at drop not null")
    await settling.write(
        f"update sketch_feature set created_at = {created}, status = :s where id = :i",  # noqa: S608 - ours
        s=status,
        i=odd,
    )
    await settling.accept(settling.requested())
    await settling.eraser().until_idle()
    assert await settling.state() == expected
    if expected == "blocked":
        assert await settling.value("select reasons from lethe.job") == {"still_writing": 1}
    left = await settling.rows("select request_id from client where client_key = :s", s=SUBJECT)
    still = {"blocked": [odd], "verified": [], "erased": [odd, plain]}[expected]
    assert [row.request_id for row in left] == still


async def test_no_bound_is_too_long_for_the_calendar(world: World, tmp_path: Path) -> None:
    forever = {k: v.replace("3600", "80000000000000") for k, v in SETTLE.items()}
    world.catalog = make_catalog(tmp_path, world.buckets, forever)
    await ages(world, await world.sketch(1), timedelta(hours=9))
    await world.accept(world.requested())
    await world.eraser().until_idle()
    assert await world.state() == "verified"


def test_how_old_an_unfinished_row_is_must_be_known(world: World, tmp_path: Path) -> None:
    changes = {k: v.replace("created_at: created_at\n      ", "") for k, v in SETTLE.items()}
    with pytest.raises(CatalogError, match="how old may an unfinished row be"):
        make_catalog(tmp_path, world.buckets, changes)

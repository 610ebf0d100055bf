"""What the eraser forecasts from its own tables, and what it does not claim to know."""

from datetime import UTC, datetime
from math import inf, isnan

import pytest
from uuid_utils.compat import uuid7

from lethe_contracts.events import Held
from lethe_eraser.window import Window
from tests.integration.eraser.test_control import after_batch
from tests.integration.eraser.world import Eraser, World, to_the_end

HOUR = 3600
EVENING = datetime(2026, 11, 20, 20, tzinfo=UTC)
"""Five hours before the window, which is open for four."""


@pytest.fixture
def night(world: World) -> World:
    world.window = Window.parse("01:00-05:00", "UTC")
    world.clock.now = EVENING
    return world


def shown(eraser: Eraser, name: str) -> float:
    value = eraser.registry.get_sample_value(name)
    assert value is not None
    return value


async def sampled(eraser: Eraser) -> tuple[float, float]:
    """The windows needed and the slack, after a sample."""
    await eraser.forecaster.sample()
    return shown(eraser, "eraser_windows_needed"), shown(eraser, "eraser_deadline_slack_seconds")


async def measured(world: World, *, rows: int, seconds: float) -> None:
    await world.write(
        "insert into lethe.erasing_pace (hour, rows, seconds) values"
        " (date_trunc('hour', now()), :rows, :seconds)",
        rows=rows,
        seconds=seconds,
    )


async def test_before_anything_was_measured_nobody_knows(night: World) -> None:
    eraser = night.eraser()
    assert isnan(shown(eraser, "eraser_windows_needed"))
    assert isnan(shown(eraser, "eraser_deadline_slack_seconds"))
    assert await sampled(eraser) == (0, inf)
    await night.sketch(1)
    await night.accept(night.requested())
    assert all(map(isnan, await sampled(eraser)))
    await measured(night, rows=99, seconds=1)
    assert all(map(isnan, await sampled(eraser))), "too few rows to speak of a rate"


async def test_windows_and_slack_follow_from_the_rows_that_are_left(night: World) -> None:
    for number in range(3):
        await night.sketch(number)
    await night.sketch(3, source="client_old")
    await night.accept(night.requested(days=2))
    eraser = night.eraser()
    await measured(night, rows=100, seconds=150 * HOUR)  # an hour and a half for a row
    # Six hours: four in the first window, two in the second, done at three.
    assert await sampled(eraser) == (2, 17 * HOUR)
    assert await night.value("select rows_expected from lethe.job") == 4
    await night.write(
        "update lethe.job set totals = cast(:t as jsonb)",
        t='{"sketch": {"feature_rows": 2, "rows_blocked": 1}}',
    )
    assert await sampled(eraser) == (1, (48 - 6.5) * HOUR)


async def test_what_waits_for_somebody_and_what_is_anothers_is_not_forecast(night: World) -> None:
    await night.sketch(1)
    await measured(night, rows=100, seconds=100 * HOUR)
    await night.accept(night.requested(days=1))
    eraser = night.eraser()
    assert await sampled(eraser) == (1, 18 * HOUR)
    await night.write("update lethe.job set paused = true")
    assert await sampled(eraser) == (0, inf)
    await night.write("update lethe.job set paused = false")
    eraser.assignment.assign([])
    assert await sampled(eraser) == (0, inf)
    eraser.assignment.assign(range(16))
    await night.accept(Held(hold_id=uuid7()))
    assert await sampled(eraser) == (0, inf)


async def test_who_is_erased_already_needs_a_window_and_no_rate(night: World) -> None:
    await night.sketch(1)
    await night.accept(night.requested(days=1))
    await night.write("update lethe.job set state = 'erased', scanning = true")
    assert await sampled(night.eraser()) == (1, 19 * HOUR)


async def test_a_subject_that_cannot_be_opened_hides_nobody_else(night: World) -> None:
    await measured(night, rows=100, seconds=100 * HOUR)
    await night.sketch(1)
    await night.accept(night.requested(days=1))
    await night.accept(night.requested(days=3, ref="1.other"), ref="1.other")
    await night.write(
        "update lethe.job set subject_ciphertext = '9.bm90aGluZw' where subject_ref = '1.other'"
    )
    assert await sampled(night.eraser()) == (1, 18 * HOUR)


async def test_what_is_erased_is_measured_and_outlives_the_process(world: World) -> None:
    for number in range(5):
        await world.sketch(number)
    await world.accept(world.requested())
    eraser = world.eraser(batch_rows=2)
    assert await to_the_end(world, eraser) == "verified"
    assert await sampled(eraser) == (0, inf)
    [[rows, seconds]] = await world.rows("select rows, seconds from lethe.erasing_pace")
    assert rows == 5
    assert seconds > 0
    await eraser.forecaster.sample()
    assert await world.rows("select rows, seconds from lethe.erasing_pace") == [(rows, seconds)]


async def test_what_could_not_be_noted_is_noted_later(world: World) -> None:
    await world.sketch(1)
    await world.accept(world.requested())
    eraser = world.eraser()
    await to_the_end(world, eraser)
    await world.write("alter table lethe.erasing_pace rename to gone")
    with pytest.raises(Exception, match="erasing_pace"):
        await eraser.forecaster.sample()
    await world.write("alter table lethe.gone rename to erasing_pace")
    await eraser.forecaster.sample()
    assert await world.value("select rows from lethe.erasing_pace") == 1


async def test_somebody_heavy_is_measured_before_their_end(world: World) -> None:
    for number in range(4):
        await world.sketch(number)
    await world.accept(world.requested())
    eraser = world.eraser(batch_rows=1)

    async def pause() -> None:
        await world.write("update lethe.job set paused = true")

    after_batch(eraser, 2, pause)
    await eraser.until_idle()
    await eraser.forecaster.sample()
    assert await world.value("select rows from lethe.erasing_pace") == 2

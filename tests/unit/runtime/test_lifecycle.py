import asyncio
import gc

import pytest

from lethe_runtime.lifecycle import YOUNG_OBJECTS, run, run_loops


async def _until_stopped(stop: asyncio.Event) -> None:
    await stop.wait()


async def test_stop_drains_every_loop_and_exits_0() -> None:
    stop = asyncio.Event()
    finished: list[str] = []

    async def draining(stop: asyncio.Event) -> None:
        await stop.wait()
        finished.append("drained")

    async def stopper(stop: asyncio.Event) -> None:
        stop.set()

    code = await run_loops("sample", {"one": draining, "two": stopper}, stop=stop, drain_seconds=5)

    assert code == 0
    assert finished == ["drained"]


async def test_a_loop_that_fails_stops_the_others_and_exits_1(
    capsys: pytest.CaptureFixture[str],
) -> None:
    finished: list[str] = []

    async def failing(_stop: asyncio.Event) -> None:
        raise ValueError("acct-000017")

    async def other(stop: asyncio.Event) -> None:
        await stop.wait()
        finished.append("drained")

    code = await run_loops(
        "sample", {"bad": failing, "other": other}, stop=asyncio.Event(), drain_seconds=5
    )

    assert code == 1
    assert finished == ["drained"]
    told = capsys.readouterr().out
    assert "ValueError" in told
    assert "acct-000017" not in told


async def test_a_loop_that_ends_by_itself_is_a_failure() -> None:
    async def ending(_stop: asyncio.Event) -> None:
        return

    code = await run_loops(
        "sample", {"a": ending, "b": _until_stopped}, stop=asyncio.Event(), drain_seconds=5
    )

    assert code == 1


async def test_a_cancellation_that_nobody_asked_for_is_told(
    capsys: pytest.CaptureFixture[str],
) -> None:
    async def cancelled_beneath(_stop: asyncio.Event) -> None:
        future = asyncio.get_running_loop().create_future()
        future.cancel()
        await future

    code = await run_loops(
        "sample",
        {"a": cancelled_beneath, "b": _until_stopped},
        stop=asyncio.Event(),
        drain_seconds=5,
    )

    assert code == 1
    told = capsys.readouterr().out
    assert "CancelledByDriverError" in told
    assert "cancelled_beneath" in told


async def test_a_loop_that_does_not_finish_in_time_is_cut_off() -> None:
    stop = asyncio.Event()
    stop.set()
    cancelled: list[bool] = []

    async def stuck(_stop: asyncio.Event) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.append(True)
            raise

    code = await run_loops("sample", {"stuck": stuck}, stop=stop, drain_seconds=0.01)

    assert code == 1
    assert cancelled == [True]


def test_the_collector_looks_seldom_and_is_spared_what_was_loaded_before_the_loops() -> None:
    before = gc.get_threshold()
    spared: list[int] = []
    thresholds: list[tuple[int, int, int]] = []

    async def loop(_: asyncio.Event) -> None:
        spared.append(gc.get_freeze_count())
        thresholds.append(gc.get_threshold())

    assert gc.get_freeze_count() == 0
    assert run("test", {"loop": loop}, drain_seconds=1) == 1
    assert spared[0] > 0
    assert thresholds == [(YOUNG_OBJECTS, *before[1:])]
    assert gc.get_freeze_count() == 0
    assert gc.get_threshold() == before

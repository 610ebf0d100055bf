import io

from rich.console import Console

from lethe_sandbox.progress import ConsoleScreen, Done, Pace


def done(rows: int, objects: int = 0, persons: int = 0) -> Done:
    return Done({"upscale": rows}, objects, persons)


def test_nothing_is_said_of_a_pace_before_anything_is_done() -> None:
    pace = Pace(100, 100, 10)
    assert pace.per_second == 0
    assert pace.seconds_left is None
    pace.note(done(0), now=1.0)
    assert pace.seconds_left is None


def test_a_rate_is_that_of_the_last_seconds() -> None:
    pace = Pace(1000, 1000, 10)
    for second, rows in enumerate([0, 0, 0, 0, 0, 0, 0, 0, 100, 200, 300, 400, 500]):
        pace.note(done(rows), now=float(second))
    assert pace.per_second == 100


def test_the_time_left_goes_by_rows_objects_and_persons() -> None:
    pace = Pace(100, 100, 10)
    pace.note(done(0), now=0.0)
    pace.note(done(100, 50, 0), now=10.0)
    assert pace.seconds_left == 10


def test_more_than_expected_leaves_no_time() -> None:
    pace = Pace(10, 10, 1)
    pace.note(done(0), now=0.0)
    pace.note(done(12, 30, 1), now=1.0)
    assert pace.seconds_left == 0


def test_without_a_terminal_progress_is_lines_of_text() -> None:
    out = io.StringIO()
    with ConsoleScreen(Console(file=out, force_terminal=False)) as screen:
        screen.step("starting " + "x" * 100)
        screen.expect({"upscale": 10}, objects=4, persons=2)
        screen.progress(Done(rows={"upscale": 3}, objects=1, persons=0))
    lines = out.getvalue().splitlines()
    assert lines[0].endswith("x" * 100)
    assert "rows 0/10, objects 0/4, persons 0/2" in lines[1]
    assert len(lines) == 2
    assert "\x1b" not in out.getvalue()


def test_on_a_terminal_every_type_has_a_bar() -> None:
    out = io.StringIO()
    with ConsoleScreen(Console(file=out, force_terminal=True, width=100)) as screen:
        screen.note("seeding")
        screen.expect({"upscale": 10, "outpaint": 5}, objects=4, persons=2)
        screen.progress(Done(rows={"upscale": 3, "outpaint": 5}, objects=1, persons=1))
    assert "3/10" in out.getvalue()
    assert "5/5" in out.getvalue()

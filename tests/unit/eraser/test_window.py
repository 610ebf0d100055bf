from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lethe_eraser.window import Window, WindowError

ZONES = (
    "Asia/Seoul",
    "UTC",
    "America/New_York",
    "Europe/Berlin",
    "Australia/Lord_Howe",
    "Asia/Kathmandu",
)
minutes = st.integers(0, 24 * 60 - 1)
spans = st.tuples(minutes, minutes).filter(lambda span: span[0] != span[1])


def between(start: str, end: str) -> st.SearchStrategy[datetime]:
    naive = st.datetimes(datetime.fromisoformat(start), datetime.fromisoformat(end))
    return naive.map(lambda one: one.replace(tzinfo=UTC))


# Around both switches of 2026 in New York, Berlin and Lord Howe, and plain days.
instants = st.one_of(
    between("2026-03-07", "2026-03-09"),
    between("2026-10-31", "2026-11-02"),
    between("2026-03-28", "2026-04-06"),
    between("2026-10-03", "2026-10-26"),
    between("2000-01-01", "2040-01-01"),
)


def written(span: tuple[int, int]) -> str:
    (start, end) = span
    return f"{start // 60:02}:{start % 60:02}-{end // 60:02}:{end % 60:02}"


def window(span: tuple[int, int], zone: str) -> Window:
    return Window.parse(written(span), zone)


@pytest.mark.parametrize(
    ("text", "zone", "at", "is_open"),
    [
        ("01:00-05:00", "Asia/Seoul", "2026-11-20T00:59:59+09:00", False),
        ("01:00-05:00", "Asia/Seoul", "2026-11-20T01:00:00+09:00", True),
        ("01:00-05:00", "Asia/Seoul", "2026-11-20T04:59:59.999999+09:00", True),
        ("01:00-05:00", "Asia/Seoul", "2026-11-20T05:00:00+09:00", False),
        ("22:00-02:00", "Asia/Seoul", "2026-11-20T23:00:00+09:00", True),
        ("22:00-02:00", "Asia/Seoul", "2026-11-20T01:59:00+09:00", True),
        ("22:00-02:00", "Asia/Seoul", "2026-11-20T02:00:00+09:00", False),
        ("22:00-24:00", "Asia/Seoul", "2026-11-20T23:59:59+09:00", True),
        ("22:00-24:00", "Asia/Seoul", "2026-11-21T00:00:00+09:00", False),
        ("always", "Asia/Seoul", "2026-11-20T12:00:00+09:00", True),
        # The hour from 1 to 2 happens twice in New York on this day, and is open twice.
        ("01:00-02:00", "America/New_York", "2026-11-01T05:30:00+00:00", True),
        ("01:00-02:00", "America/New_York", "2026-11-01T06:30:00+00:00", True),
        ("01:00-02:00", "America/New_York", "2026-11-01T07:00:00+00:00", False),
    ],
)
def test_open_by_the_wall_clock(text: str, zone: str, at: str, *, is_open: bool) -> None:
    assert Window.parse(text, zone).is_open(datetime.fromisoformat(at)) is is_open


def test_a_start_that_does_not_exist_is_the_first_instant_after_the_gap() -> None:
    night = Window.parse("02:30-05:00", "America/New_York")
    opened = night.next_open(datetime(2026, 3, 8, 5, tzinfo=UTC))
    assert opened == datetime(2026, 3, 8, 7, tzinfo=UTC)
    assert opened.astimezone(ZoneInfo("America/New_York")).hour == 3


def test_a_window_that_lies_in_the_missing_hour_opens_on_the_next_day() -> None:
    night = Window.parse("02:10-02:50", "America/New_York")
    assert night.next_open(datetime(2026, 3, 8, 6, 30, tzinfo=UTC)) == datetime(
        2026, 3, 9, 6, 10, tzinfo=UTC
    )


@pytest.mark.parametrize(
    ("zone", "at", "opens"),
    [
        # The clock jumps a whole number of hours and less than a second later.
        ("Europe/Berlin", "2026-10-24T20:00:00.5", "2026-10-25T00:00:00"),
        ("Europe/Berlin", "2027-03-27T20:00:00.000001", "2027-03-28T01:00:00"),
        ("Australia/Lord_Howe", "2026-10-03T10:30:00.999999", "2026-10-03T15:30:00"),
    ],
)
def test_it_opens_whatever_part_of_a_second_it_is(zone: str, at: str, opens: str) -> None:
    night = Window.parse("02:00-03:30", zone)
    found = night.next_open(datetime.fromisoformat(at).replace(tzinfo=UTC))
    assert found == datetime.fromisoformat(opens).replace(tzinfo=UTC)


def test_it_opens_now_while_it_is_open_and_never_closes_when_always() -> None:
    at = datetime(2026, 11, 20, 17, 30, tzinfo=UTC)
    assert Window.parse("01:00-05:00", "Asia/Seoul").next_open(at) == at
    assert Window.parse("always", "UTC").next_open(at) == at
    assert Window.parse("always", "UTC").closes(at) is None


@pytest.mark.parametrize(
    ("text", "zone"),
    [
        ("", "UTC"),
        ("1:00-5:00", "UTC"),
        ("01:00", "UTC"),
        ("24:00-05:00", "UTC"),
        ("25:00-05:00", "UTC"),
        ("05:00-05:00", "UTC"),
        ("never", "UTC"),
        ("01:00-05:00", "Asia/Soul"),
        ("01:00-05:00", ""),
        ("01:00-05:00", "../etc/passwd"),
    ],
)
def test_what_cannot_be_read_is_refused(text: str, zone: str) -> None:
    with pytest.raises(WindowError):
        Window.parse(text, zone)


@settings(max_examples=300)
@given(span=spans, zone=st.sampled_from(ZONES), at=instants)
def test_it_opens_at_the_first_open_minute(span: tuple[int, int], zone: str, at: datetime) -> None:
    night = window(span, zone)
    opened = night.next_open(at)
    assert night.is_open(opened)
    assert opened >= at
    step = at.replace(second=0, microsecond=0)
    while (step := step + timedelta(minutes=1)) < opened:
        assert not night.is_open(step)
    if opened > at:
        assert not night.is_open(opened - timedelta(microseconds=1))


@settings(max_examples=300)
@given(span=spans, zone=st.sampled_from(ZONES), at=instants)
def test_it_closes_at_the_first_closed_minute(
    span: tuple[int, int], zone: str, at: datetime
) -> None:
    night = window(span, zone)
    closed = night.closes(at)
    assert closed is not None
    assert not night.is_open(closed)
    step = at.replace(second=0, microsecond=0)
    while (step := step + timedelta(minutes=1)) < closed:
        assert night.is_open(step)
    if closed > at:
        assert night.is_open(closed - timedelta(microseconds=1))


@given(span=spans, zone=st.sampled_from(ZONES), at=instants)
def test_a_window_and_its_complement_are_never_both_open(
    span: tuple[int, int], zone: str, at: datetime
) -> None:
    assert window(span, zone).is_open(at) is not window((span[1], span[0]), zone).is_open(at)

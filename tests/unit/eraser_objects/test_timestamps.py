"""Times in what S3 answers: the same as botocore reads, without its guessing for listings."""

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from botocore.model import OperationModel
from botocore.utils import parse_timestamp
from hypothesis import given
from hypothesis import strategies as st

from lethe_eraser.objects.calls import _session, _timestamp

_LISTING = b"""<?xml version="1.0" encoding="UTF-8"?>
<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Contents>
<Key>a.jpg</Key><LastModified>2026-11-29T06:02:20.123Z</LastModified><Size>1</Size>
</Contents></ListBucketResult>"""

_zones = st.integers(-14 * 60, 14 * 60).map(lambda m: timezone(timedelta(minutes=m)))
_times = st.datetimes(min_value=datetime(1970, 1, 2), max_value=datetime(2100, 1, 1))  # noqa: DTZ001  # the strategy wants them naive


def _core() -> Any:
    """Give the botocore session below boto3's."""
    return _session()._session


def _list_objects() -> OperationModel:
    model: OperationModel = _core().get_service_model("s3").operation_model("ListObjectsV2")
    return model


@given(_times, _zones, st.sampled_from(["seconds", "milliseconds", "microseconds"]))
def test_iso_times_are_read_as_botocore_does(at: datetime, zone: timezone, until: str) -> None:
    zulu = at.isoformat(timespec=until) + "Z"
    offset = at.replace(tzinfo=zone).isoformat(timespec=until)
    assert _timestamp(zulu) == parse_timestamp(zulu)
    assert _timestamp(offset) == parse_timestamp(offset)
    assert _timestamp(zulu).utcoffset() == timedelta()


@pytest.mark.parametrize(
    "value",
    ["Sun, 29 Nov 2026 06:02:20 GMT", "1795932140", "1795932140.5", "20261129T060220Z"],
)
def test_other_times_are_read_as_botocore_does(value: str) -> None:
    assert _timestamp(value) == parse_timestamp(value)


@pytest.mark.parametrize("value", ["Z", "soonZ", "", "2026-13-45T99:99:99Z"])
def test_what_is_no_time_is_refused_as_botocore_does(value: str) -> None:
    with pytest.raises(ValueError) as theirs:  # noqa: PT011  # whatever botocore says
        parse_timestamp(value)
    with pytest.raises(ValueError) as ours:  # noqa: PT011  # likewise
        _timestamp(value)
    assert str(ours.value) == str(theirs.value)


def test_a_listing_is_read_without_guessing_at_formats(monkeypatch: pytest.MonkeyPatch) -> None:
    def guess(*_: object) -> datetime:
        raise AssertionError("a listing's times went through dateutil")

    monkeypatch.setattr("dateutil.parser.parse", guess)
    parser = _core().get_component("response_parser_factory").create_parser("rest-xml")
    response = {"body": _LISTING, "headers": {}, "status_code": 200}
    listed = parser.parse(response, _list_objects().output_shape)
    assert listed["Contents"][0]["LastModified"] == datetime(
        2026, 11, 29, 6, 2, 20, 123000, tzinfo=UTC
    )

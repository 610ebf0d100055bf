"""What `lethe outbox` reads from its command line."""

from datetime import timedelta

import pytest
import typer

from lethe_outbox.errors import ApprovalError
from lethe_outbox.operations.purging import Approval
from lethe_outbox.schema import Status
from lethe_relay.outbox_cli import OneStatus
from lethe_relay.outbox_cli.asking import age


@pytest.mark.parametrize(
    ("text", "seconds"), [("45s", 45), ("30m", 1800), ("12h", 43_200), ("7d", 604_800)]
)
def test_an_age_is_a_number_and_a_unit(text: str, seconds: int) -> None:
    assert age(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize(
    "text", ["", "7", "d", "0d", "-1d", "1.5h", "7w", "7 d", "9999999d", "\u0667d"]
)
def test_anything_else_is_wrong_usage(text: str) -> None:
    with pytest.raises(typer.BadParameter):
        age(text)


def test_every_status_can_be_asked_for() -> None:
    assert [one.name for one in OneStatus] == [status.name for status in Status]


@pytest.mark.parametrize(
    ("older_than", "approved_by"),
    [(timedelta(), "Kim"), (timedelta(days=-1), "Kim"), (timedelta(1), " ")],
)
def test_nobody_approves_nothing(older_than: timedelta, approved_by: str) -> None:
    with pytest.raises(ApprovalError):
        Approval(older_than, approved_by)

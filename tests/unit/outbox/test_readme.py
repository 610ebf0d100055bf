"""The README's tables say what the code says."""

import dataclasses
import re
from datetime import timedelta
from typing import Any

import pytest

import lethe_outbox
from lethe_outbox import errors
from lethe_outbox.consumer.inbox_keeper import KeeperSettings
from lethe_outbox.consumer.runner import ConsumerSettings
from lethe_outbox.relay import RelaySettings
from tests.support.tools import ROOT

README = (ROOT / "libs" / "outbox" / "README.md").read_text()
SETTINGS: list[type[Any]] = [RelaySettings, ConsumerSettings, KeeperSettings]
ROW = re.compile(r"^\| `(\w+)` \| ([^|]+) \| ([^|]+) \| ([^|]+) \|$", re.MULTILINE)


def section(title: str) -> str:
    return README.split(f"\n## {title}\n")[1].split("\n## ")[0]


def shown(value: object) -> str:
    match value:
        case True:
            return "yes"
        case False:
            return "no"
        case None | frozenset():
            return "none"
        case timedelta():
            return f"{value / timedelta(days=1):g} days"
        case float():
            return f"{value:g}"
        case int():
            return f"{value:_}" if value >= 10_000 else str(value)
    raise AssertionError(value)


def unit(name: str) -> str | None:
    """What a name promises of its unit, if it does."""
    for ending, found in (("_seconds", "s"), ("_pause", "s"), ("_bytes", "bytes")):
        if name.endswith(ending):
            return found
    return None


@pytest.mark.parametrize("settings", SETTINGS, ids=lambda one: one.__name__)
def test_every_setting_is_told_with_its_unit_and_default(settings: type[Any]) -> None:
    table = section("Settings").split(f"\n`{settings.__name__}`\n")[1].split("\n`")[0]
    rows = ROW.findall(table)
    told = {name: default for name, _, default, _ in rows}
    assert told == {field.name: shown(field.default) for field in dataclasses.fields(settings)}
    assert [name for name, of, _, _ in rows if unit(name) not in (None, of)] == []


def test_every_error_is_told() -> None:
    told = set(re.findall(r"^\| `(\w+)` \| .+ \|$", section("Errors"), re.MULTILINE))
    assert told == {
        name
        for name, found in vars(errors).items()
        if isinstance(found, type) and found is not errors.LetheOutboxError
    }


def test_every_name_is_told() -> None:
    told = set(re.findall(r"`(\w+)`", section("API")))
    assert {name for name in lethe_outbox.__all__ if not name.endswith("Error")} - told == set()

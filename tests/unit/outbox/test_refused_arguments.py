"""What is told before anything runs: settings and messages that make no sense, by their name."""

import math
from dataclasses import fields
from datetime import timedelta
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from sqlalchemy import create_engine
from sqlalchemy.ext.asyncio import create_async_engine

from lethe_outbox import (
    ArgumentError,
    ConnectionKindError,
    ConsumerMetrics,
    ConsumerRunner,
    ConsumerSettings,
    Inbox,
    KeeperSettings,
    LetheOutboxError,
    Message,
    MessageError,
    RelaySettings,
    RelaySettingsError,
    UpkeepRules,
)

SETTINGS = (RelaySettings, ConsumerSettings, KeeperSettings, UpkeepRules)
NOWHERE = "postgresql+psycopg://nobody@nowhere/none"
MAY_BE_ZERO = {"margin_seconds", "janitor_seconds"}

NUMBERS = [
    (kind, one.name)
    for kind in SETTINGS
    for one in fields(kind)
    if isinstance(one.default, int | float) and not isinstance(one.default, bool)
]


@pytest.mark.parametrize(("kind", "name"), NUMBERS)
@pytest.mark.parametrize("value", [0, -1, math.nan, math.inf, "7", True])
def test_a_number_that_makes_no_sense_is_refused_by_its_name(
    kind: type[Any], name: str, value: Any
) -> None:
    if value is not True and value == 0 and name in MAY_BE_ZERO:
        assert getattr(kind(**{name: value}), name) == 0
        return
    with pytest.raises(LetheOutboxError, match=rf"^{name} must be "):
        kind(**{name: value})


def test_a_whole_number_is_whole() -> None:
    with pytest.raises(ArgumentError, match="attempts must be a whole number"):
        ConsumerSettings(attempts=2.5)  # type: ignore[arg-type] # what is refused


def test_what_contradicts_itself_is_refused() -> None:
    with pytest.raises(ArgumentError, match="longest_pause must not be below first_pause"):
        ConsumerSettings(first_pause=2, longest_pause=1)
    with pytest.raises(ArgumentError, match="keep must be more than 0"):
        KeeperSettings(keep=timedelta(0))


@pytest.mark.parametrize(
    ("name", "value"), [("compression", "brotli"), ("hold_back_topics", "orders.v1")]
)
def test_a_relay_is_told_of_a_wrong_name(name: str, value: Any) -> None:
    with pytest.raises(RelaySettingsError, match=f"{name} must be"):
        RelaySettings(**{name: value})


@pytest.mark.parametrize(
    ("wrong", "word"),
    [
        ({"topic": None}, "topic"),
        ({"topic": "with space"}, "topic"),
        ({"key": b"k"}, "key"),
        ({"key": ""}, "key"),
        ({"payload": {"json": 1}}, r"payload is bytes, this is dict; .*json\.dumps"),
        ({"headers": (("name", "text"),)}, "header"),
        ({"headers": ((b"name", b"bytes"),)}, "header"),
        ({"headers": (("", b"bytes"),)}, "header"),
        ({"headers": (("name", b"nul\0"),)}, "header"),
        ({"headers": None}, "header"),
        ({"headers": {"name": b"bytes"}}, "header"),
        ({"headers": (("name",),)}, "header"),
        ({"headers": (one for one in (("name", b"bytes"),))}, "header"),
        ({"event_id": "7b2f"}, "event id"),
    ],
)
def test_a_message_that_cannot_be_kept_is_refused_where_it_is_made(
    wrong: dict[str, Any], word: str
) -> None:
    with pytest.raises(MessageError, match=word):
        Message(**{"topic": "orders.v1", "key": "k", "payload": b"", **wrong})


@pytest.mark.parametrize("topics", [[], "orders.v1"])
def test_a_consumer_without_a_list_of_topics_is_refused(topics: Any) -> None:
    with pytest.raises(ArgumentError, match="topics must be a list of one topic at least"):
        consumer("mailer", topics)


@pytest.mark.parametrize("group", ["", "relay-mailer"])
def test_a_group_that_reads_as_a_relay_is_refused(group: str) -> None:
    with pytest.raises(ArgumentError, match="group must have a name"):
        consumer(group, ["orders.v1"])


def test_a_consumer_on_an_engine_that_is_not_async_is_refused() -> None:
    """Every record would be a dead letter of it."""
    with pytest.raises(ConnectionKindError, match="AsyncEngine"):
        consumer("g", ["orders.v1"], create_engine(NOWHERE))


def consumer(group: str, topics: Any, engine: Any = None) -> ConsumerRunner:
    async def handle(*_: object) -> None:
        """Never called."""

    engine = engine or create_async_engine(NOWHERE)
    metrics = ConsumerMetrics(CollectorRegistry())
    return ConsumerRunner(engine, "nowhere:9092", group, topics, handle, Inbox(), metrics)

"""Traces are found in whatever way a text writes them, and nothing else is."""

import json
from collections.abc import Callable
from urllib.parse import quote

import pytest

from lethe_sandbox.audit.traces import Traces
from lethe_sandbox.ground_truth import GroundTruth, Person, Row, StoredObject

KEYS = ("user+tag@example.com", "한글-사용자", "acct-000019")
TRUTH = GroundTruth(
    1,
    1.0,
    {key: Person(key, "", requested=True, end="verified") for key in KEYS},
    {"t": {1: Row("t", 1, "x", KEYS[0], "erased", "", needles=("a lantern at sea",))}},
    {
        "b": {
            "public/1.png": StoredObject("b", "public/1.png", "x", KEYS[1], "erased", ("e",)),
            "public/2.png": StoredObject("b", "public/2.png", "x", None, "shared", ("e",)),
        }
    },
)


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("write", [str, quote, json.dumps, lambda key: f"before {key} after"])
def test_a_client_key_is_found_in_every_hand(key: str, write: Callable[[str], str]) -> None:
    assert Traces(TRUTH, KEYS).within(write(key)) == {("client key", key)}


def test_what_was_written_and_stored_is_found() -> None:
    traces = Traces(TRUTH, KEYS)
    assert traces.within("see: a lantern at sea!") == {("text", KEYS[0])}
    assert traces.within("s3://b/public/1.png") == {("object key", KEYS[1])}


@pytest.mark.parametrize("text", ["", "x", "acct-000018", "public/2.png", "한글", "erased"])
def test_nothing_else_is_found(text: str) -> None:
    traces = Traces(TRUTH, KEYS)
    assert traces.within(text) == set()
    assert traces.within(text) == set()


def test_people_who_are_not_erased_may_stand_anywhere() -> None:
    assert Traces(TRUTH, KEYS[2:]).within("user+tag@example.com, public/1.png") == set()

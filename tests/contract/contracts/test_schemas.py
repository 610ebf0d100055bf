"""The files others read say what the models say."""

import json
from pathlib import Path
from typing import Any

import yaml
from hypothesis import given
from jsonschema import Draft202012Validator, FormatChecker

from lethe_contracts import schemas
from lethe_contracts.codec import Envelope, encode, type_of
from lethe_contracts.events import ALL, Event
from lethe_contracts.topics import (
    DLT_HEADROOM_BYTES,
    MAX_MESSAGE_BYTES,
    PARTITIONS,
    TOPICS,
    dead_letter_topic,
)
from tests.unit.contracts.strategies import envelopes

MEMBER = Path(__file__).parents[3] / "libs" / "contracts"
ASYNCAPI: dict[str, Any] = yaml.safe_load((MEMBER / "asyncapi.yaml").read_text())
BY_TYPE = {type_of(event): event for event in ALL}


def document(event: type[Event]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((schemas.FOLDER / schemas.file_name(event)).read_text())
    return found


def test_every_schema_file_is_fresh_and_none_is_left_over() -> None:
    written = {path.name: path.read_text() for path in schemas.FOLDER.glob("*.json")}
    assert written == {schemas.file_name(event): schemas.render(event) for event in ALL}


@given(envelopes())
def test_every_event_as_it_is_sent_is_valid_under_its_schema(envelope: Envelope[Event]) -> None:
    schema = document(type(envelope.event))
    Draft202012Validator.check_schema(schema)
    checker = Draft202012Validator(schema, format_checker=FormatChecker())
    assert list(checker.iter_errors(json.loads(encode(envelope).value))) == []


def resolved(reference: str) -> Any:
    found: Any = ASYNCAPI
    for part in reference.removeprefix("#/").split("/"):
        found = found[part.replace("~1", "/")]
    return found


def test_asyncapi_names_both_topics_and_their_dead_letters() -> None:
    channels = {channel["address"]: channel for channel in ASYNCAPI["channels"].values()}
    assert set(channels) == {*TOPICS, *(dead_letter_topic(topic) for topic in TOPICS)}
    for address, channel in channels.items():
        kafka = channel["bindings"]["kafka"]
        room = 0 if address in TOPICS else DLT_HEADROOM_BYTES
        assert kafka["partitions"] == PARTITIONS
        assert kafka["topicConfiguration"]["max.message.bytes"] == MAX_MESSAGE_BYTES + room


def test_asyncapi_lists_exactly_the_events_of_the_contract_on_their_topics() -> None:
    on_topic = {
        channel["address"]: {
            resolved(reference["$ref"])["name"] for reference in channel["messages"].values()
        }
        for channel in ASYNCAPI["channels"].values()
        if channel["address"] in TOPICS
    }
    assert on_topic == {
        topic: {type_of(event) for event in ALL if event.topic == topic} for topic in TOPICS
    }


def test_every_message_points_at_its_schema_file_its_key_and_its_headers() -> None:
    messages = ASYNCAPI["components"]["messages"]
    assert len(messages) == len(ALL)
    for message in messages.values():
        event = BY_TYPE[message["name"]]
        payload = MEMBER / message["payload"]["$ref"]
        assert payload.resolve() == (schemas.FOLDER / schemas.file_name(event)).resolve()
        assert message["contentType"] == "application/json"
        assert message["bindings"]["kafka"]["key"] == {"$ref": "#/components/schemas/SubjectRef"}
        assert message["headers"] == {"$ref": "#/components/schemas/Headers"}


@given(envelopes())
def test_the_headers_of_every_record_are_valid_under_asyncapi(envelope: Envelope[Event]) -> None:
    headers = {name: value.decode() for name, value in encode(envelope).headers}
    checker = Draft202012Validator(resolved("#/components/schemas/Headers"))
    assert list(checker.iter_errors(headers)) == []


def test_every_operation_and_reference_of_asyncapi_leads_somewhere() -> None:
    def references(part: Any) -> list[str]:
        if isinstance(part, dict):
            own = [part["$ref"]] if "$ref" in part else []
            return own + [found for inner in part.values() for found in references(inner)]
        if isinstance(part, list):
            return [found for inner in part for found in references(inner)]
        return []

    for reference in references(ASYNCAPI):
        if reference.startswith("#/"):
            assert resolved(reference)
        else:
            assert (MEMBER / reference).is_file()
    assert {operation["action"] for operation in ASYNCAPI["operations"].values()} == {
        "send",
        "receive",
    }

"""The JSON Schema of every event, one file each, for whoever reads our topics in any language."""

import json
from pathlib import Path

from lethe_contracts.codec import type_of
from lethe_contracts.events import ALL, Event

FOLDER = Path(__file__).parent


def file_name(event: type[Event]) -> str:
    """Name the file of an event's schema."""
    return f"{event.name}.v{event.version}.json"


def render(event: type[Event]) -> str:
    """Write the schema of an event, from its model."""
    schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"urn:lethe:schema:{type_of(event)}",
        **event.model_json_schema(),
    }
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


def write() -> None:
    """Write every schema into this folder."""
    for event in ALL:
        (FOLDER / file_name(event)).write_text(render(event))

"""What is to prove that nothing readable is left finds what is left, however it is written."""

import base64
import json
import zlib
from collections.abc import Callable
from urllib.parse import quote

import pytest

from tests.support.traces import traces

WORD = "kim 0f3a77/é"
AROUND = f"uploads/{WORD}/1.png"
PERCENT = "".join(f"%{byte:02x}" for byte in WORD.encode())

WRITTEN: dict[str, Callable[[], bytes]] = {
    "in clear": AROUND.encode,
    "in capitals": lambda: AROUND.encode().upper(),
    "percent-encoded": lambda: quote(AROUND, safe="").encode(),
    "percent-encoded whole": PERCENT.encode,
    "percent-encoded twice": lambda: quote(quote(AROUND)).encode(),
    "as JSON": lambda: json.dumps({"key": AROUND}).encode(),
    "in hex": lambda: b"\\x" + AROUND.encode().hex().encode(),
    "in base64": lambda: base64.b64encode(AROUND.encode()),
    "in base64 amid other text": lambda: b"token=ab" + base64.urlsafe_b64encode(AROUND.encode()),
    "compressed": lambda: zlib.compress(AROUND.encode() * 20),
    "compressed, in base64, in JSON": lambda: json.dumps(
        base64.b64encode(zlib.compress(AROUND.encode())).decode()
    ).encode(),
}


@pytest.mark.parametrize("how", WRITTEN)
def test_a_word_is_found(how: str) -> None:
    assert traces([("here", WRITTEN[how]())], ["nothing", WORD]) == ["here"]


def test_what_is_not_there_is_not_found() -> None:
    places = [(how, write()) for how, write in WRITTEN.items()]
    assert traces(places, ["lee 0f3a77"]) == []

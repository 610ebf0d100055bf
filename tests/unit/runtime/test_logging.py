import io
import json
import logging as standard
from typing import Any

import pytest
import structlog

from lethe_runtime import logging


@pytest.fixture
def out() -> io.StringIO:
    stream = io.StringIO()
    logging.configure("sample", "DEBUG", stream=stream)
    return stream


def _lines(out: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in out.getvalue().splitlines()]


def test_both_libraries_write_one_json_object_per_line(out: io.StringIO) -> None:
    structlog.get_logger("one").info("hello", batch=3)
    standard.getLogger("two").warning("there are %d", 4)

    first, second = _lines(out)

    assert first["event"] == "hello"
    assert first["batch"] == 3
    assert first["service"] == second["service"] == "sample"
    assert first["logger"] == "one"
    assert first["timestamp"].endswith("Z")
    assert second["event"] == "there are 4"
    assert second["level"] == "warning"


def _fail() -> None:
    try:
        dict[str, int]()["acct-000017"]
    except KeyError as cause:
        raise ValueError("https://bucket/acct-000017.png") from cause


@pytest.mark.parametrize("library", ["structlog", "standard"])
def test_an_exception_is_its_class_and_places_never_its_text(
    out: io.StringIO, library: str
) -> None:
    try:
        _fail()
    except ValueError:
        if library == "structlog":
            structlog.get_logger().exception("it broke")
        else:
            standard.getLogger("other").exception("it broke")

    (line,) = _lines(out)

    assert line["event"] == "it broke"
    assert line["error_class"] == "ValueError"
    assert line["error_cause"] == "KeyError"
    assert line["error_at"][-1].endswith("_fail")
    assert "acct-000017" not in out.getvalue()


def test_where_a_deep_driver_was_asked_is_told(out: io.StringIO) -> None:
    names: dict[str, Any] = {}
    for file, source in {
        "/driver/deep.py": "def deep(n):\n    return deep(n - 1) if n else 1 // 0",
        "/app/lethe_sample/ask.py": "def ask():\n    return deep(30)",
    }.items():
        exec(compile(source, file, "exec"), names)  # noqa: S102 - frames of files that are not here
    try:
        names["ask"]()
    except ZeroDivisionError:
        structlog.get_logger().exception("it broke")

    (line,) = _lines(out)

    first, *inner = line["error_at"]
    assert first == "/app/lethe_sample/ask.py:2 ask"
    assert set(inner) == {"/driver/deep.py:2 deep"}


def test_libraries_that_quote_what_they_are_given_stay_quiet_at_debug(out: io.StringIO) -> None:
    for name in ("botocore.endpoint", "urllib3.connectionpool", "sqlalchemy.engine", "httpx"):
        standard.getLogger(name).debug("acct-000017")
        standard.getLogger(name).warning("acct-000017")

    assert out.getvalue() == ""


def test_a_chatty_driver_is_told_once(out: io.StringIO) -> None:
    for _ in range(5):
        standard.getLogger("aiokafka.conn").error("Unable to connect to %s", "host")

    assert len(_lines(out)) == 1

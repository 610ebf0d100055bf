"""Logging: one JSON object per line, structlog and the standard library alike.

An exception is written as its class and the places it came through, never as its text: a driver's
text quotes what it was given (rows, URLs, keys of objects), and those name people.
"""

import logging
import sys
import time
import traceback
from types import TracebackType
from typing import Final, TextIO

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

_REPEAT_SECONDS: Final = 30.0
_OURS: Final = 3
_CHATTY: Final = ("aiokafka", "kafka")
"""Drivers that repeat themselves while a server is away; each line is told once per 30 s. Their
DEBUG level writes keys and payloads, so it stays shut."""
_TELLING: Final = (
    "boto3",
    "botocore",
    "httpcore",
    "httpx",
    "psycopg",
    "s3transfer",
    "sqlalchemy",
    "urllib3",
)
"""Libraries whose finer levels write URLs, keys, SQL parameters; they stay at ERROR."""


def configure(service: str, level: str, *, stream: TextIO | None = None) -> None:
    """Write every log line as JSON to `stream` (standard output by default).

    Args:
        service: the `service` of every line.
        level: DEBUG, INFO, WARNING or ERROR.
        stream: where to write instead; commands that print results log to standard error.
    """
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _exception_without_text,
    ]
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            structlog.stdlib.PositionalArgumentsFormatter(),
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(stream or sys.stdout)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                _named(service),
                structlog.processors.JSONRenderer(ensure_ascii=False),
            ],
        )
    )
    handler.addFilter(_OncePerInterval())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    logging.captureWarnings(capture=True)
    _quieten(root.level)


def _quieten(level: int) -> None:
    """Keep libraries from writing what may name a person, and from repeating themselves."""
    for name in _TELLING:
        logging.getLogger(name).setLevel(logging.ERROR)
    for name in _CHATTY:
        logging.getLogger(name).setLevel(max(logging.INFO, level))
    # Waiting for a migration asks Alembic again and again.
    logging.getLogger("alembic").setLevel(logging.WARNING)
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access"):
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    # An access line is a URL.
    logging.getLogger("uvicorn.access").disabled = True


def _named(service: str) -> Processor:
    def add(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
        event["service"] = service
        return event

    return add


def _exception_without_text(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    raised = event.pop("exc_info", None)
    record = event.get("_record")
    if isinstance(record, logging.LogRecord):
        raised = raised or record.exc_info
        record.exc_info = None
        record.exc_text = None
    if raised is True:
        raised = sys.exc_info()
    error = raised[1] if isinstance(raised, tuple) else raised
    if isinstance(error, BaseException):
        event["error_class"] = error_class(error)
        event["error_at"] = places(error.__traceback__)
        cause = error.__cause__ or error.__context__
        if cause is not None:
            event["error_cause"] = error_class(cause)
    event.pop("stack_info", None)
    return event


def error_class(error: BaseException) -> str:
    """Name the class of an error, which is all that may be said of a driver's error."""
    return type(error).__qualname__


def places(trace: TracebackType | None, limit: int = 12) -> list[str]:
    """List where an error came through, innermost last, as `file:line function`.

    Those of the innermost, and of what came before them the last that are ours.
    """
    frames = traceback.extract_tb(trace)
    # A driver may be deeper than that: nobody would know what it had been asked.
    ours = [frame for frame in frames[:-limit] if "/lethe_" in frame.filename][-_OURS:]
    return [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in (*ours, *frames[-limit:])]


class _OncePerInterval(logging.Filter):
    """Let each line of a chatty driver through once per interval."""

    def __init__(self) -> None:
        super().__init__()
        self._told: dict[tuple[str, str], float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        if record.name.partition(".")[0] not in _CHATTY:
            return True
        line = (record.name, str(record.msg))
        now = time.monotonic()
        if now - self._told.get(line, -_REPEAT_SECONDS) < _REPEAT_SECONDS:
            return False
        self._told[line] = now
        return True

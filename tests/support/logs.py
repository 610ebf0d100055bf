"""Logging is global: what a test configures is put back after it."""

import io
import logging
from collections.abc import Iterator
from contextlib import contextmanager

import structlog

from lethe_runtime.logging import configure


@contextmanager
def restored() -> Iterator[None]:
    """Put everybody's logging back as it was before the block."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    try:
        yield
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
        logging.captureWarnings(capture=False)
        structlog.reset_defaults()


@contextmanager
def captured(service: str, level: str) -> Iterator[io.StringIO]:
    """Have what a service logs in this process."""
    with restored():
        stream = io.StringIO()
        configure(service, level, stream=stream)
        yield stream

"""Who writes events: the CloudEvents `source` of each writer."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from lethe_contracts.topics import EVENTS, REQUESTS

INTAKE: Final = "lethe/intake"
ERASER: Final = "lethe/eraser"

WRITERS: Final[Mapping[str, str]] = MappingProxyType({REQUESTS: INTAKE, EVENTS: ERASER})
"""The only source whose events count on each topic."""

"""Who writes events: the CloudEvents `source` of each writer."""

from typing import Final

INTAKE: Final = "lethe/intake"
ERASER: Final = "lethe/eraser"

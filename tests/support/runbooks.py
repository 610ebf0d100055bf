"""What runbooks tell to look for."""

import re
from pathlib import Path

_PAGES = Path(__file__).parents[2] / "docs/runbooks"
_SEARCH = re.compile(r"docker-compose logs[^\n|]*\| grep '([^'\n]+)'")


def looked_for(alert: str) -> str:
    """Give the words that the runbook of an alert looks for in a log."""
    (found,) = _SEARCH.findall((_PAGES / f"{alert}.md").read_text())
    return str(found)

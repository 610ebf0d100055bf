"""Where an S3 or a CDN answers, as boto takes it; on anything else it ends amid the first call."""

import re
from typing import Annotated, Final

from pydantic import AfterValidator

REGION: Final = r"^[A-Za-z](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?$"
"""What a region may be called."""

_URL: Final = re.compile(r"https?://(?:[A-Za-z0-9.-]+|\[[0-9A-Fa-f:]+\])(?::\d{1,5})?/?")


def _url(text: str) -> str:
    if _URL.fullmatch(text) is None:
        raise ValueError("write http://host:port or https://host")
    return text


Endpoint = Annotated[str, AfterValidator(_url)]
"""Another server than AWS's."""

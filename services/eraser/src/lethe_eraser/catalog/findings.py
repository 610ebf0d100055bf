"""What a check found that nobody claims."""

from dataclasses import dataclass
from typing import Final, Literal, get_args

FindingKind = Literal["table", "column", "shape", "reference"]
KINDS: Final[tuple[FindingKind, ...]] = get_args(FindingKind)


@dataclass(frozen=True, slots=True)
class Finding:
    """Something of the product that the catalog does not cover; holds no data of anybody."""

    kind: FindingKind
    where: str
    says: str

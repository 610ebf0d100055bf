"""Keeps what is true of everything that is made, and sums it up per person."""

from collections import Counter

from lethe_sandbox import ground_truth as truth
from lethe_sandbox.product import TABLES
from lethe_sandbox.seed.cast import Plan
from lethe_sandbox.seed.records import Made, SeedRow


class Witness:
    """Sees every row and object once and then tells the ground truth."""

    def __init__(self, seed: int, scale: float, plan: Plan) -> None:
        self._seed = seed
        self._scale = scale
        self._plan = plan
        self._rows: dict[str, dict[int, truth.Row]] = {name: {} for name in TABLES}
        self._objects: dict[str, dict[str, truth.StoredObject]] = {}
        self._reasons: dict[str | None, Counter[str]] = {}

    def saw(self, made: Made) -> None:
        """Remember what is true of one row or object.

        Raises:
            ValueError: two things were made under one name.
        """
        if isinstance(made, SeedRow):
            row = made.truth
            if self._rows[row.table].setdefault(row.id, row) is not row:
                raise ValueError(f"{row.table} has two rows {row.id}")
            if row.reason is not None:
                self._reasons.setdefault(row.owner, Counter())[row.reason] += 1
        else:
            stored = made.truth
            if (
                self._objects.setdefault(stored.bucket, {}).setdefault(stored.key, stored)
                is not stored
            ):
                raise ValueError(f"{stored.bucket} has two objects {stored.key!r}")

    def tells(self) -> truth.GroundTruth:
        """Sum up."""
        requests = Counter(case.person for case in self._plan.cases)
        persons = {}
        for member in self._plan.members:
            reasons = dict(sorted(self._reasons.get(member.key, Counter()).items()))
            end: truth.End = "blocked" if reasons else "verified"
            persons[member.key] = truth.Person(
                key=member.key,
                role=member.role,
                requested=member.requested,
                end=end if member.requested else None,
                reasons=reasons,
                requests=requests[member.key],
            )
        return truth.GroundTruth(self._seed, self._scale, persons, self._rows, self._objects)

"""A CDN that does as a test says."""

from dataclasses import dataclass, field

from lethe_eraser.objects import CdnError


@dataclass
class Edges:
    """Invalidations by caller reference; the same reference again is the same invalidation."""

    created: dict[str, tuple[str, tuple[str, ...]]] = field(default_factory=dict)
    calls: list[str] = field(default_factory=list)
    done: set[str] = field(default_factory=set)
    refuses: str | None = None

    async def create(self, distribution: str, reference: str, paths: tuple[str, ...]) -> str:
        if self.refuses is not None:
            raise CdnError(self.refuses)
        self.calls.append(reference)
        assert self.created.setdefault(reference, (distribution, paths)) == (distribution, paths)
        return f"I-{reference}"

    async def is_done(self, distribution: str, invalidation_id: str) -> bool:
        assert distribution
        return invalidation_id in self.done

    def finish(self) -> None:
        """Let every edge forget."""
        self.done = {f"I-{reference}" for reference in self.created}

"""Creating topics: it is not done before the broker knows what was created."""

from collections.abc import Iterable

import pytest

from lethe_outbox import TopicSpec, ensure_topics
from lethe_outbox.kafka import topics


async def test_a_topic_made_anew_is_waited_for_until_its_own_partitions_are_known(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    known = [{"one": 16}, {}, {"one": 5}]

    async def create(bootstrap: str, specs: Iterable[TopicSpec]) -> tuple[str, ...]:
        del bootstrap
        return tuple(spec.name for spec in specs)

    async def counts(bootstrap: str, names: Iterable[str]) -> dict[str, int]:
        del bootstrap
        assert list(names) == ["one"]
        return known.pop(0)

    monkeypatch.setattr(topics, "_create", create)
    monkeypatch.setattr(topics, "partition_counts", counts)
    assert await ensure_topics("nowhere:9", [TopicSpec("one", 5)]) == ("one",)
    assert known == []

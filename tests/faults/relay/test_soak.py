"""The soak in small: what `make soak` runs by hand works, and its verdict is clean."""

from pathlib import Path
from uuid import uuid4

from lethe_sandbox.stack import Stack
from tests.soak.run import Asked, soak


async def test_a_small_soak_is_clean(running_stack: Stack, tmp_path: Path) -> None:
    said: list[str] = []
    asked = Asked(rows=6000, keys=200, relays=2, pause=1, poison_every=1000, patience=120, seed=7)
    result = await soak(running_stack, f"soak_{uuid4().hex}", asked, tmp_path, say=said.append)
    assert result.problems == []
    assert "6000 rows" in result.told
    assert any("all handled" in line for line in said)

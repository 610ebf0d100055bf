"""The eraser's world with buckets of other kinds."""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from lethe_eraser.fence import Fence
from lethe_eraser.storage.events import Announcer
from lethe_eraser.storage.invalidations import Invalidations
from lethe_eraser.storage.journal import Journal
from lethe_eraser.verify import Invalidator
from lethe_outbox import Outbox
from lethe_sandbox.stack import S3Address
from tests.integration.eraser.conftest import database_template, world
from tests.integration.eraser.world import CONTROL_FRESH, Eraser, World, make_catalog, open_store
from tests.support.edges import Edges

__all__ = ["database_template", "world"]

MakeWorld = Callable[..., Awaitable[World]]


@pytest.fixture
async def with_catalog(world: World, s3: S3Address, tmp_path: Path) -> AsyncIterator[MakeWorld]:
    """Change the catalog: `await with_catalog(("text of it", "other text"), results="bucket")`.

    In these texts `{results}` is a bucket; those of `plain` are taken as they are.
    """
    async with AsyncExitStack() as stack:

        async def make(
            *changes: tuple[str, str], plain: Mapping[str, str] | None = None, **buckets: str
        ) -> World:
            named = {**world.buckets, **buckets}
            changed = {good.format(**named): other.format(**named) for good, other in changes}
            catalog = make_catalog(tmp_path, named, changed | dict(plain or {}))
            store = await stack.enter_async_context(open_store(s3, catalog))
            return replace(world, catalog=catalog, store=store, buckets=named)

        yield make


def eraser_with(world: World, edges: Edges, *, batch_rows: int = 3) -> Eraser:
    """An eraser that tells `edges`."""
    eraser = world.eraser(batch_rows=batch_rows)
    eraser.verification._invalidator = Invalidator(
        engine=world.engine,
        catalog=world.catalog,
        cdn=edges,
        journal=Journal(world.cipher),
        invalidations=Invalidations(world.cipher),
        fence=Fence(Announcer(Outbox("lethe")), CONTROL_FRESH),
    )
    return eraser

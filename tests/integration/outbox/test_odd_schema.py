"""What looks at and keeps an outbox does so in a schema of any name, too."""

from datetime import timedelta
from functools import partial

from sqlalchemy.ext.asyncio import create_async_engine

from lethe_outbox import Message, Outbox, Upkeep, figures, purgeable, refused, status
from lethe_outbox.migrations import PARTS
from lethe_outbox.operations.listing import Wanted, rows
from tests.support.databases import lay

ODD = """Odd "schema": 100% 'Größe' {0} \\x"""


async def test_everything_that_looks_or_keeps_works_in_a_schema_of_any_name(
    database_url: str,
) -> None:
    lay(database_url, *(partial(one, schema=ODD) for steps in PARTS.values() for one in steps))
    engine = create_async_engine(database_url)
    async with engine.begin() as connection:
        await Outbox(ODD).append_async(connection, Message("orders.v1", "customer-7", b"1"))
    assert (await status(engine, ODD)).pending == 1
    assert await refused(engine, ODD) == []
    assert [row.topic for row in await rows(engine, Wanted(), ODD)] == ["orders.v1"]
    assert await purgeable(engine, timedelta(days=1), ODD) == 0
    assert await figures(engine, ODD)
    kept = await Upkeep(engine, ODD).run()
    assert kept.complete
    await engine.dispose()

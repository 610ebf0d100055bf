"""Every SQL block of a runbook runs on the tables as they are."""

import re
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest

from lethe_outbox.migrations import create_inbox, create_outbox, create_outbox_upkeep
from tests.support.alerting import RUNBOOKS
from tests.support.databases import lay
from tests.support.waiting import until_sync

BLOCK = re.compile(r"^( *)```sql\n(.*?)^\1```", re.MULTILINE | re.DOTALL)
QUERIES = [
    pytest.param(block, id=page.stem)
    for page in sorted(RUNBOOKS.glob("*.md"))
    for _, block in BLOCK.findall(page.read_text())
]


@pytest.fixture
def outbox(database_url: str) -> str:
    """A database with an outbox in it, as a plain libpq URL."""
    lay(database_url, create_outbox, create_outbox_upkeep, create_inbox)
    return database_url.replace("+psycopg", "")


@pytest.mark.parametrize("query", QUERIES)
def test_a_query_of_a_runbook_runs(outbox: str, query: str) -> None:
    with psycopg.connect(outbox) as connection:
        connection.execute(query.encode()).fetchall()


@pytest.mark.parametrize("page", ["OutboxLagging", "OutboxWriterOpen"])
def test_the_query_for_open_writers_finds_one(outbox: str, page: str) -> None:
    """A transaction that wrote to the outbox and never ended."""
    query = next(param.values[0] for param in QUERIES if param.id == page)
    with psycopg.connect(outbox) as writer, psycopg.connect(outbox) as sre:
        writer.execute("delete from lethe.outbox")
        found = [pid for pid, *_ in sre.execute(str(query).encode())]
        assert found == [writer.info.backend_pid]


def test_the_query_for_what_the_eraser_waits_for_finds_whose_lock_it_is(outbox: str) -> None:
    query = next(param.values[0] for param in QUERIES if param.id == "EraserStalled")
    with (
        psycopg.connect(outbox, application_name="the product") as product,
        psycopg.connect(outbox, application_name="lethe-eraser") as eraser,
        psycopg.connect(outbox, autocommit=True) as sre,
        ThreadPoolExecutor(1) as pool,
    ):
        product.execute("lock table lethe.outbox")
        waiting = pool.submit(eraser.execute, "lock table lethe.outbox")

        def told() -> bool:
            [(pid, _, _, _, waits_for, name, *_)] = sre.execute(str(query).encode())
            assert pid == eraser.info.backend_pid
            return (waits_for, name) == (product.info.backend_pid, "the product")

        try:
            until_sync(told, what="the eraser's wait")
        finally:
            product.rollback()
        waiting.result(60)

"""A backup is restored beneath a relay: what it had delivered says nothing of the rows there."""

import asyncio
import shutil
import signal
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from sqlalchemy.ext.asyncio import create_async_engine

from lethe_sandbox.stack import Folders
from lethe_sandbox.stack.embedded.postgres import Postgres
from lethe_sandbox.stack.embedded.starting import first_start, try_start
from lethe_sandbox.stack.instance import Instance
from lethe_sandbox.stack.process import Process
from tests.support.factories import TopicFactory
from tests.support.fail_points import FailPoint
from tests.support.outbox_world import append, drained, events, lay, problems, stored
from tests.support.pooler import pooler
from tests.support.relays import KEYS, Relays, froze, owners
from tests.support.topics import read_raw
from tests.support.waiting import until

PATIENT = {"lease_seconds": 60, "renew_seconds": 1, "margin_seconds": 0.5, "publish_seconds": 2}


@dataclass(slots=True)
class Server:
    """A PostgreSQL of the test's own, whose files can be copied while it stands still."""

    postgres: Postgres
    instance: Instance
    processes: list[Process] = field(default_factory=list)

    @property
    def url(self) -> str:
        return self.postgres.address.database_url("postgres")

    @property
    def backup(self) -> Path:
        return self.postgres.folder.with_name("backup")

    def stop(self) -> None:
        assert self.processes[-1].end(signal.SIGINT, 30)

    def start(self) -> None:
        assert try_start(self.postgres, self.instance, self.processes.append)

    def back_up(self) -> None:
        """Copy the files at one instant, as a snapshot of the disk does; nobody notices."""
        self.processes[-1].pause()
        copy(self.postgres.folder, self.backup)
        self.processes[-1].resume()
        (self.backup / "postmaster.pid").unlink()

    def restore(self) -> None:
        self.stop()
        shutil.rmtree(self.postgres.folder)
        copy(self.backup, self.postgres.folder)
        self.start()


def copy(source: Path, target: Path) -> None:
    """Copy files with their owners, who may be another user than this one."""
    shutil.copytree(source, target)
    for path in (source, *source.rglob("*")):
        owner, there = path.stat(), target / path.relative_to(source)
        shutil.chown(there, owner.st_uid, owner.st_gid)
        there.chmod(owner.st_mode & 0o7777)


@pytest.fixture
def server() -> Iterator[Server]:
    folders = Folders.of_checkout()
    instance = Instance.claim_any(folders, "restored")
    found = Server(Postgres(folders, instance), instance)
    try:
        first_start(found.postgres, instance, found.processes.append)
        yield found
    finally:
        instance.discard()


async def test_what_was_delivered_before_marks_no_row_that_has_the_same_id_now(
    server: Server, kafka: str, topic: TopicFactory, tmp_path: Path
) -> None:
    lost, kept = await topic(), await topic()
    lay(server.url)
    engine = create_async_engine(server.url)
    relays = Relays(server.url, kafka, tmp_path / "relay.log")
    try:
        relay = relays.start(FailPoint("acknowledge", "before", send="SIGSTOP"), settings=PATIENT)

        async def owned() -> bool:
            return list((await owners(engine)).values()) == [256]

        await until(owned, within=30, what="the leases")
        await asyncio.to_thread(server.back_up)
        await append(engine, *events(lost, KEYS, 5))
        await froze(relay)
        delivered = {row.id for row in await stored(engine)}

        await engine.dispose()
        await asyncio.to_thread(server.restore)
        await append(engine, *events(kept, KEYS, 5))
        assert {row.id for row in await stored(engine)} == delivered
        relay.send_signal(signal.SIGCONT)
        await drained(engine, within=60)
        assert await problems(engine, kafka, [kept]) == []
        assert "the database is another one than before" in relays.log.read_text()
    finally:
        relays.end()
        await engine.dispose()


async def test_no_payload_goes_out_under_another_row_s_key(
    server: Server, kafka: str, topic: TopicFactory, tmp_path: Path
) -> None:
    """Behind a pooler nothing breaks: who reads the payload last may read it elsewhere."""
    lost, kept = await topic(), await topic()
    lay(server.url)
    engine = create_async_engine(server.url)
    with pooler(server.url, tmp_path) as pool:
        relays = Relays(pool.url, kafka, tmp_path / "relay.log")
        try:
            # With no room for more, no look notices it first.
            settings = {**PATIENT, "renew_seconds": 30, "waiting_bytes": 1}
            relay = relays.start(FailPoint("payloads", "before", send="SIGSTOP"), settings=settings)

            async def owned() -> bool:
                return list((await owners(engine)).values()) == [256]

            await until(owned, within=30, what="the leases")
            await asyncio.to_thread(server.back_up)
            await append(engine, *events(lost, KEYS[:1], 1), *events(lost, KEYS[:1], 1, size=9000))
            await froze(relay)
            fetched = {row.id for row in await stored(engine)}
            await engine.dispose()
            await asyncio.to_thread(server.restore)
            await append(
                engine, *events(kept, KEYS[1:2], 1), *events(kept, KEYS[1:2], 1, size=9000)
            )
            assert {row.id for row in await stored(engine)} == fetched
            relay.send_signal(signal.SIGCONT)
            await drained(engine, within=60)
            records = await read_raw(kafka, [lost, kept])
            assert [one for one in records if not one.value.startswith(one.key + b":")] == []
            assert await problems(engine, kafka, [kept]) == []
        finally:
            relays.end()
            await engine.dispose()

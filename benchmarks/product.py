"""Lethe as the demo runs it, for benchmarks: seeded, migrated, started, with its clients."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg
from psycopg import sql

from benchmarks.harness.model import Bench
from benchmarks.harness.topics import delete_all
from lethe_sandbox.clients import Clients
from lethe_sandbox.ground_truth import GroundTruth
from lethe_sandbox.seed import seed_sample
from lethe_sandbox.services import (
    DATABASES,
    ApiKeys,
    create_databases,
    create_keys,
    migrate,
    services,
)
from lethe_sandbox.stack import Addresses, Folders, Instance
from lethe_sandbox.supervisor import Supervisor

BATCH_ROWS = 500


@dataclass(frozen=True, slots=True)
class Running:
    """The four services at work."""

    supervisor: Supervisor
    keys: ApiKeys
    clients: Clients


def clear(addresses: Addresses) -> None:
    """Begin anew: empty databases, and no topic. An earlier case's events are not this one's."""
    delete_all(addresses.kafka)
    with psycopg.connect(addresses.database_url("postgres", driver=""), autocommit=True) as admin:
        for name in DATABASES:
            drop = sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)")
            admin.execute(drop.format(sql.Identifier(name)))
    create_databases(addresses)


def seed(
    bench: Bench, folder: Path, scale: float, bucket_folder: Path | None = None
) -> GroundTruth:
    """Seed the sample product in place of an earlier one; `bucket_folder` as `seed_sample` has."""
    addresses = bench.addresses
    bench.say(f"Seeding the sample product at scale {scale}")
    return seed_sample(
        addresses.database_url("product"),
        addresses.s3,
        folder / "ground-truth.json",
        scale=scale,
        bucket_folder=bucket_folder,
    )


@contextmanager
def running(
    bench: Bench,
    *,
    before: Callable[[Addresses], None] = lambda _: None,
    erasers: int = 1,
) -> Iterator[Running]:
    """Migrate and start the services, and stop them at the end.

    Args:
        bench: whose servers they run on.
        before: called when the databases are there, before anything starts.
        erasers: how many share the people.
    """
    addresses = bench.addresses
    before(addresses)
    everyone = tuple(
        one
        for service in services(addresses, batch_rows=BATCH_ROWS)
        for one in service.several(erasers if service.name == "eraser" else 1)
    )
    instance = Instance.claim_any(Folders.of_checkout(), "bench-services")
    with Supervisor(instance, everyone) as supervisor:
        migrate(supervisor, everyone)
        keys = create_keys(supervisor, everyone)
        bench.say("Starting the services")
        supervisor.start_all()
        with Clients(supervisor.url("intake"), supervisor.url("reporting"), keys) as clients:
            yield Running(supervisor, keys, clients)


def peak_mb(pid: int) -> float:
    """Read the peak of resident memory of another process (VmHWM), in MB."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024 / 1e6
    raise RuntimeError("this system does not tell VmHWM")

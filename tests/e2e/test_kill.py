"""`kill -9` of any one service in the middle of the erasure still ends with a passing audit."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count

import psycopg
import pytest

from lethe_sandbox import demo, product
from lethe_sandbox.audit import audit
from lethe_sandbox.clients import Clients
from lethe_sandbox.services import ApiKeys, create_databases, create_keys, migrate, services
from lethe_sandbox.stack import Addresses, Folders, Instance, open_stack, sweep
from lethe_sandbox.supervisor import Supervisor
from tests.support.screens import RememberingScreen

# Most of the work is still ahead when the first batch is done: forty people, and one with many.
BATCH_ROWS = 20
SCALE = 0.005


@dataclass(slots=True)
class Running:
    """The whole product, which is given one sample after the other."""

    instance: Instance
    addresses: Addresses
    supervisor: Supervisor
    keys: ApiKeys
    seeds: Iterator[int] = field(default_factory=lambda: count(1))

    def unfinished_jobs(self) -> int:
        """Count who is yet to be erased."""
        with psycopg.connect(self.addresses.database_url("product", driver="")) as connection:
            row = connection.execute(
                "select count(*) from lethe.job where state not in ('verified', 'blocked')"
            ).fetchone()
        assert row is not None
        return int(row[0])


@pytest.fixture(scope="module")
def running(request: pytest.FixtureRequest) -> Iterator[Running]:
    """Every service at work; starting them takes longer than all that the tests do."""
    folders = Folders.of_checkout()
    sweep(folders)
    instance = Instance.claim_any(folders, "kill")
    with open_stack(request.config.getoption("--stack"), instance, folders) as stack:
        addresses = stack.addresses
        everyone = services(addresses, batch_rows=BATCH_ROWS)
        with Supervisor(instance, everyone) as supervisor:
            create_databases(addresses)
            migrate(supervisor, everyone)
            keys = create_keys(supervisor, everyone)
            with psycopg.connect(addresses.database_url("product", driver="")) as connection:
                product.create_tables(connection)
            product.create_buckets(addresses.s3)
            supervisor.start_all()
            yield Running(instance, addresses, supervisor, keys)
            supervisor.stop_all()


# A machine that is busy with something else may need its time for this.
@pytest.mark.timeout(900)
@pytest.mark.parametrize("service", ["intake", "relay", "eraser", "reporting"])
def test_a_killed_service_goes_on_where_it_was(service: str, running: Running) -> None:
    screen = RememberingScreen()
    supervisor = running.supervisor
    options = demo.Options(scale=SCALE, seed=next(running.seeds), batch_rows=BATCH_ROWS)
    truth = demo.seed_into(
        running.addresses,
        running.instance.folder,
        scale=SCALE,
        number=options.seed,
        note=screen.note,
    )
    killed = []

    def kill_and_restart(supervisor: Supervisor) -> None:
        supervisor.kill(service)
        assert running.unfinished_jobs() > 0
        supervisor.start(service)
        killed.append(service)

    with Clients(supervisor.url("intake"), supervisor.url("reporting"), running.keys) as clients:
        demo.erase(options, screen, supervisor, clients, truth, kill_and_restart)
    report = audit(running.addresses.database_url("product"), running.addresses.s3, truth)

    assert killed == [service]
    assert report.ok
    assert screen.seen[-1].persons == screen.expected_persons

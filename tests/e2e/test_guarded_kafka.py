"""Every service and command gets through to brokers that want TLS, a name and a password."""

from dataclasses import replace

import psycopg
import pytest

from lethe_sandbox import product
from lethe_sandbox.clients import Clients
from lethe_sandbox.services import create_databases, create_keys, migrate, services
from lethe_sandbox.stack import Folders, Instance, open_stack
from lethe_sandbox.stack.embedded import alone
from lethe_sandbox.supervisor import Service, Supervisor
from tests.support.guarded_kafka import PASSWORD, USER, GuardedKafka
from tests.support.waiting import until_sync


def told_of(guarded: GuardedKafka, service: Service) -> Service:
    values = {
        "BOOTSTRAP": guarded.login,
        "TLS": "true",
        "CA_FILE": str(guarded.ca_file),
        "SASL_MECHANISM": "PLAIN",
        "SASL_USERNAME": USER,
        "SASL_PASSWORD": PASSWORD,
    }
    own = {f"LETHE_{service.name.upper()}_KAFKA_{name}": value for name, value in values.items()}
    return replace(service, environment={**service.environment, **own})


def test_a_person_is_erased_through_a_guarded_broker(request: pytest.FixtureRequest) -> None:
    folders = Folders.of_checkout()
    kind = request.config.getoption("--stack")
    own, instance = Instance.claim_any(folders, "guarded"), Instance.claim_any(folders, "guarded")
    with (
        alone(GuardedKafka(folders, own), own) as guarded,
        open_stack(kind, instance, folders) as stack,
    ):
        addresses = stack.addresses
        everyone = tuple(told_of(guarded, one) for one in services(addresses, batch_rows=20))
        with Supervisor(instance, everyone) as supervisor:
            create_databases(addresses)
            with psycopg.connect(addresses.database_url("product", driver="")) as connection:
                product.create_tables(connection)
            product.create_buckets(addresses.s3)
            migrate(supervisor, everyone)
            keys = create_keys(supervisor, everyone)
            supervisor.start_all()
            with Clients(supervisor.url("intake"), supervisor.url("reporting"), keys) as clients:
                request_id = clients.submit("acct-guarded", "one")
                until_sync(lambda: clients.intake_state(request_id) == "verified", within=60)
            supervisor.stop_all()

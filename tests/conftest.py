"""What every test may use: the servers, and a fresh corner of each."""

import itertools
import os
from collections.abc import Generator, Iterator
from pathlib import Path
from uuid import uuid4

import pytest
import pytest_socket
import redis
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from hypothesis import settings

from lethe_sandbox.stack import (
    Addresses,
    Folders,
    Instance,
    S3Address,
    Stack,
    StackError,
    open_stack,
    sweep,
)
from lethe_sandbox.stack.embedded import VersityGw, alone
from tests.support.databases import EMPTY, own_database
from tests.support.factories import BucketFactory, TopicFactory, make_buckets

TESTS = Path(__file__).parent
PARTITIONS = 16

# A property is about the code, not about how busy the machine is.
settings.register_profile("lethe", deadline=None)
settings.load_profile("lethe")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--stack",
        choices=["embedded", "docker"],
        default="embedded",
        help="what the servers run on: processes of this machine, or containers",
    )


def pytest_configure(config: pytest.Config) -> None:
    # Tools that `make test` brought for this checkout alone.
    tools = Folders.of_checkout().tools
    # uv lies apart: `make install` brings it where the machine has none.
    found = [str(tools / "bin"), os.environ["PATH"], str(tools / "uv" / "bin")]
    os.environ["PATH"] = os.pathsep.join(found)
    config.addinivalue_line(
        "markers", "network: a unit test that may open sockets, with its reason"
    )


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        level = item.path.relative_to(TESTS).parts[0]
        if level in ("integration", "faults", "e2e"):
            item.add_marker(level)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A test that was skipped in CI has failed."""
    report = yield
    if os.environ.get("CI") and report.skipped and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid} was skipped, which is a failure in CI: {report.longrepr}"
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """A file that was skipped in CI has failed."""
    report = yield
    if os.environ.get("CI") and report.outcome == "skipped":
        report.outcome = "failed"
        report.longrepr = f"{collector.nodeid} was skipped, which is a failure in CI"
    return report


@pytest.fixture(autouse=True)
def _no_sockets_in_unit_tests(request: pytest.FixtureRequest) -> Iterator[None]:
    if request.path.relative_to(TESTS).parts[0] != "unit":
        yield
        return
    # A socket of the Unix family stays allowed: every event loop wakes itself up through a pair.
    pytest_socket.disable_socket(allow_unix_socket=True)
    yield
    pytest_socket.enable_socket()


@pytest.fixture(scope="session")
def running_stack(request: pytest.FixtureRequest) -> Iterator[Stack]:
    """The servers themselves, to stop and start: one set per session, its data gone afterwards."""
    folders = Folders.of_checkout()
    try:
        sweep(folders)
        instance = Instance.claim_any(folders, "pytest")
        stack = open_stack(request.config.getoption("--stack"), instance, folders)
        stack.__enter__()
    except StackError as error:
        pytest.exit(f"the servers for the tests do not start: {error}", returncode=1)
    yield stack
    stack.__exit__(None, None, None)


@pytest.fixture(scope="session")
def stack(running_stack: Stack) -> Addresses:
    """Where the servers of this session answer."""
    return running_stack.addresses


@pytest.fixture(scope="session")
def database_template() -> str:
    """What every `database_url` begins as: empty, unless a folder of tests lays its tables once."""
    return EMPTY


@pytest.fixture
def database_url(stack: Addresses, database_template: str) -> Iterator[str]:
    """The async SQLAlchemy URL of a database of this test's own, as fresh as its template."""
    with own_database(stack, database_template) as url:
        yield url


@pytest.fixture
def kafka(stack: Addresses) -> str:
    """The bootstrap servers."""
    return stack.kafka


_REDIS_NUMBERS = itertools.cycle(range(16))


@pytest.fixture
def redis_url(stack: Addresses) -> str:
    """A Redis database that is empty now and used by no test at the same time."""
    url = f"{stack.redis_url}/{next(_REDIS_NUMBERS)}"
    with redis.Redis.from_url(url) as client:
        client.flushdb()
    return url


@pytest.fixture
def s3(stack: Addresses) -> S3Address:
    """Endpoint, region and credentials; `.client()` opens a boto3 client."""
    return stack.s3


@pytest.fixture(scope="session")
def versitygw() -> Iterator[S3Address]:
    """The second S3 server, whatever the stack runs on; its account is its access key."""
    folders = Folders.of_checkout()
    try:
        instance = Instance.claim_any(folders, "versitygw")
        with alone(VersityGw(folders, instance), instance) as server:
            yield server.address
    except StackError as error:
        pytest.fail(str(error), pytrace=False)


@pytest.fixture
def bucket(s3: S3Address) -> BucketFactory:
    """Make empty buckets: `bucket()`, `bucket(versioned=True)`, `bucket(locked=True)`."""
    return make_buckets(s3)


@pytest.fixture
def topic(kafka: str) -> TopicFactory:
    """Make empty topics: `await topic()`, `await topic("orders", partitions=4)`."""

    async def make(
        prefix: str = "topic", *, partitions: int = PARTITIONS, config: dict[str, str] | None = None
    ) -> str:
        name = f"{prefix}.{uuid4().hex}"
        admin = AIOKafkaAdminClient(bootstrap_servers=kafka)
        await admin.start()
        try:
            await admin.create_topics(
                [NewTopic(name, partitions, replication_factor=1, topic_configs=config or {})]
            )
        finally:
            await admin.close()
        return name

    return make

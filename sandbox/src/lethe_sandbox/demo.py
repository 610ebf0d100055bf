"""`lethe demo`: the whole product on real servers, from submitting to the audit."""

import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Final

from lethe_sandbox import journey
from lethe_sandbox.audit import Report, audit
from lethe_sandbox.clients import Clients
from lethe_sandbox.ground_truth import GroundTruth
from lethe_sandbox.progress import Done, Screen
from lethe_sandbox.seed import DEFAULT_SCALE, DEFAULT_SEED, Progress, seed_sample
from lethe_sandbox.services import (
    ApiKeys,
    create_databases,
    create_keys,
    migrate,
    services,
    write_environment,
)
from lethe_sandbox.stack import (
    KEPT,
    Addresses,
    Folders,
    Instance,
    StackKind,
    open_stack,
    sweep,
)
from lethe_sandbox.supervisor import Service, Supervisor

GROUND_TRUTH: Final = "ground-truth.json"


class DemoError(Exception):
    """The demo did not end as it should; the message says where to look."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What a demo can be asked for."""

    scale: float = DEFAULT_SCALE
    """1.0 is one person with 28,000 requests and 200 ordinary ones."""
    seed: int = DEFAULT_SEED
    stack: StackKind = "embedded"
    keep: bool = False
    batch_rows: int = 500
    patience: float = 60
    """Seconds without any change after which it gives up."""
    name: str = "demo"
    """Of its folder of logs."""


def run(
    options: Options,
    screen: Screen,
    *,
    after_first_batch: Callable[[Supervisor], None] | None = None,
) -> Report:
    """Run it, and give the audit, which passed.

    Args:
        options: what is asked for.
        screen: where it says what it does.
        after_first_batch: called once, in the middle of the erasure, after its first batch.

    Raises:
        DemoError: the audit or the requests say that something is wrong.
        StackError, ServiceError, JourneyError, RefusedError: something did not work at all.
    """
    folders = Folders.of_checkout()
    sweep(folders)
    with _terminable(), ExitStack() as ends:
        instance = (
            Instance(folders, KEPT, kept=True).claim()
            if options.keep
            else Instance.claim_any(folders, options.name)
        )
        ends.enter_context(_telling_where_to_look(screen, instance))
        screen.step("starting PostgreSQL, Kafka, Redis and S3")
        stack = ends.enter_context(open_stack(options.stack, instance, folders, say=screen.step))
        everyone = services(stack.addresses, batch_rows=options.batch_rows)
        supervisor = ends.enter_context(Supervisor(instance, everyone))
        truth, keys = _prepare(options, screen, stack.addresses, instance, supervisor, everyone)
        _start(screen, supervisor)
        with Clients(supervisor.url("intake"), supervisor.url("reporting"), keys) as clients:
            erase(options, screen, supervisor, clients, truth, after_first_batch)
        report = _audit(screen, stack.addresses, truth)
        if options.keep:
            _leave(screen, stack.addresses, instance, supervisor, everyone, keys)
        else:
            screen.step("stopping the services")
            supervisor.stop_all()
    if not options.keep:
        screen.step("everything is stopped and removed")
    return report


def _prepare(
    options: Options,
    screen: Screen,
    addresses: Addresses,
    instance: Instance,
    supervisor: Supervisor,
    everyone: tuple[Service, ...],
) -> tuple[GroundTruth, ApiKeys]:
    """Seed the sample product while the services migrate."""
    create_databases(addresses)
    screen.step(f"seeding the sample product (scale {options.scale}, seed {options.seed})")
    pool = ThreadPoolExecutor(1)
    try:
        seeding = pool.submit(_seed, options, screen, addresses, instance)
        migrate(supervisor, everyone)
        screen.step("topics, schemas and consumer groups are there")
        keys = create_keys(supervisor, everyone)
        truth = seeding.result()
    finally:
        # After a failure the servers end now, and the seeding with them.
        pool.shutdown(wait=False)
    rows = sum(len(table) for table in truth.rows.values())
    objects = sum(len(bucket) for bucket in truth.objects.values())
    screen.step(f"the sample has {len(truth.persons)} persons, {rows} rows, {objects} objects")
    return truth, keys


def _seed(
    options: Options, screen: Screen, addresses: Addresses, instance: Instance
) -> GroundTruth:
    return seed_into(
        addresses, instance.folder, scale=options.scale, number=options.seed, note=screen.note
    )


def seed_into(
    addresses: Addresses, folder: Path, *, scale: float, number: int, note: Callable[[str], None]
) -> GroundTruth:
    """Seed the sample product and write its ground truth into `folder`."""

    def tell(now: Progress) -> None:
        note(
            f"seeding: rows {now.rows}/{now.rows_total}, objects {now.objects}/{now.objects_total}"
        )

    return seed_sample(
        addresses.database_url("product"),
        addresses.s3,
        folder / GROUND_TRUTH,
        seed=number,
        scale=scale,
        progress=tell,
    )


def _start(screen: Screen, supervisor: Supervisor) -> None:
    screen.step(f"starting {', '.join(supervisor.names)}")
    supervisor.start_all()
    for name in supervisor.names:
        screen.step(f"{name} is ready at {supervisor.url(name)}")


def erase(
    options: Options,
    screen: Screen,
    supervisor: Supervisor,
    clients: Clients,
    truth: GroundTruth,
    after_first_batch: Callable[[Supervisor], None] | None = None,
) -> None:
    """Ask for everybody of `truth`, and wait until each has ended as it says; see `run`.

    Raises:
        JourneyError: Somebody ended otherwise, or nothing changed for `options.patience` seconds.
        DemoError: Everybody had ended before `after_first_batch` could be called.
    """
    journeys = journey.submit(clients, truth)
    screen.step(f"submitted {len(journeys)} erasure requests over HTTP")
    screen.expect(journey.expected_rows(truth), journey.expected_objects(truth), len(journeys))
    hook = after_first_batch

    def watch(done: Done) -> None:
        nonlocal hook
        supervisor.check()
        if hook is not None and any(done.rows.values()):
            hook(supervisor)
            hook = None

    try:
        journey.follow(
            clients, journeys, show=screen.progress, watch=watch, patience=options.patience
        )
    finally:
        screen.finish()
    if hook is not None:
        raise DemoError("every request ended before the first batch was seen")
    blocked = sum(one.person.end == "blocked" for one in journeys)
    screen.step(f"{len(journeys) - blocked} verified, {blocked} blocked for the expected reasons")


def _audit(screen: Screen, addresses: Addresses, truth: GroundTruth) -> Report:
    screen.step("auditing: every row and every object against the ground truth")
    report = audit(addresses.database_url("product"), addresses.s3, truth)
    screen.show(report)
    if not report.ok:
        raise DemoError("the audit found what the erasure should not have left or done")
    return report


def _leave(
    screen: Screen,
    addresses: Addresses,
    instance: Instance,
    supervisor: Supervisor,
    everyone: tuple[Service, ...],
    keys: ApiKeys,
) -> None:
    """Say how to use what was kept."""
    environment = instance.folder / "environment"
    write_environment(environment, everyone, keys)
    screen.step("left running; `make down` stops it")
    for name in supervisor.names:
        screen.step(f"  {name:<10}{supervisor.url(name)}")
    for line in describe(addresses):
        screen.step(f"  {line}")
    screen.step(f"  lethe, its settings and API keys, for a shell: set -a; . {environment}; set +a")


def describe(addresses: Addresses) -> list[str]:
    """Name the servers and how to reach them; the state file of the instance has the passwords."""
    postgres = addresses.postgres
    return [
        f"{'postgres':<10}{postgres.host}:{postgres.port} as {postgres.user}",
        f"{'kafka':<10}{addresses.kafka}",
        f"{'redis':<10}{addresses.redis_url}",
        f"{'s3':<10}{addresses.s3.endpoint}",
    ]


@contextmanager
def _telling_where_to_look(screen: Screen, instance: Instance) -> Iterator[None]:
    try:
        yield
    except Exception:
        # Whatever it is: it goes on to the caller, with a hint where to look.
        screen.step(f"failed; every server and service has its log in {instance.logs}")
        raise


@contextmanager
def _terminable() -> Iterator[None]:
    """Let SIGTERM unwind as Ctrl-C does, so that nothing stays behind."""

    def end(number: int, _frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)

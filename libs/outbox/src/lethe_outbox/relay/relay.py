"""The relay: from outbox rows to Kafka records, at least once and in order per key.

One database session at a time carries a fetcher, a publisher per lane, an acknowledger, the keeper
of the leases, a sweeper, a sampler and a janitor. Whatever fails in the database ends the session;
the next one starts from what the database says. What the broker has and the database does not know
yet survives in between.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Coroutine, Iterable
from typing import Any, Final

import psycopg
from sqlalchemy import make_url
from uuid_utils.compat import uuid7

from lethe_outbox.errors import DatabaseReplacedError, UnsupportedDatabaseError
from lethe_outbox.kafka.brokers import Bootstrap
from lethe_outbox.metrics import RelayMetrics
from lethe_outbox.relay.acknowledge import Acknowledger
from lethe_outbox.relay.bury import Undertaker
from lethe_outbox.relay.crew import Crew
from lethe_outbox.relay.fetch import Fetcher
from lethe_outbox.relay.janitor import Janitor
from lethe_outbox.relay.lease_storage import LeaseStorage, Terms
from lethe_outbox.relay.listen import Listener
from lethe_outbox.relay.looks import Looks
from lethe_outbox.relay.producers import Producers
from lethe_outbox.relay.publish import Outlet
from lethe_outbox.relay.reach import Reach
from lethe_outbox.relay.sample import Sampler
from lethe_outbox.relay.session import TRANSIENT, Session
from lethe_outbox.relay.settings import RelaySettings
from lethe_outbox.relay.storage import RelayStorage
from lethe_outbox.schema import DEFAULT_SCHEMA

_FIRST_PAUSE: Final = 0.25
_LACKING: Final[tuple[type[Exception], ...]] = (
    psycopg.errors.InsufficientPrivilege,
    psycopg.errors.UndefinedTable,
    psycopg.errors.UndefinedColumn,
    psycopg.errors.InvalidSchemaName,
)
"""What a database raises that is not migrated yet, or has not granted its role enough."""
_AWAY: Final[tuple[type[Exception], ...]] = (*TRANSIENT, DatabaseReplacedError, *_LACKING)
_CANCEL_AGAIN_SECONDS: Final = 1.0
_log = logging.getLogger(__name__)

OnState = Callable[[str, str, str], None]
"""Told the dependency (`database` or `kafka`), `ok` or `away`, and the class of the error."""


class Relay:
    """Publishes one outbox.

    Any number of relays may run on one outbox: they share its lanes by leases.

    Args:
        name: of the outbox; the label of every metric.
        dsn: the database as an SQLAlchemy URL; whatever driver it names, the relay uses psycopg.
        bootstrap: the brokers: `host:port,...`, or a `Brokers`.
        schema: of the outbox's tables.
        settings: see there.
        metrics: on the caller's registry.
        on_state: told when the database or the broker comes or goes.
        name_error: says what a database's error is called in `on_state` and the log: its class,
            unless somebody can tell more without quoting it. Without it the log says, too, why a
            connection failed, in the driver's words.

    Raises:
        UnsupportedDatabaseError: `dsn` names another database than PostgreSQL.
    """

    def __init__(
        self,
        name: str,
        dsn: str,
        bootstrap: Bootstrap,
        *,
        metrics: RelayMetrics,
        schema: str | None = DEFAULT_SCHEMA,
        settings: RelaySettings | None = None,
        on_state: OnState | None = None,
        name_error: Callable[[BaseException], str] | None = None,
    ) -> None:
        self._name = name
        self._dsn = _on_psycopg(dsn)
        self._bootstrap = bootstrap
        self._schema = schema
        self._settings = settings or RelaySettings()
        self._metrics = metrics
        self._on_state = on_state or _ignore
        self._name_error = name_error
        self._id = uuid7()
        self._hint: asyncio.Event | None = None

    def wake(self) -> None:
        """Poll now: there is probably something to publish."""
        if self._hint is not None:
            self._hint.set()

    async def run(self, stop: asyncio.Event) -> None:
        """Publish until `stop`, then finish what flies, acknowledge it and give the leases back.

        A database or broker that is away is waited for.

        Raises:
            UnsafeDatabaseError: the tables are not such that the promise could be kept.
        """
        self._hint = asyncio.Event()
        outlet = self._outlet()
        self._metrics.paused.labels(self._name).set(0)
        try:
            await self._sessions(outlet, stop)
        finally:
            await outlet.producers.close()
            await outlet.careful.close()

    async def _sessions(self, outlet: Outlet, stop: asyncio.Event) -> None:
        failures = 0
        while not stop.is_set():
            try:
                async with Session(self._dsn, f"relay-{self._name}") as session:
                    storage = self._storage(session)
                    await storage.prepare()
                    self._on_state("database", "ok", "")
                    failures = 0
                    await self._work(outlet, storage, stop)
            except _AWAY as error:
                failures += 1
                await self._pause(failures, error, stop)

    async def _work(self, outlet: Outlet, storage: RelayStorage, stop: asyncio.Event) -> None:
        settings = self._settings
        acknowledger = outlet.acknowledger
        terms = Terms(settings.lease_seconds, settings.watch_backends)
        leases = LeaseStorage(storage, self._name, terms)
        crew = Crew(outlet, leases, self._undertaker(outlet, storage), storage)
        hint = self._hint or asyncio.Event()
        acknowledger.begin(storage.session.identity)
        await acknowledger.flush(storage, crew.lost)
        fetcher = Fetcher(
            settings,
            storage,
            leases,
            Looks(storage, self._metrics.seconds.labels(self._name, "look")),
            crew.lanes,
            acknowledger,
            room=outlet.room,
            hint=hint,
            took=self._metrics.seconds.labels(self._name, "fetch"),
        )
        sampler = Sampler(self._name, self._dsn, self._schema, self._metrics, settings)
        janitor = Janitor(self._name, self._dsn, self._schema, settings)
        # What takes on more work ends first; deliveries are acknowledged to the last.
        taking = _tasks(
            [fetcher.run(), fetcher.sweep(), crew.run(), sampler.run(crew.lanes), janitor.run()]
        )
        hearing = _tasks([self._listener(hint).run()] if settings.listen else [])
        marking = _tasks([acknowledger.run(storage, crew.lost)])
        try:
            await _first([*taking, *marking, *hearing, crew.failed], stop)
            await _cancelled(taking)
            await crew.drain()
            await acknowledger.flush(storage, crew.lost)
            await crew.release()
        finally:
            await _cancelled([*taking, *marking, *hearing])
            await crew.cancel()

    def _outlet(self) -> Outlet:
        settings, room = self._settings, asyncio.Event()
        reach = Reach(settings, self._broker_state)
        acknowledger = Acknowledger(
            self._name, self._metrics, settings.rows_per_acknowledgement, room
        )
        return Outlet(
            outbox=self._name,
            settings=settings,
            metrics=self._metrics,
            producers=Producers(self._bootstrap, settings, idempotent=True, reach=reach),
            careful=Producers(self._bootstrap, settings, idempotent=False, reach=reach),
            acknowledger=acknowledger,
            room=room,
            large=asyncio.Lock(),
        )

    def _storage(self, session: Session) -> RelayStorage:
        settings = self._settings
        return RelayStorage(
            session,
            self._schema,
            self._id,
            settings.lanes,
            large_payload_bytes=settings.large_payload_bytes,
        )

    def _listener(self, hint: asyncio.Event) -> Listener:
        return Listener(
            self._name,
            self._dsn,
            self._schema,
            hint=hint,
            heard=self._metrics.hints.labels(self._name),
            pause_max_seconds=self._settings.pause_max_seconds,
        )

    def _undertaker(self, outlet: Outlet, storage: RelayStorage) -> Undertaker:
        return Undertaker(self._name, storage, outlet.careful, self._settings, self._metrics)

    def _broker_state(self, state: str, error_class: str) -> None:
        self._metrics.paused.labels(self._name).set(0 if state == "ok" else 1)
        self._on_state("kafka", state, error_class)

    async def _pause(self, failures: int, error: Exception, stop: asyncio.Event) -> None:
        longest = self._settings.pause_max_seconds
        pause = min(longest, _FIRST_PAUSE * 2 ** min(failures - 1, 20))
        self._on_state("database", "away", (self._name_error or _class_name)(error))
        _log.warning(
            "outbox %s: %s (%s), attempt %d, next in %.2f s",
            self._name,
            "tables or rights are missing" if isinstance(error, _LACKING) else "database away",
            (self._name_error or _in_words)(error),
            failures,
            pause,
        )
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(pause):
                await stop.wait()


def _tasks(work: Iterable[Coroutine[Any, Any, None]]) -> list[asyncio.Task[None]]:
    return [asyncio.create_task(one) for one in work]


async def _first(work: Iterable["asyncio.Future[None]"], stop: asyncio.Event) -> None:
    """Wait for `stop`, or raise what ends one of the others; one that is done is no reason."""
    stopping: asyncio.Future[Any] = asyncio.ensure_future(stop.wait())
    watched: set[asyncio.Future[Any]] = {stopping, *work}
    try:
        while stopping in watched:
            done, watched = await asyncio.wait(watched, return_when=asyncio.FIRST_COMPLETED)
            for one in done - {stopping}:
                one.result()
    finally:
        stopping.cancel()


async def _cancelled(work: Iterable["asyncio.Future[None]"]) -> None:
    """Cancel what runs and wait for its end, whatever that is."""
    work = list(work)
    left = set(work)
    while left:
        # Again: `asyncio.wait_for` of Python 3.11, which psycopg before 3.3.9 waits by, forgets a
        # cancellation that comes just when what it waits for is done.
        for one in left:
            one.cancel()
        _, left = await asyncio.wait(left, timeout=_CANCEL_AGAIN_SECONDS)
    await asyncio.gather(*work, return_exceptions=True)


def _on_psycopg(dsn: str) -> str:
    url = make_url(dsn)
    if url.get_backend_name() != "postgresql":
        raise UnsupportedDatabaseError(
            f"a relay needs PostgreSQL; its URL names {url.get_backend_name()}"
        )
    return url.set(drivername="postgresql+psycopg").render_as_string(hide_password=False)


def _class_name(error: BaseException) -> str:
    return type(error).__name__


def _in_words(error: BaseException) -> str:
    name = _class_name(error)
    # Without an SQLSTATE it speaks of the connection alone, never of a row.
    is_of_connection = isinstance(error, psycopg.OperationalError) and error.sqlstate is None
    return f"{name}: {' '.join(str(error).split())}" if is_of_connection else name


def _ignore(dependency: str, state: str, error_class: str) -> None:
    del dependency, state, error_class

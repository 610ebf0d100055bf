"""The tables of the library, as SQLAlchemy Core.

One `OutboxTables` per schema; `migrations` creates what stands here. Invariants:

- A row of `outbox` is PENDING until Kafka has acknowledged it; only the owner of its bucket, under
  the bucket's epoch, changes its status.
- No index mentions `status`, so an acknowledgement is a heap-only update.
- A bucket's `low_water` is at most the id of its oldest row that is not resolved: below it there is
  nothing to publish. State decides; the mark only keeps polls cheap.
- `rewinds` grows whenever somebody else than the owner lowers `low_water`; a fetch that does not
  know the current value finds nothing.
- `outbox_dead` lists the refused rows nobody has dealt with: few, so holding back and counting
  need no index on `status`. When their partition is dropped they move to the default one as they
  are.
- `outbox_purged` keeps who removed which refused rows, and of the rows no key and no payload.
- Time is the database's.
"""

from enum import IntEnum
from functools import lru_cache
from typing import Final

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Identity,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    func,
    text,
)

DEFAULT_SCHEMA: Final = "lethe"
JANITOR: Final = "janitor"
"""The task of `outbox_upkeep` whose last complete run is noted."""


class Status(IntEnum):
    """Where a row of the outbox stands."""

    PENDING = 0
    SENT = 1
    DEAD_LETTERED = 2
    """Kafka refused it; its dead-letter topic has it."""
    DLT_FAILED = 3
    """Kafka refused it and its dead-letter topic too; left alone until somebody brings it back."""


class OutboxTables:
    """The tables `outbox[_dead|_bucket|_relay|_upkeep|_purged]`, `inbox` and `dead_letter[...]`.

    To ask of them again and again, take `tables_in`: SQLAlchemy keeps what it compiled by table.
    """

    def __init__(
        self, schema: str | None = DEFAULT_SCHEMA, metadata: MetaData | None = None
    ) -> None:
        self.schema = schema
        self.metadata = metadata or MetaData()
        self.outbox = self._outbox()
        self.dead = self._dead()
        self.bucket = self._bucket()
        self.relay = self._relay()
        self.upkeep = self._upkeep()
        self.purged = self._purged()
        self.inbox = self._inbox()
        self.dead_letter = self._dead_letter()
        self.dead_letter_decision = self._dead_letter_decision()

    def _outbox(self) -> Table:
        return Table(
            "outbox",
            self.metadata,
            Column("id", BigInteger, Identity(always=True), nullable=False),
            Column("event_id", Uuid, nullable=False),
            Column("topic", Text, nullable=False),
            Column("key", Text, nullable=False),
            Column("bucket", SmallInteger, nullable=False),
            Column("payload", LargeBinary, nullable=False),
            Column("headers", LargeBinary, nullable=False),
            Column("status", SmallInteger, nullable=False, server_default=text("0")),
            Column("attempts", SmallInteger, nullable=False, server_default=text("0")),
            Column("dlt_attempts", SmallInteger, nullable=False, server_default=text("0")),
            Column("last_error", Text),
            Column(
                "created_at", DateTime(timezone=True), nullable=False, server_default=func.now()
            ),
            Column("sent_at", DateTime(timezone=True)),
            PrimaryKeyConstraint("id", "created_at"),
            Index("outbox_bucket_id", "bucket", "id"),
            schema=self.schema,
            postgresql_partition_by="RANGE (created_at)",
        )

    def _dead(self) -> Table:
        return Table(
            "outbox_dead",
            self.metadata,
            Column("id", BigInteger, primary_key=True, autoincrement=False),
            Column("created_at", DateTime(timezone=True), nullable=False),
            Column("event_id", Uuid, nullable=False),
            Column("bucket", SmallInteger, nullable=False),
            Column("topic", Text, nullable=False),
            Column("key", Text, nullable=False),
            Column("status", SmallInteger, nullable=False),
            Column("reason", Text, nullable=False),
            Column("held", Boolean, nullable=False),
            Column("died_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
            # A hash: a btree refuses a key of some thousand bytes, and so the row with it.
            Index("outbox_dead_key", "key", postgresql_using="hash", postgresql_where=text("held")),
            schema=self.schema,
        )

    def _bucket(self) -> Table:
        return Table(
            "outbox_bucket",
            self.metadata,
            Column("bucket", SmallInteger, primary_key=True, autoincrement=False),
            Column("owner", Uuid),
            Column("epoch", BigInteger, nullable=False, server_default=text("0")),
            Column("lease_until", DateTime(timezone=True)),
            Column("low_water", BigInteger, nullable=False, server_default=text("0")),
            Column("rewinds", BigInteger, nullable=False, server_default=text("0")),
            schema=self.schema,
        )

    def _relay(self) -> Table:
        return Table(
            "outbox_relay",
            self.metadata,
            Column("relay_id", Uuid, primary_key=True),
            Column("name", Text, nullable=False),
            Column(
                "started_at", DateTime(timezone=True), nullable=False, server_default=func.now()
            ),
            Column("alive_until", DateTime(timezone=True), nullable=False),
            Column("backend_pid", Integer, nullable=False),
            Column("backend_start", DateTime(timezone=True), nullable=False),
            schema=self.schema,
        )

    def _upkeep(self) -> Table:
        return Table(
            "outbox_upkeep",
            self.metadata,
            Column("task", Text, primary_key=True),
            Column("done_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
            schema=self.schema,
        )

    def _purged(self) -> Table:
        return Table(
            "outbox_purged",
            self.metadata,
            Column("id", BigInteger, Identity(always=True), primary_key=True),
            Column("row_id", BigInteger, nullable=False),
            Column("event_id", Uuid, nullable=False),
            Column("topic", Text, nullable=False),
            Column("status", SmallInteger, nullable=False),
            Column("reason", Text, nullable=False),
            Column("died_at", DateTime(timezone=True), nullable=False),
            Column("older_than_seconds", BigInteger, nullable=False),
            Column("approved_by", Text, nullable=False),
            Column("database_user", Text, nullable=False, server_default=text("session_user")),
            Column("purged_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
            schema=self.schema,
        )

    def _inbox(self) -> Table:
        return Table(
            "inbox",
            self.metadata,
            Column("event_id", Uuid, nullable=False),
            Column("consumer", Text, nullable=False),
            Column(
                "handled_at", DateTime(timezone=True), nullable=False, server_default=func.now()
            ),
            PrimaryKeyConstraint("event_id", "consumer"),
            schema=self.schema,
            postgresql_partition_by="RANGE (event_id)",
        )

    def _dead_letter(self) -> Table:
        return Table(
            "dead_letter",
            self.metadata,
            Column("id", BigInteger, Identity(always=True), primary_key=True),
            Column("topic", Text, nullable=False),
            Column("partition", Integer, nullable=False),
            Column("offset", BigInteger, nullable=False),
            Column("key", LargeBinary),
            Column("event_id", Uuid),
            Column("reason", Text, nullable=False),
            Column("error_class", Text),
            Column("refused_by", Text),
            Column("attempts", Integer),
            Column("origin_topic", Text),
            Column("origin_partition", Integer),
            Column("origin_offset", BigInteger),
            Column("first_failed_at", DateTime(timezone=True)),
            Column("last_failed_at", DateTime(timezone=True)),
            Column("headers", LargeBinary, nullable=False),
            Column("payload", LargeBinary),
            Column("state", Text, nullable=False, server_default=text("'open'")),
            Column(
                "recorded_at", DateTime(timezone=True), nullable=False, server_default=func.now()
            ),
            Column("state_changed_at", DateTime(timezone=True)),
            UniqueConstraint("topic", "partition", "offset"),
            Index("dead_letter_open", "id", postgresql_where=text("state = 'open'")),
            schema=self.schema,
        )

    def _dead_letter_decision(self) -> Table:
        return Table(
            "dead_letter_decision",
            self.metadata,
            Column("id", BigInteger, Identity(always=True), primary_key=True),
            # No foreign key: what was decided outlives the letter.
            Column("letter", BigInteger, nullable=False),
            Column("topic", Text, nullable=False),
            Column("partition", Integer, nullable=False),
            Column("offset", BigInteger, nullable=False),
            Column("event_id", Uuid),
            Column("decision", Text, nullable=False),
            Column("decided_by", Text, nullable=False),
            Column("reason", Text),
            Column(
                "decided_at", DateTime(timezone=True), nullable=False, server_default=func.now()
            ),
            Index("dead_letter_decision_letter", "letter"),
            schema=self.schema,
        )


@lru_cache(maxsize=64)
def tables_in(schema: str | None = DEFAULT_SCHEMA) -> OutboxTables:
    """Give the tables of a schema, the same ones each time: a statement is compiled once."""
    return OutboxTables(schema)


@lru_cache(maxsize=512)
def outbox_partition(schema: str, name: str) -> Table:
    """Describe one partition of the outbox by itself, likewise."""
    return tables_in(schema).outbox.to_metadata(MetaData(), schema=schema, name=name)

"""Creating topics as agreed, and refusing to work with others."""

import asyncio
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Final

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import (
    KafkaError,
    TopicAlreadyExistsError,
    UnknownTopicOrPartitionError,
    for_code,
)
from tenacity import AsyncRetrying, retry_if_exception
from tenacity.stop import stop_after_delay
from tenacity.wait import wait_exponential

from lethe_outbox.errors import BrokerAwayError, PartitionCountError, TopicMissingError
from lethe_outbox.kafka.brokers import Bootstrap, client_arguments
from lethe_outbox.kafka.clients import started
from lethe_outbox.kafka.dead_letter_topic import HEADROOM_BYTES, dead_letter_topic

_NO_ERROR: Final = 0
_MAX_BYTES: Final = "max.message.bytes"
_DEFAULT_MAX_BYTES: Final = 1_048_588
"""Kafka's own default."""


@dataclass(frozen=True, slots=True)
class TopicSpec:
    """A topic as agreed; `config` holds Kafka's topic settings by their own names."""

    name: str
    partitions: int
    config: Mapping[str, str] = field(default_factory=dict)
    replication_factor: int = 1
    """Copies of each partition; 3 wherever a broker's loss must lose nothing."""


def with_dead_letters(spec: TopicSpec) -> tuple[TopicSpec, TopicSpec]:
    """Describe a topic and the dead-letter topic it needs.

    That has as many partitions, keeps its records until they are dealt with, and takes a record of
    the origin's greatest size with the headers that a dead letter adds.
    """
    largest = int(spec.config.get(_MAX_BYTES, _DEFAULT_MAX_BYTES))
    config = {
        **spec.config,
        _MAX_BYTES: str(largest + HEADROOM_BYTES),
        "retention.ms": "-1",
        "cleanup.policy": "delete",
    }
    return spec, replace(spec, name=dead_letter_topic(spec.name), config=config)


async def ensure_topics(
    bootstrap: Bootstrap, specs: Iterable[TopicSpec], *, give_up_seconds: float = 300
) -> tuple[str, ...]:
    """Create the topics that are missing and return their names; safe to repeat.

    It waits for the broker, and until the broker knows what it created. A topic that exists keeps
    its settings; its partitions are checked.

    Raises:
        PartitionCountError: a topic exists with another number of partitions.
        BrokerAwayError: the broker did not answer for `give_up_seconds`, or refused.
    """
    wanted = list(specs)
    retrying = waiting_for_broker(give_up_seconds)
    created: tuple[str, ...] = ()
    with refusals_in_words():
        async for attempt in retrying:
            with attempt:
                created = await _create(bootstrap, wanted)
        new = {spec.name: spec.partitions for spec in wanted if spec.name in created}
        async for attempt in retrying:
            with attempt:
                await _wait_until_known(bootstrap, new)
        existing = {spec.name: spec.partitions for spec in wanted if spec.name not in created}
        if existing:
            await check_partitions(bootstrap, existing)
    return created


async def _wait_until_known(bootstrap: Bootstrap, created: Mapping[str, int]) -> None:
    """Raise a retriable error while the broker does not know what it just created.

    Of a topic that was deleted a moment ago it may still report the old partitions.
    """
    if created and await partition_counts(bootstrap, created) != created:
        raise UnknownTopicOrPartitionError


def waiting_for_broker(give_up_seconds: float) -> AsyncRetrying:
    """Repeat what failed because the broker was away or not settled yet, up to a deadline."""
    return AsyncRetrying(
        retry=retry_if_exception(_is_transient),
        stop=stop_after_delay(give_up_seconds),
        wait=wait_exponential(multiplier=0.25, max=10),
        reraise=True,
    )


@contextmanager
def refusals_in_words() -> Iterator[None]:
    """Turn what is raised when the brokers are away, or refuse, into a BrokerAwayError."""
    try:
        yield
    except (KafkaError, OSError) as error:
        name = type(error).__name__
        raise BrokerAwayError(
            f"Kafka does not answer ({name}), waited for in vain: is it running? Look at the "
            "bootstrap servers of the settings too, and at TLS and the login if it wants them"
            if _is_transient(error)
            else f"Kafka refuses what was asked of it ({name}): mend that, then say the same again"
        ) from error


def _is_transient(error: BaseException) -> bool:
    return isinstance(error, OSError) or bool(isinstance(error, KafkaError) and error.retriable)


async def check_partitions(bootstrap: Bootstrap, expected: Mapping[str, int]) -> None:
    """Compare the live partition counts with the agreed ones.

    Raises:
        TopicMissingError: a topic does not exist.
        PartitionCountError: a topic has another count.
        KafkaError: the broker does not answer.
    """
    found = await partition_counts(bootstrap, expected)
    for name, count in expected.items():
        if name not in found:
            raise TopicMissingError(
                f"topic {name} does not exist; the migration creates it (ensure_topics)"
            )
        if found[name] != count:
            raise PartitionCountError(
                f"topic {name} has {found[name]} partitions and {count} are agreed; "
                "keys would change their partition, so drain it before it is changed"
            )


class TopicsProbe:
    """Asks whether topics are there as agreed.

    Args:
        bootstrap: the brokers.
        expected: how many partitions each topic must have.
    """

    TRANSIENT: Final = (KafkaError, OSError, TimeoutError, TopicMissingError)
    """What `ask` raises while there is something to wait for."""

    def __init__(self, bootstrap: Bootstrap, expected: Mapping[str, int]) -> None:
        self._bootstrap = bootstrap
        self._expected = dict(expected)

    async def ask(self) -> None:
        """Compare the live topics with the agreed ones.

        Raises:
            PartitionCountError: a topic has another count: keys would change their partition.
            TopicMissingError, KafkaError, OSError, TimeoutError: see `TRANSIENT`.
        """
        await check_partitions(self._bootstrap, self._expected)


async def partition_counts(bootstrap: Bootstrap, topics: Iterable[str]) -> dict[str, int]:
    """Ask the brokers how many partitions each topic has; one that does not exist is left out."""
    admin = AIOKafkaAdminClient(**client_arguments(bootstrap))
    try:
        await started(admin)
        described = await admin.describe_topics(list(topics))
    finally:
        await admin.close()
    return {
        topic["topic"]: len(topic["partitions"])
        for topic in described
        if topic["error_code"] == _NO_ERROR
    }


async def _create(bootstrap: Bootstrap, specs: list[TopicSpec]) -> tuple[str, ...]:
    admin = AIOKafkaAdminClient(**client_arguments(bootstrap))
    try:
        await started(admin)
        answers = await asyncio.gather(*(_create_one(admin, spec) for spec in specs))
    finally:
        await admin.close()
    return tuple(spec.name for spec, created in zip(specs, answers, strict=True) if created)


async def _create_one(admin: AIOKafkaAdminClient, spec: TopicSpec) -> bool:
    topic = NewTopic(
        spec.name, spec.partitions, spec.replication_factor, topic_configs=dict(spec.config)
    )
    response = await admin.create_topics([topic])
    for _, code, *_ in response.topic_errors:
        if code == TopicAlreadyExistsError.errno:
            return False
        if code != _NO_ERROR:
            raise for_code(code)
    return True

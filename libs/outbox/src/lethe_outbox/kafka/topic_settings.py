"""Settings of live topics that a promise rests on, compared with what was promised."""

from collections.abc import Collection, Mapping
from datetime import timedelta
from math import inf
from typing import Final

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import KafkaError, UnknownTopicOrPartitionError, for_code

from lethe_outbox.errors import DeadLetterTopicError, RetentionError, TopicMissingError
from lethe_outbox.kafka.brokers import Bootstrap, client_arguments
from lethe_outbox.kafka.clients import started
from lethe_outbox.kafka.dead_letter_topic import HEADROOM_BYTES, dead_letter_topic

_MAX_BYTES: Final = "max.message.bytes"
_RETENTION: Final = "retention.ms"
_CLEANUP: Final = "cleanup.policy"
_NAME, _VALUE = 0, 1


class TopicSettingsProbe:
    """Asks whether the live topics can hold what consumers promise.

    Args:
        bootstrap: the brokers.
        topics: what is consumed; each has its dead-letter topic.
        inbox_keeps: how long the consumers' inbox remembers.
    """

    TRANSIENT: Final = (KafkaError, OSError, TimeoutError, TopicMissingError)
    """What `ask` raises while there is something to wait for."""

    def __init__(
        self, bootstrap: Bootstrap, topics: Collection[str], inbox_keeps: timedelta
    ) -> None:
        self._bootstrap = bootstrap
        self._topics = tuple(topics)
        self._inbox_keeps = inbox_keeps

    async def ask(self) -> None:
        """Compare the live settings with what is needed.

        Raises:
            DeadLetterTopicError: a dead letter might not fit its dead-letter topic, or get lost.
            RetentionError: a topic keeps records for longer than the inbox remembers them.
            TopicMissingError, KafkaError, OSError, TimeoutError: see `TRANSIENT`.
        """
        names = [name for topic in self._topics for name in (topic, dead_letter_topic(topic))]
        found = await topic_settings(self._bootstrap, names, (_MAX_BYTES, _RETENTION, _CLEANUP))
        check_retention(found, self._topics, self._inbox_keeps)
        check_dead_letter_topics(found, self._topics)


def check_dead_letter_topics(
    found: Mapping[str, Mapping[str, str]], topics: Collection[str]
) -> None:
    """Check that dead-letter topics take their topics' largest records with headers, and keep them.

    Raises:
        DeadLetterTopicError: one would not.
    """
    for topic in topics:
        dead = dead_letter_topic(topic)
        largest, limit = int(found[topic][_MAX_BYTES]), int(found[dead][_MAX_BYTES])
        if limit < largest + HEADROOM_BYTES:
            raise DeadLetterTopicError(
                f"{dead} takes {limit} bytes; a record of {topic} may have {largest}, and a dead "
                f"letter {HEADROOM_BYTES} more: set max.message.bytes of {dead} to "
                f"{largest + HEADROOM_BYTES}, or, if that of {topic} was raised by mistake, "
                "set that one back"
            )
        if found[dead][_CLEANUP] != "delete":
            raise DeadLetterTopicError(
                f"{dead} is compacted, so of a key's dead letters only the last one stays: set "
                f"cleanup.policy of {dead} to delete"
            )
        if _kept(found[dead]) < _kept(found[topic]):
            raise DeadLetterTopicError(
                f"{dead} forgets its records before {topic} does, and with them dead letters that "
                f"nobody has dealt with: set retention.ms of {dead} to -1"
            )


def _kept(settings: Mapping[str, str]) -> float:
    milliseconds = int(settings[_RETENTION])
    return inf if milliseconds < 0 else milliseconds


def check_retention(
    found: Mapping[str, Mapping[str, str]], topics: Collection[str], inbox_keeps: timedelta
) -> None:
    """Check that whatever a topic still holds, the inbox still remembers.

    Raises:
        RetentionError: a record could be consumed again after the inbox has forgotten it.
    """
    for topic in topics:
        milliseconds = int(found[topic][_RETENTION])
        if milliseconds < 0 or timedelta(milliseconds=milliseconds) >= inbox_keeps:
            kept = "for ever" if milliseconds < 0 else f"{milliseconds / 86_400_000:g} days"
            raise RetentionError(
                f"topic {topic} keeps records {kept}, the inbox remembers them for "
                f"{inbox_keeps / timedelta(days=1):g} days: keep the inbox longer than the topic"
            )


async def topic_settings(
    bootstrap: Bootstrap, topics: Collection[str], names: Collection[str]
) -> dict[str, dict[str, str]]:
    """Read settings of topics as the brokers apply them, defaults included.

    Raises:
        TopicMissingError: a topic does not exist.
        KafkaError: the brokers do not answer, or do not let us ask (it takes DescribeConfigs).
    """
    admin = AIOKafkaAdminClient(**client_arguments(bootstrap))
    try:
        await started(admin)
        answers = await admin.describe_configs(
            [
                ConfigResource(ConfigResourceType.TOPIC, topic, dict.fromkeys(names))
                for topic in topics
            ]
        )
    finally:
        await admin.close()
    found: dict[str, dict[str, str]] = {}
    for code, _, _, topic, entries in (one for answer in answers for one in answer.resources):
        if code == UnknownTopicOrPartitionError.errno:
            raise TopicMissingError(
                f"topic {topic} does not exist; the migration creates it (ensure_topics)"
            )
        if code != 0:
            raise for_code(code)
        found[topic] = {entry[_NAME]: entry[_VALUE] for entry in entries}
    return found

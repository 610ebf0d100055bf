"""The janitor inside the relay: keeps the partitions of its outbox, one relay at a time."""

import asyncio
import logging
from typing import Final

from sqlalchemy.exc import SQLAlchemyError

from lethe_outbox.partitions.storage import Outcome
from lethe_outbox.partitions.upkeep import Kept, Upkeep, UpkeepRules
from lethe_outbox.relay.sample import engine_for
from lethe_outbox.relay.settings import RelaySettings

_LOOK_SECONDS: Final = 60.0
"""Between two looks whether a run is due: what somebody stood in the way of is tried again then."""
_STATEMENT_MILLISECONDS: Final = 30_000
_log = logging.getLogger(__name__)


class Janitor:
    """Runs `Upkeep` when it is due; what it cannot do now, it tries again later.

    Who of several relays does it is left to whoever looks first; the others find it done.
    """

    def __init__(self, outbox: str, dsn: str, schema: str | None, settings: RelaySettings) -> None:
        self._outbox = outbox
        self._seconds = settings.janitor_seconds
        rules = UpkeepRules(
            retention_seconds=settings.retention_seconds,
            months_ahead=settings.months_ahead,
            lock_seconds=settings.janitor_lock_seconds,
        )
        engine = engine_for(dsn, f"{outbox}-janitor", _STATEMENT_MILLISECONDS)
        self._upkeep = Upkeep(engine, schema, rules)

    async def run(self) -> None:
        """Keep the outbox for ever; return at once if somebody else is to do it."""
        if not self._seconds:
            return
        while True:
            await self._turn()
            await asyncio.sleep(min(self._seconds, _LOOK_SECONDS))

    async def _turn(self) -> None:
        try:
            if await self._upkeep.due(self._seconds):
                self._tell(await self._upkeep.run())
        except (SQLAlchemyError, OSError, ValueError) as error:
            _log.warning(
                "the partitions of outbox %s could not be kept (%s)",
                self._outbox,
                type(error).__name__,
            )

    def _tell(self, kept: Kept) -> None:
        for did, steps in (("made", kept.made), ("dropped", kept.dropped)):
            for what, outcome in steps.items():
                level = logging.DEBUG if outcome is Outcome.REFUSED else logging.INFO
                word = did if outcome is Outcome.DONE else f"not {did} ({outcome.value})"
                _log.log(level, "outbox %s: partition %s %s", self._outbox, what, word)
        if kept.swept:
            _log.info(
                "outbox %s: %d old rows of the default partition deleted", self._outbox, kept.swept
            )

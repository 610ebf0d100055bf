"""Whether a person is a customer of the product, asked where the catalog says it can be known."""

from datetime import datetime

from sqlalchemy import ARRAY, DateTime, Text, TextClause, bindparam, text
from sqlalchemy.ext.asyncio import AsyncConnection

from lethe_contracts.cipher import Cipher
from lethe_eraser.catalog import ActiveAccount
from lethe_eraser.domain import Job
from lethe_eraser.storage.look_ups import EXPLAIN, by_index
from lethe_eraser.storage.names import qualified, quote


class Accounts:
    """Asks for accounts that are active, or were opened after somebody last decided on them.

    Args:
        account: where to ask.
        cipher: opens the subjects of jobs.
    """

    def __init__(self, account: ActiveAccount, cipher: Cipher) -> None:
        self._account = account
        self._cipher = cipher

    @classmethod
    def of(cls, account: ActiveAccount | None, cipher: Cipher) -> "Accounts | None":
        """Give one if the catalog says where to ask."""
        return None if account is None else cls(account, cipher)

    async def is_active(self, connection: AsyncConnection, job: Job) -> bool:
        """Say whether the person is a customer, or became one again since `job.looked_at`.

        Somebody without any account is none.

        Raises:
            UndecryptableError: the key ring cannot open the subject.
        """
        subject = self._cipher.decrypt(job.subject or "", context=job.subject_ref).decode()
        return await self.has_one(connection, subject, since=job.looked_at)

    async def has_one(
        self, connection: AsyncConnection, subject: str, *, since: datetime | None
    ) -> bool:
        """Say whether an account of `subject` is active, or was opened after `since`, if given."""
        found = await connection.execute(
            _statement(self._account),
            {"lethe_subject": subject, "lethe_since": since, **_values(self._account)},
        )
        return bool(found.scalar_one())


async def asked_by_index(connection: AsyncConnection, account: ActiveAccount) -> bool:
    """Say whether an index serves the question, as EXPLAIN has it."""
    return await by_index(
        connection,
        _statement(account, EXPLAIN),
        {"lethe_subject": "x", "lethe_since": None, **_values(account)},
    )


def _statement(account: ActiveAccount, prefix: str = "") -> TextClause:
    active = " or ".join(
        f"{quote(column)}::text = any(:lethe_active_{i})"
        for i, column in enumerate(sorted(account.active))
    )
    return text(
        f"{prefix}select exists (select from {qualified(account.table)}"  # noqa: S608 - names of the catalog
        f" where {quote(account.subject)} = :lethe_subject and "
        f"({active} or {quote(account.opened_at)} > :lethe_since))"
    ).bindparams(
        bindparam("lethe_subject", type_=Text),
        bindparam("lethe_since", type_=DateTime(timezone=True)),
        *(bindparam(name, type_=ARRAY(Text)) for name in _values(account)),
    )


def _values(account: ActiveAccount) -> dict[str, list[str]]:
    return {
        f"lethe_active_{i}": list(account.active[column])
        for i, column in enumerate(sorted(account.active))
    }

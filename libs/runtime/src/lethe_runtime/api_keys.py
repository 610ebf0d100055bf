"""API keys of teams: `lethe_<key id>_<secret>`, sent as `Authorization: Bearer ...`, shown once.

A key belongs to one team and has scopes. Only a digest of its secret is kept, and it is compared in
constant time.
"""

import hashlib
import hmac
import json
import re
import secrets
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from typing import Annotated, Final

import typer
from fastapi import Depends
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from pydantic import SecretStr
from sqlalchemy import Connection
from sqlalchemy.ext.asyncio import AsyncEngine

from lethe_runtime import storage
from lethe_runtime.database import connected, in_words
from lethe_runtime.errors import LetheRuntimeError
from lethe_runtime.problems import Problem

_KEY: Final = re.compile(r"lethe_([a-z0-9]{12})_([A-Za-z0-9_-]{43})")
_TEAM: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
_ALPHABET: Final = "abcdefghijkmnpqrstuvwxyz23456789"
_NOBODY: Final = bytes(32)

_bearer = HTTPBearer(
    scheme_name="TeamKey",
    bearerFormat="lethe_<key id>_<secret>",
    description="The API key of a team, made by `lethe <service> keys create`.",
    auto_error=False,
)


class KeyCommandError(LetheRuntimeError):
    """A key command was given something that it cannot do."""


@dataclass(frozen=True, slots=True)
class Team:
    """Who is asking."""

    name: str


def create_key(connection: Connection, team: str, scopes: Sequence[str]) -> str:
    """Make a key for `team` and return it; it cannot be shown again.

    Raises:
        KeyCommandError: the team's name is not lower-case letters, digits and dashes (63 at most).
    """
    if not _TEAM.fullmatch(team):
        raise KeyCommandError(
            "a team's name is lower-case letters, digits and dashes, at most 63, dash not first"
        )
    key_id = "".join(secrets.choice(_ALPHABET) for _ in range(12))
    secret = secrets.token_urlsafe(32)
    storage.add(
        connection,
        key_id=key_id,
        team=team,
        secret_hash=_digest(secret),
        scopes=sorted(set(scopes)),
    )
    return f"lethe_{key_id}_{secret}"


def require(engine: AsyncEngine, scope: str) -> Callable[..., Awaitable[Team]]:
    """Make a FastAPI dependency that lets only keys with `scope` through and says whose they are.

    It answers 401 to no key and to an unknown or revoked one, and 403 to one without the scope.
    """

    async def team_of(
        given: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)],
    ) -> Team:
        if given is None:
            raise _unauthorised("missing-key", "An API key is needed")
        found = _KEY.fullmatch(given.credentials)
        if found is None:
            raise _unauthorised("unknown-key", "The API key is not known")
        async with engine.connect() as connection:
            stored = await storage.find(connection, found[1])
        same = hmac.compare_digest(stored.secret_hash if stored else _NOBODY, _digest(found[2]))
        if stored is None or not same:
            raise _unauthorised("unknown-key", "The API key is not known")
        if scope not in stored.scopes:
            raise Problem(
                HTTPStatus.FORBIDDEN,
                "missing-scope",
                "The API key does not allow this",
                f"The scope {scope} is needed.",
            )
        return Team(stored.team)

    return team_of


def keys_app(database_url: Callable[[], SecretStr], scopes: Sequence[str]) -> typer.Typer:
    """Make the commands `create`, `list` and `revoke` for a service's group.

    Args:
        database_url: loads the service's settings and returns its database's address.
        scopes: the scopes this service knows.
    """
    app = typer.Typer(help="API keys of teams.", no_args_is_help=True)

    @contextmanager
    def opened() -> Iterator[Connection]:
        lacks = "the database has no API keys of this version; lethe migrate lays their table"
        with in_words("the database", lacks), connected(database_url(), "lethe-keys") as connection:
            yield connection

    @app.command()
    def create(
        team: Annotated[str, typer.Option(help="Whose key it is.")],
        scope: Annotated[list[str], typer.Option(help=f"Of: {', '.join(scopes)}. Repeatable.")],
    ) -> None:
        """Make a key and print it once; only its digest is kept."""
        unknown = sorted(set(scope).difference(scopes))
        if unknown:
            raise KeyCommandError(
                f"no such scope: {', '.join(unknown)}; there are {', '.join(scopes)}"
            )
        with opened() as connection:
            key = create_key(connection, team, scope)
        typer.echo(key)
        typer.echo("Keep it now: it cannot be shown again.", err=True)

    @app.command("list")
    def list_keys(
        *, as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False
    ) -> None:
        """List keys by id, with their team, scopes and dates."""
        with opened() as connection:
            keys = storage.everything(connection)
        if as_json:
            typer.echo(json.dumps([_document(key) for key in keys], indent=2))
        elif keys:
            typer.echo(_table(keys))
        else:
            typer.echo("there are none; keys create makes one", err=True)

    @app.command()
    def revoke(
        key_id: Annotated[str, typer.Argument(metavar="ID", help="As `list` shows it.")],
    ) -> None:
        """Revoke a key for good, at once."""
        with opened() as connection:
            revoked = storage.revoke(connection, key_id)
        if not revoked:
            raise KeyCommandError(
                "there is no such key that is still active; keys list shows which there are"
            )
        typer.echo("revoked")

    return app


def _document(key: storage.StoredKey) -> dict[str, object]:
    return {
        "key_id": key.key_id,
        "team": key.team,
        "scopes": key.scopes,
        "created_at": key.created_at.isoformat(),
        "revoked_at": key.revoked_at.isoformat() if key.revoked_at else None,
    }


def _table(keys: Sequence[storage.StoredKey]) -> str:
    rows = [("id", "team", "scopes", "created", "state"), *map(_row, keys)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )


def _row(key: storage.StoredKey) -> tuple[str, ...]:
    state = f"revoked {key.revoked_at:%Y-%m-%d}" if key.revoked_at else "active"
    return key.key_id, key.team, ",".join(key.scopes), f"{key.created_at:%Y-%m-%d}", state


def _digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()


def _unauthorised(slug: str, title: str) -> Problem:
    return Problem(
        HTTPStatus.UNAUTHORIZED,
        slug,
        title,
        "Send Authorization: Bearer lethe_<key id>_<secret>.",
        headers={"WWW-Authenticate": "Bearer"},
    )

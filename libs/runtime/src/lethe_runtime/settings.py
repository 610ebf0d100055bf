"""Settings: environment variables only, all read at start, all errors told at once, never a value.

A variable is `<prefix><FIELD>`, e.g. `LETHE_INTAKE_HTTP_PORT`; an empty one counts as not set. A
variable that begins with `LETHE_` and that no installed settings class knows is an error, because a
misspelt deadline or window would otherwise silently be the default. Settings classes are found
through the entry-point group `lethe.settings`.
"""

import difflib
import os
from collections.abc import Iterable, Mapping
from importlib.metadata import entry_points
from typing import Annotated, Final, Literal, TypeVar
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from lethe_runtime.errors import LetheRuntimeError

PREFIX: Final = "LETHE_"
ENTRY_POINTS: Final = "lethe.settings"

_NO_URL: Final = "is no URL; write special characters of the password as %XX"

LogLevel = Literal["DEBUG", "INFO", "WARNING", "ERROR"]


def _postgresql(url: SecretStr) -> SecretStr:
    text = url.get_secret_value()
    if not text.startswith("postgresql+psycopg://"):
        raise ValueError("must begin with postgresql+psycopg://")
    try:
        make_url(text)
    except (ArgumentError, ValueError):
        # Their texts quote the URL, and with it the password.
        raise ValueError(_NO_URL) from None
    return url


def _redis(url: SecretStr) -> SecretStr:
    text = url.get_secret_value()
    if not text.startswith(("redis://", "rediss://", "unix://")):
        raise ValueError("must begin with redis://, rediss:// or unix://")
    try:
        urlsplit(text).port  # noqa: B018 - asked for its error alone
    except ValueError:
        raise ValueError(_NO_URL) from None
    return url


DatabaseUrl = Annotated[SecretStr, AfterValidator(_postgresql)]
"""An async SQLAlchemy URL on psycopg 3, kept out of every repr and log."""

RedisUrl = Annotated[SecretStr, AfterValidator(_redis)]
"""A URL as redis-py takes it, likewise."""


class SettingsError(LetheRuntimeError):
    """Settings are not usable; the message lists every variable and what is wrong, no value."""

    def __init__(self, problems: Iterable[tuple[str, str]]) -> None:
        self.problems: Final = tuple(problems)
        lines = (f"  {variable}: {what}" for variable, what in self.problems)
        super().__init__("\n".join(("settings are not usable:", *lines)))


class ServiceSettings(BaseSettings):
    """What every service can be told. Subclasses set their own `env_prefix` and keep it frozen."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        frozen=True,
        extra="ignore",
        env_ignore_empty=True,
        enable_decoding=False,
        hide_input_in_errors=True,
        validate_default=True,
    )

    log_level: LogLevel = "INFO"
    http_host: str = "127.0.0.1"
    http_port: Annotated[int, Field(ge=0, le=65535)]
    """0 takes any free port."""
    sentry_dsn: SecretStr | None = None
    """Where critical log lines also go; kept out of every repr and log."""
    drain_seconds: Annotated[float, Field(gt=0, le=3600)] = 20
    """How long a stopping service may finish what it began; then it is cut off."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Read constructor arguments (tests) and the environment; no files."""
        del settings_cls, dotenv_settings, file_secret_settings
        return init_settings, env_settings


S = TypeVar("S", bound=BaseSettings)


def variables(cls: type[BaseSettings]) -> frozenset[str]:
    """Name every environment variable that `cls` reads."""
    prefix = str(cls.model_config.get("env_prefix") or "")
    return frozenset(f"{prefix}{name}".upper() for name in cls.model_fields)


def installed() -> dict[str, type[BaseSettings]]:
    """Load the settings class of every installed member, by the name of its entry point."""
    return {point.name: point.load() for point in entry_points(group=ENTRY_POINTS)}


def load(cls: type[S]) -> S:
    """Read `cls` from the environment.

    Raises:
        SettingsError: with every missing, wrong and unknown variable at once.
    """
    problems = list(_unknown(cls, os.environ))
    try:
        settings = cls()
    except ValidationError as refused:
        prefix = str(cls.model_config.get("env_prefix") or "")
        problems = [*_refused(prefix, refused), *problems]
        raise SettingsError(problems) from None
    if problems:
        raise SettingsError(problems)
    return settings


def _refused(prefix: str, refused: ValidationError) -> Iterable[tuple[str, str]]:
    for error in refused.errors(include_url=False, include_input=False, include_context=False):
        field = str(error["loc"][0]) if error["loc"] else ""
        variable = f"{prefix}{field}".upper() if field else prefix.rstrip("_")
        what = "is missing" if error["type"] == "missing" else _sentence(error["msg"])
        yield variable, what


def _sentence(message: str) -> str:
    """Drop pydantic's prefix before a validator's own words."""
    return message.removeprefix("Value error, ")


def _unknown(cls: type[BaseSettings], environ: Mapping[str, str]) -> Iterable[tuple[str, str]]:
    own = variables(cls)
    strange = sorted(
        name for name in environ if name.upper().startswith(PREFIX) and name.upper() not in own
    )
    if not strange:
        return
    # Only now: the other members are imported for their names alone, and most starts need none.
    known = own.union(*(variables(other) for other in installed().values()))
    for name in strange:
        if name.upper() in known:
            continue
        near = difflib.get_close_matches(name.upper(), sorted(known), n=1, cutoff=0.7)
        hint = f"; did you mean {near[0]}?" if near else ""
        yield name, f"is not a known variable{hint}"

"""Every `lethe` command with what it needs missing: one line says what, and no traceback.

A command is run in this process by the console script's own function, which lets through what is no
refusal: an error without a line of ours fails its test by itself.
"""

import asyncio
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, Final
from uuid import uuid4

import psycopg
import pytest
import typer
from psycopg import sql
from sqlalchemy.engine import make_url
from tenacity.stop import stop_after_attempt

import lethe_relay.cli
from lethe_contracts.keyring import KeyRing
from lethe_intake.storage import MIGRATIONS, VERSION_TABLE
from lethe_outbox import TopicSpec
from lethe_outbox.kafka import topics
from lethe_relay.topics import specs
from lethe_runtime import cli, database
from lethe_sandbox.stack import Addresses
from tests.support.logs import restored

JOB: Final = "019c1f0e-6f5e-7c3a-9a51-2f0b8f6f9a10"
RING: Final = KeyRing({1: b"1" * 32}).render()
TEAM: Final = ("--team", "crm", "--scope")
WHO: Final = ("--by", "ops", "--reason", "test")

SERVICES: Final = ("intake run", "relay run", "eraser run", "reporting run")
"""They wait for what is away; their own tests hold that."""
SANDBOX: Final = ("demo", "sandbox up", "sandbox down", "sandbox status", "sandbox seed")
"""It brings its own servers and settings."""
ALONE: Final = ("catalog schema", "outbox schema")
"""They need no settings."""
ON_DATABASE: Final[Mapping[str, tuple[str, ...]]] = {
    "intake keys create": (*TEAM, "erasure:write"),
    "intake keys list": (),
    "intake keys revoke": ("someone",),
    "reporting keys create": (*TEAM, "reporting:read"),
    "reporting keys list": (),
    "reporting keys revoke": ("someone",),
    "dlt list": (),
    "dlt show": ("1",),
    "dlt replay": ("1",),
    "dlt discard": ("1", *WHO),
    "outbox status": (),
    "outbox list": (),
    "outbox show": ("1",),
    "outbox requeue": (),
    "outbox purge": ("--older-than", "7d", "--approve-by", "ops"),
    "eraser preview": ("acct-000017",),
    "eraser jobs": (),
    "eraser show": (JOB,),
    "eraser pause": (JOB,),
    "eraser resume": (JOB,),
    "eraser run-now": (JOB, "--confirm"),
    "eraser retry": (JOB,),
    "eraser quarantine list": (),
    "eraser quarantine release": ("erasure.requests.v1/1/1", *WHO),
    "catalog check": (),
    "catalog scaffold": ("public.nothing",),
}
MIGRATING: Final = ("relay", "intake", "eraser", "reporting")
ON_SETTINGS: Final[Mapping[str, tuple[str, ...]]] = {
    **ON_DATABASE,
    **dict.fromkeys(SERVICES, ()),
    "catalog explain": ("upscale",),
    "migrate": (),
    **{f"migrate --only {member}": () for member in MIGRATING},
}


@dataclass(frozen=True, slots=True)
class Said:
    code: int
    lines: list[str]
    """Standard error without the log's lines."""
    out: str


Run = Callable[..., Said]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Run]:
    """Run a command that gives up whatever it waits for at once, with these settings alone."""
    for module in (database, topics):
        monkeypatch.setattr(module, "stop_after_delay", lambda _seconds: stop_after_attempt(1))
    for name in [name for name in os.environ if name.startswith("LETHE_")]:
        monkeypatch.delenv(name)

    def ran(command: str, *arguments: str, **settings: str) -> Said:
        monkeypatch.setattr(sys, "argv", ["lethe", *command.split(), *arguments])
        for name, value in settings.items():
            monkeypatch.setenv(name, value)
        with pytest.raises(SystemExit) as ended:
            cli.main()
        told = capsys.readouterr()
        lines = [line for line in told.err.splitlines() if not line.startswith("{")]
        code = ended.value.code
        return Said(code if isinstance(code, int) else 0, lines, told.out)

    with restored():
        yield ran


def settings(url: str, kafka: str) -> dict[str, str]:
    """Give every member the same database and broker."""
    catalog = str(files("lethe_sandbox") / "catalog.yaml")
    urls = ("INTAKE", "ERASER", "REPORTING", "RELAY_INTAKE", "RELAY_PRODUCT")
    rings = ("INTAKE_SUBJECT_REF", "INTAKE_SUBJECT_CIPHER", "ERASER_SUBJECT_CIPHER")
    return {
        **{f"LETHE_{name}_DATABASE_URL": url for name in urls},
        **{f"LETHE_{member.upper()}_KAFKA_BOOTSTRAP": kafka for member in MIGRATING},
        **{f"LETHE_{name}_KEYS": RING for name in rings},
        "LETHE_ERASER_CATALOG": catalog,
    }


def refused(said: Said, *codes: int) -> str:
    assert said.code in codes, said
    (line,) = said.lines
    assert line.startswith("lethe: ")
    return line


@pytest.fixture(scope="module")
def prepared(stack: Addresses) -> None:
    """The topics of the contract are there."""
    asyncio.run(topics.ensure_topics(stack.kafka, specs(replication_factor=1)))


@pytest.fixture
def stranger(stack: Addresses, database_url: str) -> Iterator[str]:
    """The URL of a role that may connect to this test's database and nothing else."""
    url = make_url(database_url)
    role = f"stranger_{uuid4().hex}"
    admin = stack.database_url(str(url.database), driver="")
    with psycopg.connect(admin, autocommit=True) as connection:
        name = sql.Identifier(role)
        connection.execute(sql.SQL("CREATE ROLE {} LOGIN PASSWORD 'p'").format(name))
    yield url.set(username=role, password="p").render_as_string(hide_password=False)
    with psycopg.connect(admin, autocommit=True) as connection:
        connection.execute(sql.SQL("DROP ROLE {}").format(name))


def walk(command: Any, context: Any, path: tuple[str, ...] = ()) -> Iterator[str]:
    if not hasattr(command, "list_commands"):
        yield " ".join(path)
        return
    for name in command.list_commands(context):
        below = command.get_command(context, name)
        inner = command.context_class(below, parent=context, info_name=name)
        yield from walk(below, inner, (*path, name))


def test_every_command_is_in_a_table_here() -> None:
    root: Any = typer.main.get_command(cli.app)
    found = set(walk(root, root.context_class(root, info_name="lethe")))
    members = {f"migrate --only {one}" for one in MIGRATING}
    assert found == {*SANDBOX, *ALONE, *ON_SETTINGS} - members


@pytest.mark.parametrize("command", ON_SETTINGS)
def test_without_settings_they_are_listed(run: Run, command: str) -> None:
    said = run(command, *ON_SETTINGS[command])

    assert said.code == 2
    assert said.lines[0] == "settings are not usable:"
    assert all(line.startswith("  LETHE_") for line in said.lines[1:])


@pytest.mark.parametrize("command", ON_SETTINGS)
def test_settings_that_are_wrong_are_listed(run: Run, command: str) -> None:
    said = run(command, *ON_SETTINGS[command], **settings("mysql://secret@here/x", "nowhere:1"))

    assert said.code == 2
    assert said.lines[0] == "settings are not usable:"
    assert not [line for line in said.lines if "secret" in line]


@pytest.mark.parametrize("command", ON_DATABASE)
def test_a_database_that_is_away(run: Run, command: str, unused_tcp_port: int) -> None:
    away = f"postgresql+psycopg://a:b@127.0.0.1:{unused_tcp_port}/c"
    said = run(command, *ON_DATABASE[command], **settings(away, "127.0.0.1:1"))

    # `catalog check` answers 2 for whatever keeps a deployment from being allowed.
    assert said.code == (2 if command == "catalog check" else 1)
    # One of each outbox, where a command asks both.
    assert 1 <= len(said.lines) <= 2
    for line in said.lines:
        assert line.startswith("lethe: ")
        assert "does not answer, nobody listens there" in line


@pytest.mark.parametrize("command", ON_DATABASE)
def test_a_database_that_is_not_migrated(run: Run, command: str, database_url: str) -> None:
    said = run(command, *ON_DATABASE[command], **settings(database_url, "127.0.0.1:1"))

    # These ask the product's own tables first; findings are what `check` is asked for.
    says = {
        "catalog check": "the database has none",
        "catalog scaffold": "no such table",
        "eraser preview": "lethe catalog check says where",
    }
    assert said.code in (1, 2), said
    assert says.get(command, "lethe migrate") in " ".join([*said.lines, said.out])


@pytest.mark.parametrize("member", MIGRATING)
def test_nothing_is_migrated_with_kafka_away(
    run: Run, member: str, database_url: str, unused_tcp_port: int
) -> None:
    kafka = f"127.0.0.1:{unused_tcp_port}"
    said = run("migrate", "--only", member, **settings(database_url, kafka))

    line = refused(said, 1)
    assert line.startswith(f"lethe: {member} is not migrated: Kafka does not answer")


@pytest.mark.usefixtures("prepared")
@pytest.mark.parametrize("member", ["intake", "eraser", "reporting"])
@pytest.mark.parametrize("what", ["password", "database", "away"])
def test_nothing_is_migrated_without_the_database(
    run: Run,
    member: str,
    what: str,
    stack: Addresses,
    kafka: str,
    unused_tcp_port: int,
) -> None:
    url = make_url(stack.database_url("postgres"))
    wrong, says = {
        "password": (url.set(password="wrong"), "refuses the user or the password"),
        "database": (url.set(database="nobody_made_it"), "is not there"),
        "away": (url.set(port=unused_tcp_port), "nobody listens there"),
    }[what]
    rendered = wrong.render_as_string(hide_password=False)
    said = run("migrate", "--only", member, **settings(rendered, kafka))

    assert says in refused(said, 1)


@pytest.mark.usefixtures("prepared")
@pytest.mark.parametrize("member", ["intake", "eraser", "reporting"])
def test_nothing_is_migrated_by_a_role_that_may_not(
    run: Run, member: str, stranger: str, kafka: str
) -> None:
    said = run("migrate", "--only", member, **settings(stranger, kafka))

    line = refused(said, 1)
    assert "grant" in line
    assert "stranger" not in line


@pytest.mark.parametrize("command", ["list", "create", "revoke"])
def test_keys_are_not_there_for_a_role_that_may_not(
    run: Run, command: str, stranger: str, database_url: str
) -> None:
    database.migrate(database_url, MIGRATIONS, VERSION_TABLE)
    asked = f"intake keys {command}"
    said = run(asked, *ON_DATABASE[asked], **settings(stranger, "127.0.0.1:1"))

    line = refused(said, 1)
    assert "grant" in line
    assert "lethe migrate" not in line


def test_topics_that_the_brokers_refuse(
    run: Run, kafka: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One broker cannot keep three copies."""
    name = f"refused.{uuid4().hex}"
    monkeypatch.setattr(lethe_relay.cli, "specs", lambda copies: [TopicSpec(name, 1, {}, copies)])
    wanted = settings("postgresql+psycopg://a:b@nowhere/c", kafka)
    said = run("migrate", "--only", "relay", **wanted, LETHE_RELAY_KAFKA_REPLICATION_FACTOR="3")

    assert "InvalidReplicationFactorError" in refused(said, 1)


@pytest.mark.parametrize("command", ALONE)
def test_what_needs_nothing_is_done_without_settings(run: Run, command: str) -> None:
    said = run(command)

    assert (said.code, said.lines) == (0, [])
    assert said.out

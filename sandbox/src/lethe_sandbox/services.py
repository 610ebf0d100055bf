"""How the four services are told about the sandbox, and what they need before they start."""

import base64
import secrets
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from shlex import quote
from typing import Final

import psycopg
from psycopg import sql

from lethe_sandbox.stack import Addresses
from lethe_sandbox.supervisor import Service, Supervisor

DATABASES: Final = ("intake", "product", "reporting")
CATALOG: Final = Path(__file__).with_name("catalog.yaml")
TEAM: Final = "demo"


@dataclass(frozen=True, slots=True)
class ApiKeys:
    """What the demo shows to intake and to reporting."""

    intake: str = field(repr=False)
    reporting: str = field(repr=False)


def create_databases(addresses: Addresses) -> None:
    """Create the databases of the services and of the product, unless they are there."""
    with psycopg.connect(addresses.database_url("postgres", driver=""), autocommit=True) as admin:
        there = {name for (name,) in admin.execute("SELECT datname FROM pg_database")}
        for name in DATABASES:
            if name not in there:
                admin.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))


def services(addresses: Addresses, *, batch_rows: int) -> tuple[Service, ...]:
    """Give the four services an environment each, with fresh keys; the window is always open.

    Args:
        addresses: where the servers answer.
        batch_rows: client rows per batch of the eraser.
    """
    refs, cipher = _key_ring(), _key_ring()
    common = {"KAFKA_BOOTSTRAP": addresses.kafka}
    return (
        _service(
            "relay",
            common
            | {
                "INTAKE_DATABASE_URL": addresses.database_url("intake"),
                "PRODUCT_DATABASE_URL": addresses.database_url("product"),
            },
        ),
        _service(
            "intake",
            common
            | {
                "DATABASE_URL": addresses.database_url("intake"),
                "REDIS_URL": f"{addresses.redis_url}/0",
                "SUBJECT_REF_KEYS": refs,
                "SUBJECT_CIPHER_KEYS": cipher,
            },
        ),
        _service(
            "eraser",
            common
            | {
                "DATABASE_URL": addresses.database_url("product"),
                "REDIS_URL": f"{addresses.redis_url}/1",
                "CATALOG": str(CATALOG),
                "SUBJECT_CIPHER_KEYS": cipher,
                "WINDOW": "always",
                "S3_ENDPOINT_URL": addresses.s3.endpoint,
                "S3_REGION": addresses.s3.region,
                "S3_ACCESS_KEY_ID": addresses.s3.access_key_id,
                "S3_SECRET_ACCESS_KEY": addresses.s3.secret_access_key,
                "BATCH_ROWS": str(batch_rows),
            },
        ),
        _service(
            "reporting",
            common
            | {
                "DATABASE_URL": addresses.database_url("reporting"),
                "REDIS_URL": f"{addresses.redis_url}/2",
            },
        ),
    )


def migrate(supervisor: Supervisor, everyone: tuple[Service, ...]) -> None:
    """Run `lethe migrate`, which makes topics, schemas and consumer groups."""
    supervisor.run_once(["migrate"], _merged(everyone))


def create_keys(supervisor: Supervisor, everyone: tuple[Service, ...]) -> ApiKeys:
    """Make an API key each for intake and reporting, as an operator would."""
    environment = _merged(everyone)

    def create(service: str, *scopes: str) -> str:
        wanted = [part for scope in scopes for part in ("--scope", scope)]
        arguments = [service, "keys", "create", "--team", TEAM, *wanted]
        return supervisor.run_once(arguments, environment).split()[0]

    with ThreadPoolExecutor(2) as pool:
        intake = pool.submit(create, "intake", "erasure:write", "erasure:read")
        reporting = pool.submit(create, "reporting", "reporting:read")
        return ApiKeys(intake.result(), reporting.result())


def write_environment(path: Path, everyone: tuple[Service, ...], keys: ApiKeys) -> None:
    """Write every variable to a file for its owner alone, for a shell (`set -a; . FILE`).

    The shell finds `lethe` too, which is in no other shell's path.
    """
    path.touch(mode=0o600)
    values = _merged(everyone)
    # An operator's previews need it; the eraser that runs does not, and has it not.
    values["LETHE_ERASER_SUBJECT_REF_KEYS"] = values["LETHE_INTAKE_SUBJECT_REF_KEYS"]
    lines = [f"{name}='{value}'" for name, value in values.items()]
    lines += [f"INTAKE_KEY='{keys.intake}'", f"REPORTING_KEY='{keys.reporting}'"]
    lines.append(f"PATH={quote(str(Path(sys.executable).parent))}:$PATH")
    path.write_text("\n".join([*lines, ""]))


def _service(name: str, values: Mapping[str, str]) -> Service:
    prefix = f"LETHE_{name.upper()}_"
    environment = {prefix + variable: value for variable, value in values.items()}
    return Service(name, environment, port_variable=f"{prefix}HTTP_PORT")


def _merged(everyone: tuple[Service, ...]) -> dict[str, str]:
    return {name: value for one in everyone for name, value in one.environment.items()}


def _key_ring() -> str:
    key = base64.urlsafe_b64encode(secrets.token_bytes(32)).decode().rstrip("=")
    return f"1:{key}"

import asyncio
from pathlib import Path
from uuid import uuid4

import pytest
from sqlalchemy import URL, make_url, text
from sqlalchemy.exc import OperationalError

from lethe_runtime import database
from lethe_runtime.database import (
    TRANSIENT,
    DatabaseAwayError,
    DatabaseProbe,
    NotMigratedError,
    create_engine,
    disposing,
)
from lethe_runtime.database_away import Away, why_away

FIRST = '''
"""Things."""
import sqlalchemy as sa
from alembic import op
revision = "0001"
down_revision = None
def upgrade():
    op.create_table("thing", sa.Column("id", sa.Integer), schema="lethe")
'''

BROKEN = '''
"""More."""
import sqlalchemy as sa
from alembic import op
revision = "0002"
down_revision = "0001"
def upgrade():
    op.create_table("more", sa.Column("id", sa.Integer), schema="lethe")
    op.execute("select no_such_column")
'''


@pytest.fixture
def migrations(tmp_path: Path) -> Path:
    versions = tmp_path / "100% ours" / "versions"
    versions.mkdir(parents=True)
    (versions / "0001_things.py").write_text(FIRST)
    return versions.parent


async def test_a_database_is_brought_to_the_head_once(database_url: str, migrations: Path) -> None:
    engine = create_engine(database_url, application_name="test")
    async with disposing(engine):
        probe = DatabaseProbe(engine, migrations, "alembic_version_sample")
        with pytest.raises(NotMigratedError, match="is at nothing, this program needs 0001"):
            await probe.ask()

        assert database.migrate(database_url, migrations, "alembic_version_sample") == "0001"
        assert database.migrate(database_url, migrations, "alembic_version_sample") == "0001"

        await probe.ask()
        async with engine.connect() as connection:
            query = text("select version_num from lethe.alembic_version_sample")
            assert (await connection.execute(query)).scalars().all() == ["0001"]
            assert (await connection.execute(text("show timezone"))).scalar_one() == "UTC"
            named = await connection.execute(text("show application_name"))
            assert named.scalar_one() == "test"


async def test_a_program_waits_for_the_migration_it_needs(
    database_url: str, migrations: Path
) -> None:
    database.migrate(database_url, migrations, "alembic_version_sample")
    later = BROKEN.replace('op.execute("select no_such_column")', "")
    (migrations / "versions" / "0002_more.py").write_text(later)
    engine = create_engine(database_url, application_name="test")
    async with disposing(engine):
        probe = DatabaseProbe(engine, migrations, "alembic_version_sample")
        with pytest.raises(NotMigratedError, match="is at 0001, this program needs 0002"):
            await probe.ask()
        assert database.migrate(database_url, migrations, "alembic_version_sample") == "0002"
        await probe.ask()


async def test_migrations_at_the_same_time_take_turns(database_url: str, migrations: Path) -> None:
    reached = await asyncio.gather(
        *(
            asyncio.to_thread(database.migrate, database_url, migrations, "alembic_version_sample")
            for _ in range(4)
        )
    )

    assert reached == ["0001"] * 4


async def test_a_migration_that_fails_leaves_nothing(database_url: str, migrations: Path) -> None:
    (migrations / "versions" / "0002_more.py").write_text(BROKEN)

    with pytest.raises(Exception, match="no_such_column"):
        database.migrate(database_url, migrations, "alembic_version_sample")

    with database.connected(database_url, "test") as connection:
        found = connection.execute(text("select to_regclass('lethe.thing')")).scalar_one()
    assert found is None


def test_a_command_gives_up_waiting(capsys: pytest.CaptureFixture[str]) -> None:
    nowhere = "postgresql+psycopg://who:s3cret@127.0.0.1:1/db"

    with (
        pytest.raises(DatabaseAwayError) as caught,
        database.connected(nowhere, "test", give_up_seconds=0.1),
    ):
        raise AssertionError("nobody is there")

    said = "waited for 0.1 s in vain: the database does not answer, nobody listens there"
    assert str(caught.value).startswith(said)
    assert "s3cret" not in str(caught.value) + capsys.readouterr().out


async def test_it_is_told_why_the_database_lets_nobody_in(database_url: str) -> None:
    url = make_url(database_url)
    role = f"role_{uuid4().hex}"
    engine = create_engine(database_url, application_name="test")
    async with disposing(engine):
        async with engine.begin() as connection:
            await connection.execute(
                text(f"create role {role} login password 's3cret' connection limit 0")
            )
        refused = {
            "28P01": url.set(password="wr0ng"),
            "3D000": url.set(database="no_such_database"),
            "tls": url.update_query_dict({"sslmode": "require"}),
            "refused": url.set(port=1),
            "53300": url.set(username=role, password="s3cret"),
        }
        try:
            for reason, wrong in refused.items():
                away = await why(wrong)
                assert away.reason == reason
                for secret in ("s3cret", "wr0ng", role, "no_such_database", str(url.port)):
                    assert secret not in str(away)
        finally:
            async with engine.begin() as connection:
                await connection.execute(text(f"drop role {role}"))


async def why(url: URL) -> Away:
    engine = create_engine(url.render_as_string(hide_password=False), application_name="test")
    async with disposing(engine):
        with pytest.raises(TRANSIENT) as caught:
            await database.ping(engine)
    return why_away(caught.value)


async def test_a_statement_is_cut_off_in_time(database_url: str) -> None:
    engine = create_engine(database_url, application_name="test", statement_seconds=0.05)
    async with disposing(engine), engine.connect() as connection:
        with pytest.raises(OperationalError, match="statement timeout"):
            await connection.execute(text("select pg_sleep(5)"))

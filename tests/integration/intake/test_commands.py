"""What an operator types: migrate, keys, and settings that are wrong."""

import json
from datetime import datetime

import pytest

from tests.integration.intake.conftest import Intake
from tests.support.forked import lethe
from tests.support.intake import environment, prepare_kafka


async def test_migrating_makes_tables_and_group_and_may_be_repeated(
    database_url: str, kafka: str
) -> None:
    await prepare_kafka(kafka)
    variables = environment(database_url, kafka)

    for _ in range(2):
        done = lethe(variables, "migrate", "--only", "intake")
        assert (done.returncode, done.stdout) == (0, "intake: at 0004\n"), done.stderr
        assert done.stderr == ""


async def test_a_key_is_made_used_listed_and_revoked(
    intake: Intake, intake_url: str, kafka: str
) -> None:
    variables = environment(intake_url, kafka)
    scopes = ("--scope", "erasure:write", "--scope", "erasure:read")
    none = lethe(variables, "intake", "keys", "list")
    assert (none.returncode, none.stdout, none.stderr[:14]) == (0, "", "there are none")
    assert lethe(variables, "intake", "keys", "list", "--json").stdout == "[]\n"
    made = lethe(variables, "intake", "keys", "create", "--team", "crm", *scopes)
    assert made.returncode == 0, made.stderr
    key = made.stdout.strip()
    body = {"subject": "acct-000017", "reason": "account_withdrawn"}

    assert (await intake.post(body, key)).status_code == 202

    listed = lethe(variables, "intake", "keys", "list").stdout
    key_id, secret = key.split("_", 2)[1:]
    heading, row = listed.splitlines()
    assert heading.split() == ["id", "team", "scopes", "created", "state"]
    assert row.split()[:3] == [key_id, "crm", "erasure:read,erasure:write"]
    assert listed.endswith("active\n")
    assert secret not in listed

    assert lethe(variables, "intake", "keys", "revoke", key_id).stdout == "revoked\n"
    revoked = lethe(variables, "intake", "keys", "list").stdout.splitlines()[1]
    assert revoked.index("revoked 20") == heading.index("state")
    told = lethe(variables, "intake", "keys", "list", "--json").stdout
    assert secret not in told
    (document,) = json.loads(told)
    assert datetime.fromisoformat(document.pop("created_at")) < datetime.fromisoformat(
        document.pop("revoked_at")
    )
    assert document == {
        "key_id": key_id,
        "team": "crm",
        "scopes": ["erasure:read", "erasure:write"],
    }
    assert (await intake.post(body, key)).status_code == 401
    again = lethe(variables, "intake", "keys", "revoke", key_id)
    assert (again.returncode, again.stdout) == (1, "")
    assert again.stderr == (
        "lethe: there is no such key that is still active; keys list shows which there are\n"
    )


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (("--team", "crm", "--scope", "erasure:wirte"), "no such scope: erasure:wirte"),
        (("--team", "CRM team", "--scope", "erasure:write"), "a team's name is lower-case"),
    ],
)
def test_a_key_that_makes_no_sense_is_refused(
    intake_url: str, kafka: str, arguments: tuple[str, ...], what: str
) -> None:
    refused = lethe(environment(intake_url, kafka), "intake", "keys", "create", *arguments)

    assert (refused.returncode, refused.stdout) == (1, "")
    assert what in refused.stderr
    assert "Traceback" not in refused.stderr


def test_settings_that_are_wrong_are_listed_together(intake_url: str, kafka: str) -> None:
    variables = environment(intake_url, kafka)
    del variables["LETHE_INTAKE_KAFKA_BOOTSTRAP"]
    variables["LETHE_INTAKE_SUBJECT_ZONES"] = "Asia/Seoul"
    variables["LETHE_INTAKE_HTTP_PORT"] = "acct-000017"
    refused = lethe(variables, "intake", "run")

    assert (refused.returncode, refused.stdout) == (2, "")
    assert refused.stderr.splitlines() == [
        "settings are not usable:",
        (
            "  LETHE_INTAKE_HTTP_PORT: Input should be a valid integer, "
            "unable to parse string as an integer"
        ),
        "  LETHE_INTAKE_KAFKA_BOOTSTRAP: is missing",
        (
            "  LETHE_INTAKE_SUBJECT_ZONES: is not a known variable; "
            "did you mean LETHE_INTAKE_SUBJECT_ZONE?"
        ),
    ]

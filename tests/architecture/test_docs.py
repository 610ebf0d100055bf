"""What the documents quote exists: commands, variables with their defaults, files, links."""

import os
import re
import subprocess
from functools import cache
from pathlib import Path

import pytest
import yaml
from pydantic import SecretStr
from pydantic_core import PydanticUndefined
from typer.testing import CliRunner

from lethe_contracts.keyring import KeyRing
from lethe_contracts.topics import TOPICS
from lethe_relay.topics import specs
from lethe_runtime.cli import app
from lethe_runtime.settings import installed, variables
from tests.architecture.test_help import COMMANDS
from tests.support.tools import ROOT

SANDBOX = ("demo", "sandbox")
"""What is for trying out, told by the README and `make help`."""
SERVICES = ("intake", "relay", "eraser", "reporting")
PAGES = sorted(
    path
    for pattern in ("*.md", "docs/**/*.md", "libs/*/README.md", "services/*/README.md")
    for path in ROOT.glob(pattern)
)
OPERATIONS = ROOT / "docs" / "operations.md"
BLOCK = re.compile(r"^( *)```(\w*)[^\n]*\n(.*?)^\1```", re.MULTILINE | re.DOTALL)
SPAN = re.compile(r"`([^`\n]+)`")
LETHE = re.compile(r"(?:^|\s)lethe((?: [a-z][a-z|-]*(?=[ \s`]|$))+)((?: [^\n#|;&]*)?)")
LOCAL = re.compile(r"http://localhost:(\d+)")
WITHIN = re.compile(r"docker-compose exec (?:-T )?(\w+)")
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def code(page: Path) -> list[str]:
    """Every line of code on a page: in blocks and in spans."""
    text = page.read_text()
    lines = [line for _, _, block in BLOCK.findall(text) for line in block.splitlines()]
    return [*lines, *SPAN.findall(BLOCK.sub("", text))]


@cache
def quoted() -> dict[str, set[str]]:
    """Every `lethe ...` with the options it is quoted with; `a|b` is two commands."""
    found: dict[str, set[str]] = {}
    for page in PAGES:
        for line in code(page):
            for words, rest in LETHE.findall(line):
                for command in _alternatives(words.split()):
                    options = set(re.findall(r"(?<!\S)(--[a-z][a-z-]*)", rest))
                    found.setdefault(command, set()).update(options)
    return found


def _alternatives(words: list[str]) -> list[str]:
    commands = [""]
    for word in words:
        commands = [f"{command} {choice}" for command in commands for choice in word.split("|")]
    return [command.strip() for command in commands]


def test_the_documents_quote_commands() -> None:
    assert {"outbox status", "outbox requeue", "dlt list", "dlt replay"} <= quoted().keys()


@pytest.mark.parametrize("command", sorted(quoted()))
def test_a_quoted_command_exists_with_its_options(command: str) -> None:
    words = command.split()
    said = CliRunner().invoke(app, [*words, "--help"], env={"COLUMNS": "200"})
    assert said.exit_code == 0, said.output
    # A word too many would be an argument, and the help that of the group before it.
    assert f"Usage: lethe {command} " in " ".join(said.output.split()) + " "
    missing = [option for option in quoted()[command] - {"--help"} if option not in said.output]
    assert missing == []


def test_every_command_is_on_the_operations_page() -> None:
    told = {words.strip() for line in code(OPERATIONS) for words, _ in LETHE.findall(line)}
    groups = {words[:length] for words in COMMANDS for length in range(len(words))}
    there = {" ".join(words) for words in {*COMMANDS} - groups if words[0] not in SANDBOX}
    assert there - told == set()


def test_what_a_runbook_asks_from_outside_is_published_by_compose() -> None:
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    published = {
        port
        for service in services.values()
        for mapping in service.get("ports", ())
        for port in re.findall(r":-(\d+)}", mapping)
    }
    pages = (OPERATIONS, *(ROOT / "docs" / "runbooks").glob("*.md"))
    lines = [(page, line) for page in pages for line in code(page)]
    asked = [(name(page), port) for page, line in lines for port in LOCAL.findall(line)]
    assert len(asked) > 10
    assert [(page, port) for page, port in asked if port not in published] == []
    within = [(name(page), of) for page, line in lines for of in WITHIN.findall(line)]
    assert len(within) > 20
    assert [(page, of) for page, of in within if of not in services] == []


def test_a_size_that_a_topic_is_to_be_given_is_the_agreed_one() -> None:
    agreed = {spec.name: spec.config["max.message.bytes"] for spec in specs(1)}
    told = re.compile(r"--entity-name (\S+) --add-config max\.message\.bytes=(\d+)")
    found = [place for page in PAGES for place in told.findall(page.read_text())]
    assert {topic for topic, _ in found} & set(TOPICS)
    assert [(topic, size) for topic, size in found if agreed[topic] != size] == []


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_a_link_to_a_file_leads_somewhere(page: Path) -> None:
    broken = [
        link
        for link in LINK.findall(BLOCK.sub("", page.read_text()))
        if not link.startswith(("http://", "https://", "mailto:", "#"))
        and not (page.parent / link.partition("#")[0]).exists()
    ]
    assert broken == []


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_a_variable_of_ours_is_one_of_somebodys_settings(page: Path) -> None:
    known = set[str]().union(*(variables(cls) for cls in installed().values()))
    groups = "|".join(service.upper() for service in SERVICES)
    named = set(re.findall(rf"LETHE_(?:{groups})_[A-Z0-9_]*[A-Z0-9]\b", page.read_text()))
    assert named <= known


def settings_table(service: str) -> dict[str, str]:
    section = OPERATIONS.read_text().split(f"\n### {service}\n", 1)[1].split("\n#", 1)[0]
    rows = re.findall(r"^\| `(LETHE_\w+)` \| (\S+) \| (.+) \|$", section, re.MULTILINE)
    assert all(meaning for _, _, meaning in rows)
    return {variable: default.strip("`") for variable, default, _ in rows}


@pytest.mark.parametrize("service", SERVICES)
def test_every_setting_is_documented_with_its_default(service: str) -> None:
    settings = installed()[service]
    prefix = f"LETHE_{service.upper()}_"
    expected = {}
    for field_name, field in settings.model_fields.items():
        value = field.default
        if value is PydanticUndefined:
            shown = "required"
        elif value is None:
            shown = "none"
        else:
            assert not isinstance(value, SecretStr)
            shown = f"{value:g}" if isinstance(value, float) else str(value)
            # As it is written in an environment.
            shown = shown.lower() if isinstance(value, bool) else shown
        expected[prefix + field_name.upper()] = shown
    assert settings_table(service) == expected


def test_the_ports_of_the_processes_are_their_defaults() -> None:
    text = OPERATIONS.read_text()
    for service in SERVICES:
        row = next(line for line in text.splitlines() if line.startswith(f"| {service} |"))
        port = installed()[service].model_fields["http_port"].default
        assert f"| {port} |" in row


def test_the_block_that_writes_the_environment_file_writes_what_is_asked_for(
    tmp_path: Path,
) -> None:
    block = next(
        body for _, _, body in BLOCK.findall(OPERATIONS.read_text()) if "cat > .env" in body
    )
    subprocess.run(
        ["bash", "-euc", block], cwd=tmp_path, check=True, env={"PATH": os.environ["PATH"]}
    )
    written = tmp_path / ".env"
    assert written.stat().st_mode & 0o077 == 0
    values = dict(line.split("=", 1) for line in written.read_text().splitlines())
    example = (ROOT / ".env.example").read_text()
    assert values.keys() == set(re.findall(r"^([A-Z_0-9]+)=$", example, re.MULTILINE))
    assert len(set(values.values())) == len(values)
    for variable, value in values.items():
        if variable.endswith("_KEYS"):
            KeyRing.parse(value)
        else:
            assert re.fullmatch(r"[0-9a-f]{48}", value)


EACH = ("LETHE_ERASER_ROWS_PER_SECOND", "LETHE_ERASER_S3_PREFIX_KEYS_PER_SECOND")


@pytest.mark.parametrize(
    "page",
    [page for page in PAGES if re.search(r"start more erasers", page.read_text())],
    ids=name,
)
def test_who_is_told_to_start_more_erasers_is_told_that_budgets_count_for_each(page: Path) -> None:
    text = page.read_text()
    assert all(budget in text for budget in EACH)
    assert "divided by N" in text


def test_the_budgets_of_several_erasers_stand_where_scaling_does() -> None:
    scaling = OPERATIONS.read_text().partition("**Scaling.**")[2].partition("\n**")[0]
    rows = {cells[0].strip("`"): cells[1:] for cells in _table_rows(scaling)}
    for budget in EACH:
        alone, of_four, _ = rows[budget]
        assert int(of_four) * 4 == int(alone)
        assert alone == str(installed()["eraser"].model_fields[_field(budget)].default)


def _table_rows(text: str) -> list[list[str]]:
    lines = [line for line in text.splitlines() if line.startswith("| `")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def _field(variable: str) -> str:
    return variable.removeprefix("LETHE_ERASER_").lower()

"""docker-compose.yml and the Dockerfile, held to the code: variables, commands, files, ports.

No Docker engine is needed: docker-compose reads the file and says what it understood.
"""

import re
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from lethe_runtime.cli import app
from lethe_runtime.settings import installed, load, variables
from tests.support.compose import SERVICES, filled_environment, mounts, services, understood
from tests.support.tools import ROOT, run

COMPOSE = ROOT / "docker-compose.yml"
DOCKERFILE = ROOT / "Dockerfile"
OURS = (*SERVICES, "migrate")
ONCE = ("databases", "migrate")
BY_HAND = ("preview",)
INTERPOLATED = re.compile(r"(?<!\$)\$\{(\w+)(?::-([^}]*))?\}")
HOST = re.compile(r"^[\w-]+(\.[\w-]+)+(:\d+)?/|^localhost[:/]")


def test_docker_compose_takes_the_file_as_it_is_cloned() -> None:
    run("docker-compose", "config", "-q")


def test_everything_that_belongs_to_lethe_is_there() -> None:
    assert set(services()) == {
        *("postgres", "kafka", "redis", "s3"),
        *ONCE,
        *BY_HAND,
        *SERVICES,
        *("prometheus", "alertmanager", "grafana"),
    }


@pytest.mark.parametrize("service", sorted(services()))
def test_an_image_is_pinned_and_named_without_a_host(service: str) -> None:
    image = services()[service]["image"]
    name, _, tag = image.partition(":")
    assert re.search(r"\d", tag), f"{image} is not pinned"
    assert "latest" not in tag
    assert not HOST.match(f"{name}/")


def test_the_servers_are_those_the_tests_run_on() -> None:
    sandbox = (ROOT / "sandbox/src/lethe_sandbox/stack/docker.py").read_text()
    for server in ("postgres", "kafka", "redis", "s3"):
        assert f'"{services()[server]["image"]}"' in sandbox


@pytest.mark.parametrize("service", sorted(services()))
def test_what_keeps_running_has_a_health_check_and_comes_back(service: str) -> None:
    definition = services()[service]
    if service in (*ONCE, *BY_HAND):
        assert definition["restart"] == "no"
        return
    assert definition["healthcheck"]["test"][0] == "CMD"
    assert definition["restart"] == "unless-stopped"


@pytest.mark.parametrize("service", sorted(services()))
def test_what_is_waited_for_can_come(service: str) -> None:
    for other, how in services()[service].get("depends_on", {}).items():
        condition = "service_completed_successfully" if other in ONCE else "service_healthy"
        assert how["condition"] == condition


def test_services_start_after_the_migration_and_the_migration_after_the_servers() -> None:
    for service in SERVICES:
        assert "migrate" in services()[service]["depends_on"]
    assert services()["migrate"]["depends_on"].keys() == {"databases", "kafka"}
    assert services()["databases"]["depends_on"].keys() == {"postgres"}


def test_only_who_must_can_tell_whose_reference_is_whose() -> None:
    """The eraser that runs all day works by references; a preview, by hand, begins with a name."""
    eraser, preview = services()["eraser"], services()["preview"]
    holders = {
        service
        for service, definition in services().items()
        if any(name.endswith("SUBJECT_REF_KEYS") for name in definition.get("environment", ()))
    }
    assert holders == {"intake", "migrate", "preview"}
    added = preview["environment"].keys() - eraser["environment"].keys()
    assert added == {"LETHE_ERASER_SUBJECT_REF_KEYS"}
    assert eraser["environment"].items() <= preview["environment"].items()
    assert preview["volumes"] == eraser["volumes"]
    # `up` starts nothing that has a profile; `run` puts its arguments behind the entrypoint.
    assert preview["profiles"]
    assert preview["entrypoint"] == ["lethe", "eraser", "preview"]


@pytest.mark.parametrize("service", [*OURS, *BY_HAND])
def test_a_container_of_ours_may_do_as_little_as_possible(service: str) -> None:
    definition = services()[service]
    assert definition["read_only"] is True
    assert definition["cap_drop"] == ["ALL"]
    assert definition["security_opt"] == ["no-new-privileges:true"]
    assert "privileged" not in definition
    assert "user" not in definition  # the image's own, which is not root


@pytest.mark.parametrize("service", SERVICES)
def test_every_variable_of_a_service_is_one_of_its_settings(service: str) -> None:
    settings = installed()[service]
    given = set(services()[service]["environment"])
    required = {
        f"LETHE_{service}_{name}".upper()
        for name, field in settings.model_fields.items()
        if field.is_required()
    }
    assert given <= variables(settings)
    assert required <= given


def test_the_migration_knows_what_the_services_know() -> None:
    given = services()["migrate"]["environment"]
    for service in SERVICES:
        assert services()[service]["environment"].items() <= given.items()
    assert set(given) <= set[str]().union(*(variables(cls) for cls in installed().values()))


@pytest.mark.parametrize("service", OURS)
def test_every_command_is_one_of_the_cli(service: str) -> None:
    command = services()[service]["command"]
    said = CliRunner().invoke(app, [*command, "--help"])
    assert said.exit_code == 0, said.output
    assert " ".join(("Usage: lethe", *command)) in " ".join(said.output.split())


@pytest.mark.parametrize("service", SERVICES)
def test_filled_in_the_example_gives_a_service_settings_it_accepts(
    monkeypatch: pytest.MonkeyPatch, service: str
) -> None:
    for name, value in filled_environment(service).items():
        monkeypatch.setenv(name, value)
    load(installed()[service])


def test_the_example_names_every_variable_with_its_default() -> None:
    asked = {(name, default) for name, default in INTERPOLATED.findall(COMPOSE.read_text())}
    named = {
        (name.lstrip("#"), value)
        for name, _, value in (
            line.partition("=")
            for line in (ROOT / ".env.example").read_text().splitlines()
            if re.match(r"#?[A-Z_0-9]+=", line)
        )
    }
    assert named == asked


def test_secrets_stand_in_the_environment_file_only() -> None:
    text = COMPOSE.read_text()
    for name, value in re.findall(r"(\w*(?:PASSWORD|SECRET\w*|_KEYS))\s*: (.+)", text):
        assert value.startswith("${"), f"{name} has a value in the file"
    ignored = (ROOT / ".gitignore").read_text().splitlines()
    assert ".env" in ignored


@pytest.mark.parametrize("service", sorted(services()))
def test_every_mounted_file_is_in_the_tree(service: str) -> None:
    volumes = understood()["volumes"]
    for source, _ in mounts(service):
        if source not in volumes:
            assert Path(source).is_relative_to(ROOT)
            assert Path(source).exists(), f"{source} is not in the tree"
            assert any(
                mount.startswith(source) and mount.endswith(":ro")
                for mount in services()[service]["volumes"]
            )


def test_every_volume_is_used() -> None:
    used = {source for service in services() for source, _ in mounts(service)}
    assert set(understood()["volumes"]) <= used


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_is_asked_on_the_port_it_listens_on(service: str) -> None:
    port = installed()[service].model_fields["http_port"].default
    definition = services()[service]
    assert f"LETHE_{service.upper()}_HTTP_PORT" not in definition["environment"]
    assert f"http://127.0.0.1:{port}/readyz" in definition["healthcheck"]["test"][-1]
    for published in definition.get("ports", ()):
        assert published == f"127.0.0.1:{port}:{port}/tcp"
    scraped = {
        job["job_name"]: job["dns_sd_configs"][0]
        for job in yaml.safe_load((ROOT / "alerts/prometheus.yml").read_text())["scrape_configs"]
        if "dns_sd_configs" in job
    }
    assert scraped[service]["port"] == port
    assert scraped[service]["names"] == [service]
    assert str(port) in re.findall(r"\d+", _instruction("EXPOSE"))


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_has_longer_to_stop_than_it_needs(service: str) -> None:
    drain = installed()[service].model_fields["drain_seconds"].default
    assert int(services()[service]["stop_grace_period"].rstrip("s")) > drain


def test_addresses_name_services_of_this_file_and_their_ports() -> None:
    listening = {"postgres": 5432, "kafka": 9092, "redis": 6379, "s3": 7070}
    named = {
        (host, int(port))
        for service in OURS
        for value in services()[service]["environment"].values()
        for host, port in re.findall(r"\b([a-z][a-z0-9]+):(\d{4})\b", value)
    }
    assert named == set(listening.items())
    config = (ROOT / "alerts/grafana/provisioning/datasources/prometheus.yml").read_text()
    assert set(re.findall(r"http://([a-z]+:\d+)", config)) == {
        "prometheus:9090",
        "alertmanager:9093",
    }


def test_runbooks_are_served_where_the_alerts_say() -> None:
    base = yaml.safe_load((ROOT / "alerts/prometheus.yml").read_text())["global"][
        "external_labels"
    ]["runbooks"]
    assert base == "http://localhost:3000/public/runbooks"
    assert (str(ROOT / "docs/runbooks"), "/usr/share/grafana/public/runbooks") in mounts("grafana")
    assert services()["grafana"]["ports"] == ["127.0.0.1:3000:3000/tcp"]


def test_dashboards_are_mounted_where_the_provisioning_looks() -> None:
    provider = yaml.safe_load(
        (ROOT / "alerts/grafana/provisioning/dashboards/lethe.yml").read_text()
    )["providers"][0]
    targets = {target: source for source, target in mounts("grafana")}
    assert targets[provider["options"]["path"]] == str(ROOT / "alerts/grafana/dashboards")
    home = services()["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert (ROOT / "alerts/grafana/dashboards" / Path(home).name).is_file()


def test_secrets_of_alertmanager_are_mounted_where_it_reads_them() -> None:
    config = (ROOT / "alerts/alertmanager.yml").read_text()
    read = set(re.findall(r"_file: /run/secrets/(\w+)", config))
    given = {secret["source"] for secret in services()["alertmanager"]["secrets"]}
    assert read == given == set(understood()["secrets"])


# --- the image ------------------------------------------------------------------------------------


def _instructions() -> list[tuple[str, str]]:
    text = DOCKERFILE.read_text().replace("\\\n", " ")
    lines = (line.strip() for line in text.splitlines())
    return [
        (word, " ".join(rest.split()))
        for word, _, rest in (line.partition(" ") for line in lines if line and line[0] != "#")
    ]


def _instruction(word: str) -> str:
    return [rest for found, rest in _instructions() if found == word][-1]


def test_the_image_is_built_in_stages_on_pinned_images_without_a_host() -> None:
    bases = [rest.split()[0] for word, rest in _instructions() if word == "FROM"]
    assert len(bases) > 1
    assert len(set(bases)) == 1, "built with one Python, run with another"
    for base in bases:
        assert re.search(r":\d+\.\d+\.\d+", base)
        assert not HOST.match(base)


def test_the_image_is_not_run_by_root() -> None:
    words = [word for word, _ in _instructions()]
    assert _instruction("USER") == "10001:10001"
    assert words.index("USER") < words.index("ENTRYPOINT")
    assert "RUN" not in words[words.index("USER") :]


def test_the_image_takes_what_is_there_and_the_context_lets_it_through() -> None:
    let_through = {
        line[1:]
        for line in (ROOT / ".dockerignore").read_text().splitlines()
        if line.startswith("!")
    }
    copied = {
        rest.split()[0]
        for word, rest in _instructions()
        if word == "COPY" and not rest.startswith("--from")
    }
    assert copied == let_through
    assert all((ROOT / source).exists() for source in copied)


def test_the_image_installs_the_locked_versions_of_every_service_and_library() -> None:
    command = next(rest for word, rest in _instructions() if "uv pip install" in rest)
    assert "--constraint requirements.lock" in command
    members = {path.parent for path in ROOT.glob("libs/*/pyproject.toml")}
    members |= {path.parent for path in ROOT.glob("services/*/pyproject.toml")}
    named = set(re.findall(r"\./([\w/]+)", command))
    assert named == {str(member.relative_to(ROOT)) for member in members}


def test_the_entry_point_is_the_one_command() -> None:
    assert _instruction("ENTRYPOINT") == '["lethe"]'
    version = re.search(
        r'^version = "(.+)"', (ROOT / "libs/runtime/pyproject.toml").read_text(), re.MULTILINE
    )
    assert version
    assert services()["intake"]["image"] == f"lethe:{version[1]}"


def test_builders_of_python_come_from_the_same_uv_as_the_lock_says() -> None:
    """uv builds members with its own backend only while it is within the members' bounds."""
    pinned = re.search(r"uv==(\d+)\.(\d+)\.(\d+)", DOCKERFILE.read_text())
    assert pinned
    minor = int(pinned[2])
    for project in (*ROOT.glob("libs/*/pyproject.toml"), *ROOT.glob("services/*/pyproject.toml")):
        bounds = re.search(r"uv_build>=0\.(\d+),<0\.(\d+)", project.read_text())
        assert bounds
        assert int(bounds[1]) <= minor < int(bounds[2])

"""Every alert is valid, tested on both sides of its threshold, routed, and has a runbook."""

import re
from itertools import groupby

import pytest
import yaml

from lethe_contracts.errors import RecordError
from lethe_contracts.states import BlockReason, RequestState
from lethe_contracts.topics import DLT_HEADROOM_BYTES, MAX_MESSAGE_BYTES, TOPICS, dead_letter_topic
from lethe_eraser.domain import JobState
from lethe_outbox import BUCKETS
from lethe_outbox.dead_letters.reader import UNKNOWN_REASON
from lethe_outbox.relay.producer import REFUSALS
from lethe_outbox.schema import Status
from tests.support.alerting import ALERTS, RUNBOOKS, Rule, expectations, rules
from tests.support.exposed import FOREIGN, series
from tests.support.promql import Use, uses
from tests.support.tools import run

RULES = rules()
ALWAYS_FIRING = "Watchdog"
RULE_FILES = sorted(path.name for path in (ALERTS / "rules").glob("*.yml"))
HEADINGS = ["Meaning", "Impact", "Diagnosis", "Mitigation"]


def by_name(rule: Rule) -> str:
    return rule.name


def test_prometheus_takes_its_configuration_and_finds_the_rules() -> None:
    said = run("promtool", "check", "config", str(ALERTS / "prometheus.yml"))
    assert f"{len(RULE_FILES)} rule files found" in said


@pytest.mark.parametrize("file", RULE_FILES)
def test_promtool_holds_the_thresholds(file: str) -> None:
    run("promtool", "test", "rules", str(ALERTS / "tests" / file))


def test_every_rule_file_has_its_test_file_and_the_other_way_round() -> None:
    assert sorted(path.name for path in (ALERTS / "tests").glob("*.yml")) == RULE_FILES


def test_an_alert_stands_once() -> None:
    names = sorted(rule.name for rule in RULES)
    assert [name for name, same in groupby(names) if len(list(same)) > 1] == []


@pytest.mark.parametrize("rule", RULES, ids=by_name)
def test_both_sides_of_a_threshold_are_tested(rule: Rule) -> None:
    expected = {
        fires for name, fires in expectations(ALERTS / "tests" / rule.file) if name == rule.name
    }
    assert expected == ({True} if rule.name == ALWAYS_FIRING else {True, False})


@pytest.mark.parametrize("rule", RULES, ids=by_name)
def test_an_alert_says_how_bad_it_is_what_it_is_and_where_to_read_on(rule: Rule) -> None:
    assert rule.labels.keys() == {"severity"}
    assert rule.labels["severity"] == "heartbeat" or rule.labels["severity"] in {"page", "ticket"}
    assert rule.annotations.keys() == {"summary", "description", "runbook_url"}
    assert "{{" not in rule.annotations["summary"]
    assert rule.annotations["summary"].endswith(".")
    assert rule.annotations["runbook_url"] == f"{{{{ $externalLabels.runbooks }}}}/{rule.name}.md"


@pytest.mark.parametrize("rule", RULES, ids=by_name)
def test_an_alert_has_its_runbook(rule: Rule) -> None:
    page = (RUNBOOKS / f"{rule.name}.md").read_text()
    assert page.startswith(f"# {rule.name}\n")
    assert re.findall(r"^## (.+)$", page, re.MULTILINE) == HEADINGS
    parts = re.split(r"^## .+$", page, flags=re.MULTILINE)[1:]
    assert all(len(part.split()) >= 8 for part in parts)


def test_no_runbook_is_about_an_alert_that_does_not_exist() -> None:
    pages = {path.stem for path in RUNBOOKS.glob("*.md")} - {"README"}
    assert pages == {rule.name for rule in RULES}


@pytest.mark.parametrize("rule", RULES, ids=by_name)
def test_the_index_of_runbooks_says_what_the_rule_says(rule: Rule) -> None:
    cells = f"{rule.labels['severity']} | {rule.annotations['summary']}"
    line = f"| [{rule.name}]({rule.name}.md) | {cells} |"
    assert line in (RUNBOOKS / "README.md").read_text()


@pytest.mark.parametrize("rule", RULES, ids=by_name)
def test_an_alert_asks_only_for_what_the_services_expose(rule: Rule) -> None:
    exposed = series() | FOREIGN
    asked = uses(rule.expression)
    assert [use for use in asked if not use.labels <= exposed.get(use.metric, frozenset())] == []
    assert {use.metric for use in asked} <= exposed.keys()


@pytest.mark.parametrize("rule", RULES, ids=by_name)
def test_a_description_uses_only_labels_the_alert_has(rule: Rule) -> None:
    used = set(re.findall(r"\$labels\.(\w+)", rule.annotations["description"]))
    kept = set[str]().union(*(use.labels for use in uses(rule.expression)))
    whole = {"job", "instance"} if rule.expression.startswith("up ") else set()
    assert used <= kept | whole


def test_amtool_takes_the_configuration() -> None:
    run("amtool", "check-config", str(ALERTS / "alertmanager.yml"))


@pytest.mark.parametrize(
    ("labels", "receiver"),
    [
        ("alertname=DeadLettersOpen severity=page topic=erasure.requests.v1.DLT", "page"),
        ("alertname=OutboxDltFailed severity=page outbox=intake", "page"),
        ("alertname=OutboxLagging severity=ticket outbox=intake", "ticket"),
        ("alertname=Watchdog severity=heartbeat", "heartbeat"),
        # a channel that fails is told through the other one
        ("alertname=NotificationsFailing severity=ticket integration=slack", "page"),
        ("alertname=NotificationsFailing severity=ticket integration=pagerduty", "ticket"),
        # nobody's alert still reaches somebody
        ("alertname=Unheard", "ticket"),
    ],
)
def test_an_alert_reaches_who_it_is_for(labels: str, receiver: str) -> None:
    config = str(ALERTS / "alertmanager.yml")
    said = run("amtool", "config", "routes", "test", f"--config.file={config}", *labels.split())
    assert said.splitlines()[-1].strip() == receiver


def test_what_silences_and_what_is_silenced_exists() -> None:
    config = yaml.safe_load((ALERTS / "alertmanager.yml").read_text())
    matchers = [
        matcher
        for inhibition in config["inhibit_rules"]
        for matcher in inhibition["source_matchers"] + inhibition["target_matchers"]
        if matcher.startswith("alertname")
    ]
    named = {
        name
        for matcher in matchers
        for name in re.split(r"\W+", re.split(r"=~?", matcher, maxsplit=1)[1])
        if name
    }
    assert len(matchers) == 2 * len(config["inhibit_rules"])
    assert named <= {rule.name for rule in RULES}


def test_no_address_and_no_key_stands_in_the_configuration() -> None:
    text = (ALERTS / "alertmanager.yml").read_text()
    assert not re.search(r"https?://|@\w+\.|routing_key:|api_url:", text)


def test_the_reader_of_promql_finds_metrics_and_the_labels_asked_of_them() -> None:
    found = uses(
        'sum by (group, topic) (increase(a_total{outcome="x y",code=~"1|2"}[10m])) > 0 '
        "unless on (group) (time() - max(b) > 120) or absent(c) < +Inf"
    )
    assert found == [
        Use("a_total", frozenset({"group", "topic", "outcome", "code"})),
        Use("b", frozenset()),
        Use("c", frozenset()),
    ]


def absent_values(label: str) -> set[str]:
    """Every value that some rule watches the absence of."""
    return {
        value
        for rule in RULES
        for value in re.findall(rf'absent\(\w+\{{{label}="([^"]+)"\}}\)', rule.expression)
    }


def test_absence_is_watched_for_every_topic_outbox_and_process_there_is() -> None:
    assert absent_values("topic") == {dead_letter_topic(topic) for topic in TOPICS}
    assert absent_values("outbox") == {"intake", "product"}
    scraped = yaml.safe_load((ALERTS / "prometheus.yml").read_text())["scrape_configs"]
    # Prometheus cannot miss itself.
    assert absent_values("job") == {job["job_name"] for job in scraped} - {"prometheus"}


def test_buckets_states_and_statuses_are_those_of_the_code() -> None:
    text = "\n".join(rule.expression for rule in RULES)
    assert re.findall(r"relay_buckets_owned\) < (\d+)", text) == [str(BUCKETS)]
    states = set(re.findall(r'reporting_requests\{state="(\w+)"\}', text))
    assert states <= {state.value for state in RequestState}
    jobs = re.findall(r'eraser_jobs\{state=~"([\w|]+)"\}', text)
    assert {name for names in jobs for name in names.split("|")} <= {s.value for s in JobState}
    statuses = re.findall(r'outbox_rows\{status="(\w+)"\}', text)
    assert {name.upper() for name in statuses} <= {status.name for status in Status}


def reasons_on(page: str) -> set[str]:
    """Every reason code in the table of a runbook."""
    rows = re.findall(r"^\| (`[^|]+) \|", (RUNBOOKS / f"{page}.md").read_text(), re.MULTILINE)
    return {code for row in rows for code in re.findall(r"`(\w+)`", row)}


def test_the_runbook_of_blocked_requests_knows_every_reason() -> None:
    assert reasons_on("RequestsBlocked") == {reason.value for reason in BlockReason}


def test_the_runbook_of_dead_letters_knows_every_reason() -> None:
    refused = set(REFUSALS.values())
    poison = {kind.reason for kind in RecordError.__subclasses__()}
    assert len(poison) > 3
    assert reasons_on("DeadLettersOpen") == refused | poison | {UNKNOWN_REASON}


def test_the_size_of_a_dead_letter_topic_in_a_runbook_is_the_contracts() -> None:
    page = (RUNBOOKS / "OutboxDltFailed.md").read_text()
    sizes = re.findall(r"max\.message\.bytes=(\d+)", page)
    assert sizes == [str(MAX_MESSAGE_BYTES + DLT_HEADROOM_BYTES)]

"""The alerting rules, the panels and the runbooks, as the tests read them."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.support.tools import ROOT

ALERTS = ROOT / "alerts"
RUNBOOKS = ROOT / "docs" / "runbooks"


@dataclass(frozen=True, slots=True)
class Rule:
    """One alerting rule and the file it stands in."""

    file: str
    name: str
    expression: str
    waits: bool
    labels: dict[str, str]
    annotations: dict[str, str]


def rules() -> list[Rule]:
    """Read every rule of alerts/rules."""
    found = [
        Rule(
            file=path.name,
            name=rule["alert"],
            expression=rule["expr"],
            waits="for" in rule,
            labels=rule["labels"],
            annotations=rule["annotations"],
        )
        for path in sorted((ALERTS / "rules").glob("*.yml"))
        for group in yaml.safe_load(path.read_text())["groups"]
        for rule in group["rules"]
    ]
    assert found
    return found


def dashboards() -> dict[str, dict[str, Any]]:
    """Read every dashboard by its file's name."""
    found = {
        path.name: json.loads(path.read_text())
        for path in sorted((ALERTS / "grafana" / "dashboards").glob("*.json"))
    }
    assert found
    return found


def panel_expressions(dashboard: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Give every (panel, expression), Grafana's variables replaced by something PromQL takes."""
    for panel in dashboard["panels"]:
        for target in panel.get("targets", ()):
            yield panel["title"], plain(target["expr"])
    for annotation in dashboard["annotations"]["list"]:
        yield annotation["name"], plain(annotation["expr"])


def plain(expression: str) -> str:
    """Replace Grafana's variables."""
    return (
        expression.replace("$__rate_interval", "1m")
        .replace("$outbox", ".*")
        .replace("$topic", ".*")
    )


def expectations(path: Path) -> Iterator[tuple[str, bool]]:
    """Give every (alert, whether it is expected to fire) that a promtool test asks for."""
    for group in yaml.safe_load(path.read_text())["tests"]:
        for case in group["alert_rule_test"]:
            yield case["alertname"], bool(case["exp_alerts"])

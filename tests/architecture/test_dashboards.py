"""The dashboards are valid, ask only for what is exposed, and agree with the alerts."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.alerting import ALERTS, RUNBOOKS, dashboards, panel_expressions, plain, rules
from tests.support.exposed import FOREIGN, series
from tests.support.promql import uses
from tests.support.tools import run

DASHBOARDS = dashboards()
LINK = re.compile(r"^/public/runbooks/(\w+)\.md$")
each = pytest.mark.parametrize("name", DASHBOARDS)


def panels(name: str) -> list[dict[str, Any]]:
    return [panel for panel in DASHBOARDS[name]["panels"] if panel["type"] != "row"]


def runbook(url: str) -> str:
    match = LINK.match(url)
    assert match, f"{url} is no runbook"
    return match[1]


@each
def test_every_expression_is_promql(name: str, tmp_path: Path) -> None:
    recorded = [
        {"record": f"panel:{number}", "expr": expression}
        for number, (_, expression) in enumerate(panel_expressions(DASHBOARDS[name]))
    ]
    file = tmp_path / "panels.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": recorded}]}))
    run("promtool", "check", "rules", str(file))


@each
def test_every_metric_and_label_is_exposed(name: str) -> None:
    exposed = series() | FOREIGN
    strange = [
        (panel, use)
        for panel, expression in panel_expressions(DASHBOARDS[name])
        for use in uses(expression)
        if use.metric not in exposed or not use.labels <= exposed[use.metric]
    ]
    assert strange == []


def test_every_metric_is_on_a_panel() -> None:
    def family(sample: str) -> str:
        return re.sub(r"_(total|bucket|count|sum)$", "", sample)

    asked = {
        family(use.metric)
        for board in DASHBOARDS.values()
        for _, expression in panel_expressions(board)
        for use in uses(expression)
    }
    assert {family(sample) for sample in series()} - asked == set()


@each
def test_a_legend_names_only_labels_the_query_keeps(name: str) -> None:
    for panel in panels(name):
        for target in panel["targets"]:
            kept = set[str]().union(*(use.labels for use in uses(plain(target["expr"]))))
            plainly = not re.search(r"\b(sum|max|min)\b", target["expr"])
            named = set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
            assert named <= kept | ({"instance", "job"} if plainly else set()), panel["title"]


@each
def test_variables_come_from_labels_that_exist(name: str) -> None:
    exposed = series()
    for variable in DASHBOARDS[name]["templating"]["list"]:
        asked = re.fullmatch(r"label_values\((\w+), (\w+)\)", variable["definition"])
        assert asked
        assert variable["query"]["query"] == variable["definition"]
        assert asked[2] in exposed[asked[1]]


@each
def test_a_panel_explains_itself_and_has_a_place_of_its_own(name: str) -> None:
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARDS[name]["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert place["x"] + place["w"] <= 24
        assert not cells & taken, f"{panel['title']} lies over another panel"
        taken |= cells
        assert panel["type"] == "row" or (panel["title"] and panel["description"])
    ids = [panel["id"] for panel in DASHBOARDS[name]["panels"]]
    assert len(ids) == len(set(ids))


def test_dashboards_have_addresses_of_their_own() -> None:
    assert len({board["uid"] for board in DASHBOARDS.values()}) == len(DASHBOARDS)


@each
def test_links_lead_to_runbooks_that_exist(name: str) -> None:
    links = [link["url"] for panel in panels(name) for link in panel["links"]]
    links += [link["url"] for link in DASHBOARDS[name]["links"] if link["type"] == "link"]
    assert [url for url in links if not (RUNBOOKS / f"{runbook(url)}.md").is_file()] == []


@pytest.mark.parametrize("name", ["outbox.json", "dead-letters.json"])
def test_outbox_and_dead_letters_are_shown_in_every_way(name: str) -> None:
    shown = panels(name)
    assert {"stat", "timeseries", "table"} <= {panel["type"] for panel in shown}
    for panel in shown:
        if panel["type"] == "stat":
            assert len(panel["fieldConfig"]["defaults"]["thresholds"]["steps"]) > 1
            assert panel["links"]
            # an empty panel must not look like a healthy one
            assert panel["fieldConfig"]["defaults"]["noValue"]


@pytest.mark.parametrize(
    "rule", [r for r in rules() if r.file != "stack.yml"], ids=lambda r: r.name
)
def test_every_alert_is_to_be_seen_on_a_panel_that_links_to_it(rule: Any) -> None:
    linking = [
        panel
        for name in DASHBOARDS
        for panel in panels(name)
        if rule.name in {runbook(link["url"]) for link in panel["links"]}
    ]
    metrics = {use.metric for use in uses(rule.expression)}
    shown = {
        use.metric
        for panel in linking
        for target in panel["targets"]
        for use in uses(plain(target["expr"]))
    }
    assert metrics & shown


@pytest.mark.parametrize(
    ("alert", "threshold"),
    [
        ("OutboxLagging", 60),
        ("OutboxStalled", 600),
        ("OutboxBucketsUnowned", 256),
        ("OutboxSampleStale", 120),
        ("ReportingSampleStale", 120),
        ("DeadlineAtRisk", 86400),
        ("OutboxDltFailed", 1),
        ("DeadLettersOpen", 1),
    ],
)
def test_a_stat_turns_colour_where_the_alert_fires(alert: str, threshold: int) -> None:
    rule = next(rule for rule in rules() if rule.name == alert)
    assert re.search(rf"[<>]=? {threshold}\b", rule.expression)
    stats = [
        panel
        for name in DASHBOARDS
        for panel in panels(name)
        if panel["type"] == "stat"
        and alert in {runbook(link["url"]) for link in panel["links"]}
        and {use.metric for use in uses(rule.expression)}
        & {use.metric for use in uses(plain(panel["targets"][0]["expr"]))}
    ]
    assert stats
    for panel in stats:
        steps = [step["value"] for step in panel["fieldConfig"]["defaults"]["thresholds"]["steps"]]
        assert threshold in steps or panel["title"] == "Oldest open one"


def test_provisioning_leads_to_the_dashboards_and_to_the_datasource_they_use() -> None:
    sources = yaml.safe_load(
        (ALERTS / "grafana" / "provisioning" / "datasources" / "prometheus.yml").read_text()
    )["datasources"]
    uids = {source["uid"] for source in sources}
    used = {panel["datasource"]["uid"] for name in DASHBOARDS for panel in panels(name)}
    assert used <= uids

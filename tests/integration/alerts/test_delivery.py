"""From a metric of the relay to the receiver, through a real Prometheus and a real Alertmanager.

Both run on the files of alerts/; only the addresses and the pace are changed. Nothing leaves the
machine: the files with the receivers' keys are not there, and Alertmanager counts that as failed.
"""

import json
import subprocess
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import CollectorRegistry, start_http_server

from lethe_outbox.metrics import RelayMetrics
from lethe_sandbox.stack.ports import free_ports
from tests.support.alerting import ALERTS
from tests.support.tools import beside
from tests.support.waiting import until_sync

RUNBOOKS = "http://localhost:3000/public/runbooks"


class Watched:
    """A relay's metrics, and the Alertmanager that hears of them."""

    def __init__(self, metrics: RelayMetrics, alertmanager: str) -> None:
        self.metrics = metrics
        self._alertmanager = alertmanager

    def alerts(self, name: str) -> list[dict[str, Any]]:
        """Ask Alertmanager for the active alerts called `name`."""
        query = urllib.parse.urlencode({"filter": f'alertname="{name}"', "active": "true"})
        found = _get(f"{self._alertmanager}/api/v2/alerts?{query}")
        return list(json.loads(found)) if found else []

    def tell(self, *alerts: dict[str, str]) -> bool:
        """Tell Alertmanager of alerts with these labels, as Prometheus does; False: not heard."""
        body = json.dumps([{"labels": labels} for labels in alerts]).encode()
        url, kind = f"{self._alertmanager}/api/v2/alerts", {"Content-Type": "application/json"}
        try:
            urllib.request.urlopen(urllib.request.Request(url, body, kind), timeout=5).close()  # noqa: S310 - our own http URL
        except OSError:
            return False
        return True

    def silenced(self, name: str) -> bool:
        """Say whether the alert is there and silenced by another."""
        query = urllib.parse.urlencode({"filter": f'alertname="{name}"', "active": "false"})
        return _get(f"{self._alertmanager}/api/v2/alerts?{query}").strip() not in {"", "[]"}

    def failed_notifications(self) -> list[str]:
        """Give the samples of Alertmanager's own metric that NotificationsFailing reads."""
        wanted = "alertmanager_notifications_failed_total{"
        lines = _get(f"{self._alertmanager}/metrics").splitlines()
        return [line for line in lines if line.startswith(wanted) and not line.endswith(" 0")]


def _get(url: str) -> str:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:  # noqa: S310 - our own http URL
            return str(answer.read().decode())
    except OSError:
        return ""


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[Watched]:
    registry = CollectorRegistry()
    metrics = RelayMetrics(registry)
    prometheus_port, alertmanager_port = free_ports(2)
    exporter, thread = start_http_server(0, addr="127.0.0.1", registry=registry)

    config = yaml.safe_load((ALERTS / "prometheus.yml").read_text())
    config["global"] |= {
        "scrape_interval": "200ms",
        "scrape_timeout": "200ms",
        "evaluation_interval": "200ms",
    }
    config["rule_files"] = [str(ALERTS / "rules" / "*.yml")]
    config["alerting"]["alertmanagers"][0]["static_configs"][0]["targets"] = [
        f"127.0.0.1:{alertmanager_port}"
    ]
    config["scrape_configs"] = [
        {
            "job_name": "relay",
            "static_configs": [{"targets": [f"127.0.0.1:{exporter.server_port}"]}],
        }
    ]
    (tmp_path / "prometheus.yml").write_text(yaml.safe_dump(config))
    routes = (ALERTS / "alertmanager.yml").read_text()
    (tmp_path / "alertmanager.yml").write_text(routes.replace("group_wait: 10s", "group_wait: 0s"))

    commands = (
        [
            beside("amtool", "prometheus-alertmanager"),
            f"--config.file={tmp_path}/alertmanager.yml",
            f"--storage.path={tmp_path}/alertmanager",
            f"--web.listen-address=127.0.0.1:{alertmanager_port}",
            "--cluster.listen-address=",
        ],
        [
            beside("promtool", "prometheus"),
            f"--config.file={tmp_path}/prometheus.yml",
            f"--storage.tsdb.path={tmp_path}/prometheus",
            f"--web.listen-address=127.0.0.1:{prometheus_port}",
            # What fired before Alertmanager was discovered is sent again soon.
            "--rules.alert.resend-delay=1s",
        ],
    )
    processes = []
    with (tmp_path / "log").open("wb") as log:
        try:
            for command in commands:
                processes.append(subprocess.Popen(command, stdout=log, stderr=log))  # noqa: PERF401 - those before a failure are stopped
            yield Watched(metrics, f"http://127.0.0.1:{alertmanager_port}")
        finally:
            for process in processes:
                process.terminate()
            for process in processes:
                process.wait(timeout=30)
            exporter.shutdown()
            exporter.server_close()
            thread.join(timeout=30)


def test_a_row_that_nothing_took_reaches_the_pager_with_its_runbook(watched: Watched) -> None:
    watchdog = until_sync(lambda: watched.alerts("Watchdog"), what="Watchdog", within=60)[0]
    assert watchdog["labels"] == {"alertname": "Watchdog", "severity": "heartbeat"}
    assert [receiver["name"] for receiver in watchdog["receivers"]] == ["heartbeat"]
    assert watched.alerts("OutboxDltFailed") == []

    watched.metrics.rows.labels("intake", "dlt_failed").set(1)
    alert = until_sync(lambda: watched.alerts("OutboxDltFailed"), what="the alert", within=60)[0]

    assert alert["labels"] == {
        "alertname": "OutboxDltFailed",
        "outbox": "intake",
        "severity": "page",
    }
    assert alert["annotations"]["runbook_url"] == f"{RUNBOOKS}/OutboxDltFailed.md"
    assert [receiver["name"] for receiver in alert["receivers"]] == ["page"]
    failed = until_sync(watched.failed_notifications, what="the failed notification", within=60)
    assert any('integration="pagerduty"' in line for line in failed)

    watched.metrics.rows.labels("intake", "dlt_failed").set(0)
    until_sync(lambda: not watched.alerts("OutboxDltFailed"), what="the end", within=60)


STANDS_STILL = ("EraserStalled", "EraserS3Failing")


def _told(watched: Watched, *causes: dict[str, str]) -> None:
    alerts = [*causes, *({"alertname": name} for name in (*STANDS_STILL, "OutboxStalled"))]
    until_sync(lambda: watched.tell(*alerts), what="Alertmanager", within=60)


@pytest.mark.parametrize(
    "cause",
    [
        {"alertname": "EraserCircuitOpen", "dependency": "s3 eu-west-1"},
        {"alertname": "CatalogRefused"},
    ],
    ids=["S3 is away", "the catalog does not fit"],
)
def test_that_nobody_is_erased_is_silent_where_its_cause_has_paged(
    watched: Watched, cause: dict[str, str]
) -> None:
    _told(watched, cause)
    until_sync(lambda: all(map(watched.silenced, STANDS_STILL)), what="silence", within=60)


def test_a_cdn_that_is_away_silences_nothing_of_s3(watched: Watched) -> None:
    cdn = {"alertname": "EraserCircuitOpen", "dependency": "cdn"}
    _told(watched, cdn, {"alertname": "RelayPaused"})
    # What silences is heard in order, so the CDN's was heard as well.
    until_sync(lambda: watched.silenced("OutboxStalled"), what="silence", within=60)
    assert not any(map(watched.silenced, STANDS_STILL))
    assert all(map(watched.alerts, STANDS_STILL))

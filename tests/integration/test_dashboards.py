"""Every query of Prometheus' rules and of Grafana's dashboard, executed by a real Prometheus on a live server."""

from __future__ import annotations

import contextlib
import json
import re
import subprocess

import pytest
import yaml
from support import observed, prometheus
from support.background import Background
from support.live_bundle import FAILING_INDEX, item_ids
from support.own_server import own_server
from support.redis_server import running_redis

from nann.clients import RetrievalClient
from nann.errors import NannError

pytestmark = pytest.mark.triton

DASHBOARD = prometheus.ROOT / "docker" / "grafana" / "dashboards" / "nann.json"
RULES = [rule for group in yaml.safe_load(prometheus.RULES.read_text())["groups"] for rule in group["rules"]]
RECORDED = [rule["record"] for rule in RULES if "record" in rule]
ALERTS = [rule for rule in RULES if "alert" in rule]
PANELS = [
    (panel["title"], target["legendFormat"], target["expr"].replace("$__rate_interval", "1m"))
    for panel in json.loads(DASHBOARD.read_text())["panels"]
    for target in panel["targets"]
]
# A machine without a GPU has no GPU metrics.
GPU_METRIC = re.compile(r"nv_gpu_\w+")
METRIC = re.compile(r"\b(?:nann|nv)_\w+")


@pytest.fixture(scope="module")
def watched(live_bundle_path, tmp_path_factory):
    """A Prometheus, and a server under constant load."""
    folder = tmp_path_factory.mktemp("watched")
    prometheus.find_tools()
    with (
        running_redis(folder / "redis") as redis,
        own_server(
            live_bundle_path, folder / "server", catalog_stream=f"{redis.url}/items", quality_share=1, quality_load=1
        ) as server,
        prometheus.running(server.metrics_url, folder / "prometheus") as running,
        RetrievalClient(server.grpc_url, timeout_s=20) as client,
        Asking(client),
    ):
        yield running


class Asking(Background):
    """Sends good requests, and some that fail, until the end."""

    def __init__(self, client: RetrievalClient) -> None:
        self._client = client
        super().__init__()

    def work(self, number: int) -> None:
        for ids in observed.users(100_000):
            for history, parameters in (
                (ids, {}),
                (ids, {"entry": "seeds"}),
                (ids, {"top_k": 5000}),
                ([int(item_ids()[FAILING_INDEX])], {}),
            ):
                with contextlib.suppress(NannError):
                    self._client.retrieve(history, **parameters)
            if self.ended.wait(0.05):
                return


def test_promtool_accepts_the_files_and_every_alert_can_fire():
    promtool = prometheus.find_tools()["promtool"]
    folder = prometheus.RULES.parent
    for command in (["check", "config", "prometheus.yml"], ["test", "rules", "rules_test.yml"]):
        result = subprocess.run([promtool, *command], cwd=folder, capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stdout + result.stderr
    fired = re.findall(r'alertname="(\w+)"', (folder / "rules_test.yml").read_text())
    assert sorted(fired) == sorted(rule["alert"] for rule in ALERTS)


@pytest.mark.parametrize("name", RECORDED)
def test_a_recording_rule_has_data(watched, name):
    samples = watched.wait_for(f'{name}{{job="triton"}} >= 0')  # which NaN is not
    assert len(samples) == 1


def test_alerts_are_evaluated_and_know_their_metrics(watched):
    watched.wait_for('job:nann_coverage:ratio1h{job="triton"}')
    known = watched.metric_names() | set(RECORDED)
    loaded = {rule["name"]: rule for rule in watched.rules() if rule["type"] == "alerting"}
    for rule in ALERTS:
        assert loaded[rule["alert"]]["health"] == "ok", loaded[rule["alert"]]
        assert set(METRIC.findall(rule["expr"].replace("job:nann_", "job:"))) <= known
        # The series that an alert compares have data; only the comparison may give no result.
        compared = re.split(r" (?:>|<|==) ", rule["expr"])[0]
        assert watched.wait_for(compared), rule["alert"]
    # A quarter of the requests here fail, so this alert fires.
    assert watched.wait_for('ALERTS{alertname="NannErrors", alertstate="pending"}')
    assert not watched.query('ALERTS{alertname="NannDown"}')


@pytest.mark.parametrize(("panel", "legend", "expression"), PANELS, ids=lambda text: text if len(text) < 40 else "")
def test_a_panel_has_data(watched, panel, legend, expression):
    if GPU_METRIC.search(expression):
        assert watched.query(expression) == []
        return
    samples = watched.wait_for(f"({expression}) >= 0")
    for label in re.findall(r"{{(\w+)}}", legend):
        assert all(label in sample["metric"] for sample in samples), label


def test_the_numbers_are_right(watched):
    outcomes = watched.wait_for(
        'sum by (outcome) (rate(nann_requests_total{outcome=~"complete|refused|failed"}[1m])) > 0'
    )
    rates = {sample["metric"]["outcome"]: float(sample["value"][1]) for sample in outcomes}
    assert rates["complete"] == pytest.approx(2 * rates["failed"], rel=0.3)
    assert rates["refused"] == pytest.approx(rates["failed"], rel=0.3)
    assert 0.7 < watched.value("job:nann_coverage:ratio1h") < 1
    assert 0 <= watched.value("job:nann_scorer_padding:ratio5m") < 1
    assert watched.value("job:nann_request_duration_seconds:p99_5m") > 0

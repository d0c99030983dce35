"""What Kubernetes' autoscaler does with the chart's settings, for real servers on this machine.

The settings come from `helm template`, so the query, the target and the pace are those that a cluster would get.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import yaml

from support.background import Background
from support.elastic_fleet import ElasticFleet
from support.helm import ROOT, template

LABELS = {"namespace": "ads", "service": "shop-nann"}
"""What Prometheus adds to the metrics of the chart's pods: `template` renders release `shop` in namespace `ads`."""
TOLERANCE = 0.1
"""Kubernetes' own: a metric that is this close to its target changes nothing."""


@dataclass(frozen=True)
class ScalingRules:
    """Settings of an autoscaler that goes by one external metric.

    Attributes:
        query: of Prometheus; its value is the metric, of all replicas together.
        target: of the metric, per replica.
        least: fewest replicas; most likewise.
        calm_s: scaling down takes the largest count that was wanted within this time.
        step_s: at most `step` replicas are taken away within this time.
    """

    query: str
    target: float
    least: int
    most: int
    calm_s: float
    step: int
    step_s: float

    @classmethod
    def of_chart(cls, *options: object) -> ScalingRules:
        """Those of the ScaledObject that the chart renders with these options of Helm."""
        rendered = template(*("--set", "bundle.claim.name=bundles", "--set", "autoscaling.kind=keda"), *options).stdout
        (spec,) = (one["spec"] for one in yaml.safe_load_all(rendered) if one["kind"] == "ScaledObject")
        (trigger,) = spec["triggers"]
        assert trigger["metricType"] == "AverageValue"
        behavior = spec["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]
        assert behavior["scaleUp"] == {"stabilizationWindowSeconds": 0}
        (policy,) = behavior["scaleDown"]["policies"]
        return cls(
            query=trigger["metadata"]["query"],
            target=float(trigger["metadata"]["threshold"]),
            least=spec["minReplicaCount"],
            most=spec["maxReplicaCount"],
            calm_s=behavior["scaleDown"]["stabilizationWindowSeconds"],
            step=policy["value"],
            step_s=policy["periodSeconds"],
        )


def adapters_query(group_by: str) -> str:
    """The query of the Prometheus adapter's rule in deploy/README.md, for the pods of the chart."""
    (text,) = re.findall(r"```yaml\n(rules:.*?)```", (ROOT / "deploy" / "README.md").read_text(), re.DOTALL)
    (rule,) = yaml.safe_load(text)["rules"]
    matchers = ",".join(f'{name}="{value}"' for name, value in LABELS.items())
    given = {"Series": rule["seriesQuery"].split("{")[0], "LabelMatchers": matchers, "GroupBy": group_by}
    return re.sub(r"<<\.(\w+)>>", lambda found: given[found[1]], rule["metricsQuery"])


@dataclass
class Autoscaler:
    """Decides how many replicas there should be, as Kubernetes does for a metric of type AverageValue."""

    rules: ScalingRules
    _wanted: list[tuple[float, int]] = field(default_factory=list)
    _removed: list[tuple[float, int]] = field(default_factory=list)

    def decide(self, now_s: float, metric: float, replicas: int) -> int:
        """The new count of replicas, those that start included."""
        rules, wanted = self.rules, metric / self.rules.target
        wanted = replicas if abs(wanted / replicas - 1) <= TOLERANCE else math.ceil(wanted)
        wanted = min(max(wanted, rules.least), rules.most)
        self._wanted = [(when, count) for when, count in self._wanted if when > now_s - rules.calm_s]
        self._wanted.append((now_s, wanted))
        if wanted >= replicas:
            return wanted
        calm = max(count for _, count in self._wanted)
        self._removed = [(when, count) for when, count in self._removed if when > now_s - rules.step_s]
        allowed = max(0, rules.step - sum(count for _, count in self._removed))
        new = max(min(calm, replicas), replicas - allowed)
        if new < replicas:
            self._removed.append((now_s, replicas - new))
        return new


@dataclass(frozen=True)
class Moment:
    """What the autoscaler saw and decided at one time: seconds of the monotonic clock, the metric, and counts."""

    at_s: float
    metric: float
    replicas: int
    ready: int


class Controller(Background):
    """Applies an autoscaler to a fleet every `sync_s` seconds, in a thread, until the context ends.

    `moments` has what it saw. A query without a value changes nothing, as in Kubernetes.
    """

    def __init__(
        self, rules: ScalingRules, fleet: ElasticFleet, query: Callable[[str], list[dict]], sync_s: float
    ) -> None:
        self.moments: list[Moment] = []
        self._autoscaler, self._fleet, self._query, self._sync_s = Autoscaler(rules), fleet, query, sync_s
        super().__init__()

    def work(self, number: int) -> None:
        while not self.ended.wait(self._sync_s):
            samples = self._query(self._autoscaler.rules.query)
            if not samples:
                continue
            (sample,) = samples
            metric, now_s = float(sample["value"][1]), time.monotonic()
            replicas, ready = self._fleet.replicas, self._fleet.ready
            self.moments.append(Moment(now_s, metric, replicas, ready))
            self._fleet.scale_to(self._autoscaler.decide(now_s, metric, replicas))

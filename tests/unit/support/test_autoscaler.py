"""The test's own autoscaler: up at once, down slowly, as Kubernetes documents it."""

from __future__ import annotations

from itertools import pairwise

import pytest
from support.autoscaling import Autoscaler, ScalingRules

RULES = ScalingRules("query", target=10.0, least=2, most=8, calm_s=30, step=1, step_s=20)


@pytest.mark.parametrize(
    ("metric", "replicas", "wanted"), [(32, 3, 3), (34, 3, 4), (45, 2, 5), (1000, 2, 8), (0, 2, 2)]
)
def test_it_wants_what_the_formula_says_at_once(metric, replicas, wanted):
    assert Autoscaler(RULES).decide(0, metric, replicas) == wanted


def test_down_it_goes_after_a_time_of_calm_and_one_by_one():
    autoscaler, replicas, seen = Autoscaler(RULES), 5, []
    for now_s, metric in [(0, 50), *((now_s, 1) for now_s in range(5, 90, 5))]:
        replicas = autoscaler.decide(now_s, metric, replicas)
        seen.append((now_s, replicas))
    changes = [after for before, after in pairwise(seen) if before[1] != after[1]]
    assert changes == [(30, 4), (50, 3), (70, 2)]

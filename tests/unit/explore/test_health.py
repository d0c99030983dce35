"""Series from a server's metrics."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nann.explore.health import HealthLog, quantile, read_samples

TEXT = """\
# HELP nann_requests_total Requests by how they ended
# TYPE nann_requests_total counter
nann_requests_total{model="beam_retrieval",outcome="complete",version="1"} 8
nann_requests_total{model="beam_retrieval",outcome="complete",version="2"} 2
nann_requests_total{model="beam_retrieval",outcome="refused",version="1"} 1
nann_request_duration_seconds_bucket{le="0.01",version="1"} 4
nann_request_duration_seconds_bucket{le="0.02",version="1"} 10
nann_request_duration_seconds_bucket{le="+Inf",version="1"} 10
nann_stage_duration_seconds_count{stage="score"} 4
nann_stage_duration_seconds_sum{stage="score"} 0.02
nann_quality_items_wanted_total{model="beam_retrieval"} 200
nann_quality_items_found_total{model="beam_retrieval"} 150
nv_inference_count{model="nann"} 3
"""


def later(requests: int, refused: int = 1) -> str:
    return TEXT.replace('"2"} 2', f'"2"}} {requests - 8}').replace(
        '"refused",version="1"} 1', f'"refused",version="1"}} {refused}'
    )


def test_samples_are_summed_over_versions():
    samples = read_samples(TEXT)
    assert samples[("nann_requests_total", "complete")] == 10
    assert samples[("nann_request_duration_seconds_bucket", "+Inf")] == 10
    assert not any(name.startswith("nv_") for name, _ in samples)


def test_a_point_is_what_happened_since_the_reading_before():
    log = HealthLog()
    log.add(100.0, {})
    log.add(104.0, read_samples(TEXT))
    log.add(106.0, read_samples(later(16, refused=3)))
    first, second = log.to_json()["points"]
    assert first["requests_per_s"] == 11 / 4
    assert first["p50_ms"] == pytest.approx(10 + 10 * 1 / 6)
    assert first["stages_ms"] == {"score": 5.0}
    assert first["coverage"] == 0.75
    assert second["outcomes"] == {"complete": 6, "refused": 2}
    assert (second["requests_per_s"], second["coverage"], second["p50_ms"], second["stages_ms"]) == (4, None, None, {})
    assert log.to_json()["totals"] == {"complete": 16, "refused": 3}


def test_the_first_reading_and_one_after_a_restart_only_begin():
    log = HealthLog()
    assert log.to_json() == {"points": [], "totals": {}}
    log.add(100.0, read_samples(later(50)))
    log.add(102.0, read_samples(TEXT))  # it counts from 0 again
    assert not log.points
    log.add(104.0, read_samples(later(12)))
    assert [point["requests_per_s"] for point in log.points] == [1.0]


def test_five_minutes_are_kept():
    log = HealthLog()
    for second in range(0, 400, 2):
        log.add(float(second), {})
    assert len(log.points) == 150


@given(st.lists(st.integers(0, 50), min_size=1, max_size=6), st.floats(0, 1))
def test_a_quantile_is_in_the_bucket_where_its_count_is_reached(counts, share):
    bounds = [*map(float, range(1, len(counts))), math.inf]
    cumulative = [sum(counts[: place + 1]) for place in range(len(counts))]
    found = quantile(dict(zip(bounds, cumulative, strict=True)), share)
    if not sum(counts):
        assert found is None
        return
    place = next(place for place, count in enumerate(cumulative) if count >= share * sum(counts))
    assert found is not None
    assert place <= found <= min(place + 1, max(len(counts) - 1, 0)) + 1e-9


def test_no_buckets():
    assert quantile({}, 0.5) is None

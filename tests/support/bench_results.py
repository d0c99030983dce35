"""Results such as the benchmarks give, for tests of what is written about them."""

from __future__ import annotations

from nann.perf.benchmarks.instances import WORDS as SERVERS
from nann.perf.benchmarks.served import STAGES
from nann.perf.benchmarks.start import WORDS as PARTS

SERVED = {
    "items": 1_300_000,
    "search": "top 200, ef {200, 500, 1000}, rounds {1, 1, 2}",
    "scorer": "bls",
    "threads": 1,
    "items_scored": 16_900.0,
    "scorer_calls": 5.0,
    "served_p50_ms": 24.0,
    "plain_p50_ms": 20.0,
    "hops_p50_ms": 2.0,
    "served_over_scorer_p50": 1.2,
    "ratios": [1.19, 1.2, 1.21],
    "stages_ms": {key: float(number) for number, key in enumerate(STAGES, start=1)},
    "coverage": 0.98,
    "recall": 0.3,
}
POINT = {
    "value": 2,
    "qps": 100.0,
    "p50_ms": 20.0,
    "p90_ms": 25.0,
    "p99_ms": 30.0,
    "users_per_search": 1.5,
    "items_scored": 1234.0,
    "coverage": 0.97,
    "recall": 0.25,
}
CURVE = {
    "items": 68_509,
    "search": "top 200, ef {400}, rounds {4}, 800 seeds of a light walk with ef 1600",
    "closed": [POINT, {**POINT, "value": 4, "qps": 150.0}],
    "open": [POINT],
}
SERVER = {
    "qps": 30.0,
    "all_qps": [29.0, 30.0],
    "p50_ms": 9.0,
    "coverage": 0.9,
    "recall": 0.2,
    "pss_mb": {"scorer": 8.0},
}
INSTANCES = {
    "items": 1_300_000,
    "servers": {name: {**SERVER, "qps": 10.0 * number} for number, name in enumerate(SERVERS, start=1)},
    "two_instances_over_one": 1.8,
    "engine_two_processes_over_one": 1.9,
    "extra_instance_pss_mb": {"scorer": 40.0, "beam_retrieval": 30.0},
}
START = {
    "items": 1_300_000,
    "bundle_mb": 1_800.0,
    "start_s": 4.5,
    "starts_s": [4.4, 4.5, 4.6],
    "command_s": 6.5,
    "parts_s": dict.fromkeys(PARTS, 0.5),
}
RESULTS = {
    "served": {
        "table1": SERVED,
        "table1_in_process": {**SERVED, "scorer": "in_process"},
        "table1_all_cores": {**SERVED, "threads": 2},
        "real": {**SERVED, "items": 68_509},
    },
    "load": [CURVE, CURVE],
    "instances": INSTANCES,
    "start": START,
    "gate": {"served_over_scorer_p50": 1.5},
}

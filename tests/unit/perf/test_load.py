from __future__ import annotations

import http.server
import threading

import numpy as np
import pytest

from nann.errors import RequestTimeout, ServerError, ServerOverloaded
from nann.perf.load.clients import OpenLoadResult, _starts, _summary
from nann.perf.load.requests import perf_analyzer_input, unpadded
from nann.perf.servers.triton_counters import read_metrics

METRICS = """# HELP nv_inference_count Number of inferences
nv_inference_count{model="scorer",version="1"} 5
nv_inference_count{model="scorer",version="2"} 2
nv_inference_count{model="nann",version="1"} 3
nv_cpu_utilization 0.5
"""


@pytest.fixture
def metrics_url():
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()
            self.wfile.write(METRICS.encode())

        def log_message(self, *_):
            pass

    server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_counters_are_summed_over_versions(metrics_url):
    assert read_metrics(metrics_url) == {("nv_inference_count", "scorer"): 7, ("nv_inference_count", "nann"): 3}


def test_clients_start_at_different_users():
    assert _starts([[1]] * 10, 3) == [0, 3, 6]
    assert _starts([[1]], 3) == [0, 0, 0]


def test_perf_analyzers_input():
    assert perf_analyzer_input([[11, 12], [13]]) == {
        "data": [
            {"behavior_item_ids": {"content": [11, 12], "shape": [2]}},
            {"behavior_item_ids": {"content": [13], "shape": [1]}},
        ]
    }


def test_histories_without_padding():
    assert unpadded(np.array([[0, 11, 12], [0, 0, 0], [-1, 0, 13]])) == [[11, 12], [0], [13]]
    assert unpadded(np.array([["", "a"], ["", ""]], object)) == [["a"], [""]]


def test_a_summary_of_an_open_loop_tells_answers_from_refusals_and_faults():
    answered = [(None, 0.1)] * 50
    others = [(ServerOverloaded, 0.002)] * 40 + [(RequestTimeout, 1.0)] * 8 + [(ServerError, 0.0)] * 2
    assert _summary([*answered, *others], 10) == OpenLoadResult(
        offered_qps=10, goodput_qps=5, overloaded=0.4, late=0.08, failed=0.02, p50_ms=100, p99_ms=100, refusal_p99_ms=2
    )
    assert _summary([], 10) == OpenLoadResult(0, 0, 0, 0, 0, 0, 0, 0)

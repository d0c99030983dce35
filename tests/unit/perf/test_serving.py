"""How a benchmark deploys a bundle, and measures the memory of the server's processes."""

from __future__ import annotations

import os
import runpy
import subprocess
import sys

import numpy as np
import pytest
from support import triton_fakes

from nann.errors import ConfigError
from nann.item_ids import NUMBERS
from nann.perf.benchmarks import instances
from nann.perf.servers import hops
from nann.perf.servers.process_memory import model_pss_mb
from nann.perf.servers.serving import Deployment, install, pinned, read_config, usable_cores
from nann.python_backend.repository.install import TEMPLATE
from nann.signature import BEAM_RETRIEVAL, SCORER

CONFIGS = {
    BEAM_RETRIEVAL.name: "config.pbtxt",
    SCORER.name: "configs/embedded.pbtxt",
}


@pytest.fixture
def no_bundle(monkeypatch):
    """Installation copies only the hand-written configurations."""
    from nann.perf.servers import serving
    from nann.python_backend.repository.install import copy_template

    monkeypatch.setattr(serving, "install_bundle", lambda bundle, repository: copy_template(repository))


def test_a_deployment_changes_instances_and_threads_alone(no_bundle, tmp_path):
    repository = install(tmp_path, tmp_path / "repository", Deployment(instances=2, threads=3))
    for model, name in CONFIGS.items():
        config, template = read_config(repository / model / name), read_config(TEMPLATE / model / name)
        assert config.instance_group[0].count == 2
        config.instance_group[0].count = template.instance_group[0].count
        threads = "threads" if model == SCORER.name else "scorer_threads"
        assert config.parameters[threads].string_value == "3"
        config.parameters[threads].CopyFrom(template.parameters[threads])
        assert config == template


def test_without_a_deployment_the_configurations_stay_as_they_are(no_bundle, tmp_path):
    repository = install(tmp_path, tmp_path / "repository")
    for model, name in CONFIGS.items():
        assert read_config(repository / model / name) == read_config(TEMPLATE / model / name)


def test_pinning_ends_and_reaches_what_is_started():
    before = os.sched_getaffinity(0)
    core = usable_cores()[0]
    with pinned([core]):
        child = "import os; print(sorted(os.sched_getaffinity(0)))"
        assert subprocess.check_output([sys.executable, "-c", child], text=True).strip() == f"[{core}]"
    assert os.sched_getaffinity(0) == before


def test_one_core_is_too_few_to_compare(monkeypatch):
    monkeypatch.setattr(instances, "usable_cores", lambda: [3])
    with pytest.raises(ConfigError, match="compares one core with two; this process may use 1"):
        instances.deployments()


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_is_counted_by_model_in_the_servers_group_only(tmp_path):
    size_mb = 64
    child = f"import sys; held = bytearray(b'x') * ({size_mb} << 20); print('ready', flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", child, "/repository/scorer/1/model.py"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with (
        subprocess.Popen(command, start_new_session=True, **pipes) as ours,
        subprocess.Popen(command, **pipes) as other,
    ):
        for process in (ours, other):
            process.stdout.readline()
        found = model_pss_mb(ours.pid)
        for process in (ours, other):
            process.stdin.close()
    assert list(found) == ["scorer"]
    assert size_mb < found["scorer"] < 2 * size_mb


def test_quality_counts_each_user_once():
    from types import SimpleNamespace

    from nann.features import FeatureTransform
    from nann.perf.corpora.asked_users import AskedUsers
    from nann.perf.load.perf_analyzer import Answer
    from nann.search_input import UserBatch
    from nann.training.data.prepared import Queries
    from nann.training.search.measured_users import MeasuredUsers

    ids = np.arange(10, dtype=np.int64) * 10 + 100
    queries = Queries(
        behaviors=np.array([[-1, 0], [1, 2]], np.int32),
        external_ids=np.array([[0, 100], [110, 120]]),
        profiles=np.zeros((2, 1), np.int32),
        target_indptr=np.array([0, 2, 3]),
        target_items=np.array([3, 4, 5], np.int32),
        users=np.array([0, 1], np.int32),
        excluded_indptr=np.zeros(3, np.int64),
        excluded_items=np.zeros(0, np.int32),
    )
    bundle = SimpleNamespace(features=FeatureTransform(ids, 2, ()), id_kind=NUMBERS)
    exact = np.array([[3, 6], [7, 8]], np.int32)
    batch = UserBatch(np.zeros((2, 1), np.float32), queries.behaviors)
    asked = AskedUsers(bundle, MeasuredUsers(batch, queries, exact))
    assert asked.histories == [[100], [110, 120]]
    first, second = Answer((100,), 1.0, (130, 140), 2), Answer((110, 120), 1.0, (170,), 2)
    assert asked.quality([first, second, first, first]) == {
        "recall": 0.5,  # 2 of 2 and 0 of 1
        "recall_all": 0.25,
        "coverage": 0.5,
        "users": 2.0,
    }
    assert asked.quality([second])["recall"] == 0.0


def test_the_empty_search_calls_as_often_and_with_as_many_candidates_as_users_do_on_average():
    from nann.perf.servers.hops import mean_sizes

    states = np.zeros((1, 3), np.float32)
    users = [[(states, np.zeros((1, width), np.int32)) for width in widths] for widths in ((10, 4), (20, 6, 8), (30,))]
    assert mean_sizes(users) == [20, 5]


def test_an_empty_model_is_loaded_from_a_file_of_no_package(tmp_path, monkeypatch):
    """Triton loads it in this way, in which relative imports fail."""
    monkeypatch.setitem(sys.modules, "triton_python_backend_utils", triton_fakes)
    path = tmp_path / "model.py"
    path.write_text(hops._MODEL.format(columns={"scores": 10}, calls=[3]))
    model = runpy.run_path(str(path))["TritonPythonModel"]
    assert (model.columns, model.calls) == ({"scores": 10}, [3])

"""`nann plan-shapes`: its counts, the files it writes, and padded scores against plain scores at every grid point."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest

from nann import item_sets
from nann.beam_search import beam_search
from nann.bundle import Bundle
from nann.errors import DataError
from nann.search_input import UserBatch
from nann.search_params import SearchParams
from nann.shape_grid import DEFAULT_GRID
from nann.training.scorers import OnnxScorer, OnnxUserEncoder
from nann.training.search.shape_plan import data_requests, plan_shapes, read_requests

pytestmark = pytest.mark.heavy


@pytest.fixture
def bundle(exported_bundle, tmp_path):
    return Bundle.open(shutil.copytree(exported_bundle, tmp_path / "bundle"))


def test_the_plan_counts_what_the_search_scores(bundle, data):
    requests = data_requests(data, bundle, 6)
    plan = plan_shapes(bundle, requests, 2)
    states = OnnxUserEncoder(bundle.path / "user_encoder.onnx").encode(requests.behaviors, requests.profiles)
    users = UserBatch(states, requests.behaviors)
    found = beam_search(bundle.index, OnnxScorer(bundle.path / "scorer.onnx"), users, bundle.search_params)
    # Every request is replayed once in batches of each size. The batch size does not change which items are scored.
    assert plan.candidates == len(DEFAULT_GRID.batch_sizes) * found.items_scored.sum()
    assert plan.candidates <= plan.lockstep <= plan.padded <= plan.default_padded
    assert 0 <= plan.waste < 1
    assert plan.waste <= plan.default_waste


def test_more_shapes_pad_less(bundle, data):
    requests = data_requests(data, bundle, 6)
    padded = [plan_shapes(Bundle.open(bundle.path), requests, count).padded for count in (1, 2, 4)]
    assert padded == sorted(padded, reverse=True)


def test_the_bundle_gets_the_grid_and_a_real_request(bundle, data):
    requests = data_requests(data, bundle, 6)
    plan = plan_shapes(bundle, requests, 3)
    again = Bundle.open(bundle.path)
    assert again.shape_grid == plan.grid
    rows = {path.name: np.load(path) for path in bundle.path.glob("warmup.*.npy")}
    np.testing.assert_array_equal(rows["warmup.behaviors.npy"], requests.behaviors[0])
    np.testing.assert_array_equal(rows["warmup.profile_codes.npy"], requests.profiles[0])
    assert rows["warmup.user_state.npy"].shape == (again.user_state_width,)
    candidates = rows["warmup.candidates.npy"]
    assert candidates.min() >= 0
    assert len(np.unique(candidates)) == len(candidates) <= plan.grid.widths[-1]


def test_padded_and_unpadded_scores_agree_at_every_point(bundle, data):
    requests = data_requests(data, bundle, 16)
    grid = plan_shapes(bundle, requests, 4).grid
    users = np.resize(np.arange(len(requests.behaviors)), 16)
    states = OnnxUserEncoder(bundle.path / "user_encoder.onnx").encode(
        requests.behaviors[users], requests.profiles[users]
    )
    scorer, rng = OnnxScorer(bundle.path / "scorer.onnx"), np.random.default_rng(0)
    for batch_size, width in grid.points:
        # The fewest users and candidates that are padded to this point, so the most padding.
        real_users = max((size for size in grid.batch_sizes if size < batch_size), default=0) + 1
        real_width = max((other for other in grid.widths if other < width), default=0) + 1
        candidates = rng.integers(0, bundle.item_count, (real_users, real_width)).astype(np.int32)
        ((columns, part),) = grid.padded(candidates)
        assert part.shape == (batch_size, width)
        padded_states = states[np.minimum(np.arange(len(part)), real_users - 1)]
        got = scorer.score(padded_states, part)[:real_users, : columns.stop]
        expected = scorer.score(states[:real_users], candidates)
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5)


def test_a_log_of_requests(bundle, tmp_path):
    ids = bundle.item_ids
    lines = [
        {"behavior_item_ids": ids[:3].tolist(), "user_profile": [1, 1]},
        {"behavior_item_ids": []},
        {"behavior_item_ids": ids[5:7].tolist(), "top_k": 4, "entry": "layers", "ef": [5, 20], "rounds": [1, 2]},
        {"behavior_item_ids": ids[:1].tolist(), "entry": "seeds", "seeds": 30, "ef": "25"},
        {"behavior_item_ids": ids[:20].tolist(), "exclude_history": True, "exclude_item_ids": ids[30:32].tolist()},
        {"behavior_item_ids": [], "allow_item_ids": [*ids[50:55].tolist(), -9]},
    ]
    path = tmp_path / "requests.jsonl"
    path.write_text("\n".join([*map(json.dumps, lines), ""]))
    requests = read_requests(path, bundle)
    np.testing.assert_array_equal(requests.behaviors[0, -3:], [0, 1, 2])
    np.testing.assert_array_equal(requests.behaviors[1], np.full(bundle.sequence_length, -1))
    np.testing.assert_array_equal(requests.profiles, [[1, 1]] + [[0, 0]] * 5)
    default = bundle.search_params
    by_seeds = replace(default, ef=(25,), seeds=replace(default.seeds, count=30))
    assert list(requests.params) == [default, default, SearchParams(4, (5, 20), (1, 2)), by_seeds, default, default]
    blocked = [None if each is None else item_sets.members(each[0]).tolist() for each in requests.blocked]
    assert blocked[:5] == [None] * 4 + [[*range(20), 30, 31]]
    assert set(range(bundle.item_count)) - set(blocked[5]) == set(range(50, 55))
    assert plan_shapes(bundle, requests, 3).calls > 0


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "line 2: Expecting"),
        ("[1, 2]", "line 2: expected an object with behavior_item_ids"),
        ('{"behavior_item_ids": [1], "topk": 3}', "line 2: expected an object with behavior_item_ids and perhaps"),
        ('{"behavior_item_ids": ["x"]}', "line 2: invalid literal"),
        ('{"behavior_item_ids": [1], "top_k": 0}', "line 2: parameter top_k: 0 is out of bounds"),
        ('{"behavior_item_ids": [1], "entry": "door"}', "line 2: parameter entry is 'door'; expected"),
        ('{"behavior_item_ids": [1], "user_profile": [1]}', r"line 2: user_profile has shape \\[1, 1\\]"),
    ],
)
def test_a_log_with_a_mistake_names_the_line(bundle, tmp_path, line, message):
    path = tmp_path / "requests.jsonl"
    path.write_text(f'{{"behavior_item_ids": [1]}}\n{line}\n')
    with pytest.raises(DataError, match=message.replace("\\\\", "\\")):
        read_requests(path, bundle)


def test_no_requests(bundle, tmp_path):
    with pytest.raises(DataError, match="can't be read: No such file"):
        read_requests(tmp_path / "nowhere", bundle)
    (tmp_path / "empty").write_text("\n")
    with pytest.raises(DataError, match="holds no requests; expected one JSON object per line"):
        read_requests(tmp_path / "empty", bundle)

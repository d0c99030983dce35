"""All items, light scan and walk of the GPU report, on the CPU and against NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from support import live_bundle

from nann.bundle import LIGHT_VECTORS_FILE
from nann.errors import ConfigError
from nann.perf.gpu.strategies import LEVELS, SHARES, DeepScorer, measure_strategies, strategies_text
from nann.python_backend.repository.install import install_bundle
from nann.search_input import UserBatch

CPU = torch.device("cpu")


@pytest.fixture(scope="module", params=[False, True], ids=["table", "rows"])
def served(request, tmp_path_factory):
    """A bundle, and the repository that has it."""
    folder = tmp_path_factory.mktemp("strategies")
    bundle = live_bundle.make_bundle(folder / "bundle", item_rows=request.param)
    install_bundle(bundle.path, folder / "repository")
    return bundle, folder / "repository"


@pytest.fixture
def users():
    rng = np.random.default_rng(0)
    states = rng.normal(size=(3, live_bundle.DIM + 1)).astype(np.float32)
    states[:, -1] = 0  # the column that makes the scorer fail
    own = rng.integers(0, live_bundle.ITEMS, (3, 4)).astype(np.int32)
    own[1, 2:] = -1
    return UserBatch(states, own)


def test_every_strategy_finds_all_where_it_scores_all(served, users):
    bundle, repository = served
    result = measure_strategies(repository, bundle, users, CPU)
    assert result["users"] == 3
    points = result["points"]
    assert all(point["ms"] > 0 for point in points)
    for share in SHARES:
        own = [point for point in points if point["share"] == share]
        assert {point["matching"] for point in own} == {round(share * 4000)}
        assert [point["coverage"] for point in own if point["strategy"] == "all"] == [1.0]
        scans = [point["coverage"] for point in own if point["strategy"] == "scan"]
        assert scans == sorted(scans)
        assert scans[-1] == 1.0
        assert max(point["coverage"] for point in own if point["strategy"] == "walk") > 0.9


def test_the_best_of_any_number_of_items_are_those_that_numpy_finds(served, users):
    bundle, repository = served
    deep = DeepScorer.of(repository, bundle, CPU)
    for count in (30, 4000):
        items = np.random.default_rng(count).permutation(4000)[:count].astype(np.int32)
        scores = bundle.item_vectors[items] @ users.states[0, :-1]
        got = deep.best(torch.from_numpy(users.states[:1]), torch.from_numpy(items), 20)
        np.testing.assert_array_equal(got, items[np.argsort(-scores)[:20]])
        np.testing.assert_allclose(deep.score(users.states[:1], items[None])[0], scores, rtol=1e-4, atol=1e-4)


def test_the_table_has_the_fastest_setting_that_covers_enough():
    def point(strategy, setting, coverage, ms, share=1.0):
        return {
            "share": share, "matching": round(4000 * share), "strategy": strategy, "setting": setting,
            "coverage": coverage, "ms": ms,
        }  # fmt: skip

    points = [point("all", "", 1.0, 5.0, share) for share in SHARES]
    points += [point("scan", "a", 0.94, 1.0), point("scan", "b", 0.96, 3.0), point("scan", "c", 0.97, 2.0)]
    text = strategies_text({"users": 8, "points": points})
    rows = [line for line in text.splitlines() if line.startswith("| 4,000 (100%)")]
    assert len(rows) == len(LEVELS)
    assert rows[0] == "| 4,000 (100%) | 90% | 5.000 | 1.000 a | not reached |"
    assert rows[1] == "| 4,000 (100%) | 95% | 5.000 | 2.000 c | not reached |"
    assert rows[2] == "| 4,000 (100%) | 98% | 5.000 | not reached | not reached |"
    assert "| 40 (1%) | 99% | 5.000 | not reached | not reached |" in text


def test_without_light_vectors_there_is_no_scan(users, tmp_path):
    bundle = live_bundle.make_bundle(tmp_path / "bundle").change(removed=[LIGHT_VECTORS_FILE])
    with pytest.raises(ConfigError, match="no light vectors, so that there is no light scan"):
        measure_strategies(tmp_path, bundle, users, CPU)

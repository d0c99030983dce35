"""A scorer under OpenVINO in bfloat16, as far as this CPU has it."""

from __future__ import annotations

import shutil
import sys

import numpy as np
import pytest
from support import native_bundle

from nann.bundle import Bundle
from nann.errors import ConfigError, ScorerError
from nann.native_scorer import NATIVE_SCORER_FILE
from nann.python_backend.engines.choose import open_scorer
from nann.python_backend.engines.onnx_model import EmbeddedScorer
from nann.python_backend.engines.openvino_model import OpenVinoModel, openvino_refusal
from nann.python_backend.repository.install import install_bundle

needs_openvino = pytest.mark.skipif(openvino_refusal() is not None, reason=str(openvino_refusal()))


@pytest.fixture(scope="module", params=[False, True], ids=["table", "rows"])
def bundle(request, tmp_path_factory) -> Bundle:
    """Of a scorer that has no native form."""
    made = native_bundle.make_bundle(tmp_path_factory.mktemp("made") / "bundle", item_rows=request.param)
    return made.change(removed=[NATIVE_SCORER_FILE], export={**made.manifest["export"], "native": None})


@needs_openvino
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("width", [1, 300, 5000])
def test_it_scores_as_onnxruntime(bundle, threads, width):
    path = bundle.path / "scorer.onnx"
    model = OpenVinoModel(path, bundle.exported_models["scorer"], threads)
    rng = np.random.default_rng(0)
    states = rng.normal(size=(3, native_bundle.WIDTH)).astype(np.float32)
    states[:, -1] = 0
    items = rng.integers(bundle.item_count, size=(3, width)).astype(np.int32)
    items[2, width // 2 :] = -1
    expected = EmbeddedScorer.open(path, rows=bundle.item_rows).score(states, items)
    got = model.score(states, items, bundle.item_rows)
    known = items >= 0
    np.testing.assert_allclose(got[known], expected[known], rtol=0, atol=0.02 * np.abs(expected).max())


@needs_openvino
def test_a_call_that_fails_names_the_shapes(bundle):
    model = OpenVinoModel(bundle.path / "scorer.onnx", bundle.exported_models["scorer"])
    with pytest.raises(
        ScorerError, match=r"scorer failed under OpenVINO on user_state \[1, 3\], candidate\w* \[1, 128"
    ):
        model.score(np.zeros((1, 3), np.float32), np.zeros((1, 2), np.int32), bundle.item_rows)


@needs_openvino
def test_a_scorer_without_a_native_form_is_compared_under_it(bundle, tmp_path):
    install_bundle(bundle.path, tmp_path / "repository")
    folder = tmp_path / "repository" / "scorer" / "1"
    _, chosen = open_scorer(folder, "auto")
    said = str(chosen)
    assert "native: the bundle has no native form" in said
    assert "of onnxruntime's time" in said if "openvino" in said else "keeps" in said
    _, chosen = open_scorer(folder, "openvino")
    assert isinstance(chosen.engine, OpenVinoModel)


def test_where_it_is_not_installed_it_says_so(bundle, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino", None)
    install_bundle(bundle.path, tmp_path / "repository")
    folder = tmp_path / "repository" / "scorer" / "1"
    _, chosen = open_scorer(folder, "auto")
    assert chosen.name == "onnxruntime"
    assert "openvino: it is not installed (`pip install 'nann[serve-openvino]'`)" in chosen.reason
    with pytest.raises(ConfigError, match="engine is 'openvino', but it is not installed"):
        open_scorer(folder, "openvino")


@needs_openvino
def test_a_file_that_it_does_not_take_leaves_onnxruntime(bundle, tmp_path):
    path = shutil.copy(bundle.path / "scorer.onnx", tmp_path / "scorer.onnx")
    with open(path, "r+b") as stream:
        stream.truncate(100)
    with pytest.raises(RuntimeError):
        OpenVinoModel(tmp_path / "scorer.onnx", bundle.exported_models["scorer"])

"""A bundle with item rows in each model, without Triton, against the same bundle with an item table."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from google.protobuf import text_format
from support import live_bundle, triton_fakes
from support.tiny_bundle import make_plans
from support.triton_fakes import SEARCH_PARAMETERS
from tritonclient.grpc import model_config_pb2

from nann.bundle import ITEM_ROWS_FILE, Bundle
from nann.errors import BundleError, ConfigError, DeployError
from nann.plans import Plans
from nann.python_backend.engines.onnx_model import EmbeddedScorer
from nann.python_backend.models.torch_model import pad_users
from nann.python_backend.repository.configs import copy_template, write_made_configs
from nann.python_backend.repository.deploy import _check_configs
from nann.python_backend.repository.install import install_bundle
from nann.python_backend.repository.versions import write_release
from nann.python_backend.search.bls_scorer import BlsScorer
from nann.python_backend.server.heartbeat import tiny_request
from nann.shape_grid import ShapeGrid
from nann.signature import CANDIDATE_ROWS, SCORER

TARGETS = ("embedded", "onnxruntime", "torch")


@pytest.fixture(scope="module")
def table(tmp_path_factory) -> Bundle:
    return live_bundle.make_bundle(tmp_path_factory.mktemp("table") / "bundle")


@pytest.fixture(scope="module")
def rows(tmp_path_factory) -> Bundle:
    return live_bundle.make_bundle(tmp_path_factory.mktemp("rows") / "bundle", item_rows=True)


@pytest.fixture(scope="module")
def repository(rows, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("served") / "repository"
    install_bundle(rows.path, path)
    return path


@pytest.fixture
def candidates() -> tuple[np.ndarray, np.ndarray]:
    """User states and items of three users, the second and third padded."""
    rng = np.random.default_rng(0)
    states = np.pad(rng.normal(size=(3, live_bundle.DIM)), ((0, 0), (0, 1))).astype(np.float32)
    items = rng.integers(live_bundle.ITEMS, size=(3, 1700)).astype(np.int32)
    items[1, 900:], items[2, 5:] = -1, -1
    return states, items


def expected(table, states, items):
    return np.where(items < 0, 0, EmbeddedScorer.open(table.path / "scorer.onnx").score(states, items))


def inputs(path: Path) -> list[tuple[str, list[int]]]:
    config = text_format.Parse(path.read_text(), model_config_pb2.ModelConfig())
    return [(tensor.name, list(tensor.dims)) for tensor in config.input]


@pytest.mark.parametrize("threads", [1, 2])
def test_blocks_of_rows_score_as_the_table(table, rows, candidates, threads):
    scorer = EmbeddedScorer.open(rows.path / "scorer.onnx", threads, rows.item_rows)
    scores = scorer.score(*candidates)
    np.testing.assert_allclose(np.where(candidates[1] < 0, 0, scores), expected(table, *candidates), rtol=1e-6)


@pytest.mark.parametrize("module", ["embedded_onnx", "torch_model"])
def test_the_served_scorers_take_rows(table, rows, repository, candidates, module):
    import importlib

    model = importlib.import_module(f"nann.python_backend.models.{module}").TritonPythonModel()
    model.initialize(triton_fakes.arguments_of(repository, "scorer", threads="2", cuda_graphs="true"))
    states, items = candidates
    requests = [
        triton_fakes.Request({"user_state": states[r], "candidate_rows": rows.item_rows.gather(items[r])})
        for r in (slice(0, 1), slice(1, 3))  # run together
    ]
    responses = model.execute(requests)
    assert not any(response.has_error() for response in responses)
    scores = np.concatenate([response.arrays()["candidate_scores"] for response in responses])
    np.testing.assert_allclose(np.where(items < 0, 0, scores), expected(table, states, items), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("grid", [None, ShapeGrid((1, 4, 16), (64, 512))], ids=["any shape", "grid"])
@pytest.mark.parametrize("largest", [1 << 26, 40_000], ids=["one call", "several"])
def test_calls_of_the_model_send_rows(table, rows, candidates, monkeypatch, grid, largest):
    monkeypatch.setattr("nann.python_backend.search.bls_scorer._LARGEST_ROWS_BYTES", largest)
    in_process = EmbeddedScorer.open(rows.path / "scorer.onnx", 1, rows.item_rows)

    def answer(call):
        sent = call.inputs["candidate_rows"]
        assert set(call.inputs) == {"user_state", "candidate_rows"}
        assert sent.nbytes <= max(largest, 16 * 512 * 17 * 4)
        scores = in_process._model.score(call.inputs["user_state"], sent)
        return triton_fakes.InferenceResponse([triton_fakes.Tensor("candidate_scores", scores)])

    monkeypatch.setattr(triton_fakes.InferenceRequest, "answer", answer)
    monkeypatch.setattr(triton_fakes.InferenceRequest, "calls", [])
    states, items = candidates
    scorer = BlsScorer(1, grid, rows.item_rows)
    scores = scorer.score(states, items)
    np.testing.assert_allclose(np.where(items < 0, 0, scores), expected(table, states, items), rtol=1e-6)
    calls = len(triton_fakes.InferenceRequest.calls)
    assert scorer.work.calls == calls
    assert calls == (4 if grid else 1 if largest > 1 << 20 else 3 + 2 + 1)
    assert scorer.work.items == 1700 + 900 + 5


@pytest.mark.parametrize("place", ["bls", "in_process"])
def test_beam_retrieval_finds_the_same(table, rows, repository, tmp_path, monkeypatch, place):
    from nann.python_backend.models.beam_retrieval import TritonPythonModel

    def answer(call):
        scores = scorer._model.score(call.inputs["user_state"], call.inputs[given])
        return triton_fakes.InferenceResponse([triton_fakes.Tensor("candidate_scores", scores)])

    monkeypatch.setattr(triton_fakes.InferenceRequest, "answer", answer)
    install_bundle(table.path, tmp_path / "repository")
    found = {}
    rng = np.random.default_rng(5)
    asked = {
        "user_state": np.pad(rng.normal(size=(4, live_bundle.DIM)), ((0, 0), (0, 1))),
        "behaviors": rng.integers(10, live_bundle.ITEMS, (4, live_bundle.SEQUENCE_LENGTH)),
    }
    for bundle, path, given in ((table, tmp_path / "repository", "candidates"), (rows, repository, "candidate_rows")):
        scorer = EmbeddedScorer.open(bundle.path / "scorer.onnx", 1, bundle.item_rows)
        model = TritonPythonModel()
        bounds = {"max_ef": "100", "max_top_k": "100", "scorer": place, "scorer_threads": "1"}
        model.initialize(triton_fakes.arguments_of(path, "beam_retrieval", **{**SEARCH_PARAMETERS, **bounds}))
        tensors = {
            "user_state": asked["user_state"].astype(np.float32),
            "behaviors": asked["behaviors"].astype(np.int32),
        }
        (response,) = model.execute([triton_fakes.Request(tensors, json.dumps({}))])
        found[given] = response.arrays()
        model.finalize()
    np.testing.assert_array_equal(found["candidates"]["item_ids"], found["candidate_rows"]["item_ids"])
    np.testing.assert_allclose(found["candidates"]["scores"], found["candidate_rows"]["scores"], rtol=1e-6)


def test_only_the_search_has_the_rows_and_only_the_scorer_the_model(repository):
    assert (repository / "beam_retrieval" / "1" / ITEM_ROWS_FILE).is_file()
    assert not (repository / "scorer" / "1" / ITEM_ROWS_FILE).exists()


@pytest.mark.parametrize("target", TARGETS)
def test_configurations_have_the_input_of_the_bundles_form(table, rows, tmp_path, target):
    path = tmp_path / "repository" / "scorer" / "configs" / f"{target}.pbtxt"
    for bundle, last in ((rows, ("candidate_rows", [-1, -1])), (table, ("candidates", [-1])), (rows, None)):
        install_bundle(bundle.path, tmp_path / "repository")
        assert inputs(path) == [("user_state", [-1]), last or ("candidate_rows", [-1, -1])]
    path.write_text(path.read_text().replace("# Item indices", "# Mine. Item indices"))  # a person's change stays
    install_bundle(table.path, tmp_path / "repository")
    assert "# Mine." in path.read_text()
    assert inputs(path)[1] == ("candidates", [-1])


def test_a_second_start_writes_nothing(rows, tmp_path):
    install_bundle(rows.path, tmp_path / "repository")
    configs = sorted((tmp_path / "repository").glob("*/configs/*.pbtxt"))
    before = [(path.stat().st_ino, path.stat().st_mtime_ns) for path in configs]
    copy_template(tmp_path / "repository")
    write_made_configs(tmp_path / "repository", 1)
    assert [(path.stat().st_ino, path.stat().st_mtime_ns) for path in configs] == before


def test_a_configuration_without_the_input(rows, tmp_path):
    copy_template(tmp_path / "repository")
    path = tmp_path / "repository" / "scorer" / "configs" / "torch.pbtxt"
    path.write_text(path.read_text().replace('"candidates"', '"items"'))
    with pytest.raises(ConfigError, match=r"torch\.pbtxt has no input candidates to replace, .*; restore"):
        install_bundle(rows.path, tmp_path / "repository")


def test_the_plans_configuration_states_the_shape_of_rows(rows, tmp_path):
    plans = make_plans(tmp_path / "plans", rows)
    install_bundle(rows.path, tmp_path / "repository", plans=plans)
    path = tmp_path / "repository" / "scorer" / "configs" / "tensorrt.pbtxt"
    assert inputs(path)[1] == ("candidate_rows", [-1, -1])
    config = text_format.Parse(path.read_text(), model_config_pb2.ModelConfig())
    shapes = {tuple(one.input["candidate_rows"].dim) for one in config.optimization.cuda.graph_spec}
    assert shapes == {(width, live_bundle.DIM + 1) for width in rows.shape_grid.widths}
    assert {tuple(one.inputs["candidate_rows"].dims) for one in config.model_warmup} == shapes
    assert Plans.open(plans, rows)


def test_plans_of_another_item_table_are_refused(tmp_path):
    """A large table is beside the ONNX file, which may be the same for two corpora."""
    bundle = live_bundle.make_bundle(tmp_path / "bundle")
    for content in (b"one table", b"another one"):
        (bundle.path / "scorer.onnx.data").write_bytes(content)
        bundle = bundle.change(written=["scorer.onnx.data"])
        if content == b"one table":
            plans = make_plans(tmp_path / "plans", bundle)
            assert Plans.open(plans, bundle)
    with pytest.raises(BundleError, match=r"scorer\.plan was built from another scorer\.onnx"):
        Plans.open(plans, bundle)


def test_a_running_server_keeps_its_form(table, rows, tmp_path):
    install_bundle(table.path, tmp_path / "repository")
    write_release(rows, tmp_path / "repository", 2)
    message = "the bundle has item rows, and the current one an item table in the scorer; .* restart `nann serve`"
    with pytest.raises(DeployError, match=message):
        _check_configs(tmp_path / "repository", 1, 2)
    _check_configs(tmp_path / "repository", 2, 2)


def test_a_bundle_without_its_rows(tmp_path):
    bundle = live_bundle.make_bundle(tmp_path / "bundle", item_rows=True)
    bundle.change(removed=[ITEM_ROWS_FILE])
    with pytest.raises(BundleError, match=r"the bundle has no item_rows\.npy; run"):
        install_bundle(bundle.path, tmp_path / "repository")


def test_a_tiny_request_of_rows(rows):
    scorer = rows.exported_models[SCORER.name]
    tensors = tiny_request(rows)
    assert {tensor.name: tensors[tensor].shape for tensor in scorer.inputs} == {
        "user_state": (1, 17),
        "candidate_rows": (1, 1, 17),
    }
    assert tensors[CANDIDATE_ROWS].dtype == np.float32


def test_users_are_padded_whatever_the_rank():
    import torch

    padded = pad_users({"user_state": torch.ones(2, 3), "candidate_rows": torch.ones(2, 4, 5)}, 4)
    assert {name: tuple(value.shape) for name, value in padded.items()} == {
        "user_state": (4, 3),
        "candidate_rows": (4, 4, 5),
    }

"""The models of the target `torch` without Triton, and on the CPU. On a GPU: tests/gpu."""

import json
import shutil

import numpy as np
import pytest
import torch
from support import tiny_bundle, triton_fakes
from support.triton_fakes import SEARCH_PARAMETERS, arguments_of

from nann.bundle import Bundle
from nann.errors import BundleError, ConfigError
from nann.shape_grid import ShapeGrid
from nann.signature import SCORER, USER_ENCODER

GRID = ShapeGrid((2, 16), (5, 12))


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    from nann.python_backend.repository.install import install_bundle

    folder = tmp_path_factory.mktemp("torch")
    bundle = tiny_bundle.make_bundle(folder / "bundle", shape_grid=GRID.to_manifest())
    install_bundle(bundle.path, folder / "repository")
    return folder / "repository"


@pytest.fixture
def load(repository):
    def make(name):
        from nann.python_backend.models.torch_model import TritonPythonModel

        model = TritonPythonModel()
        model.initialize(arguments_of(repository, name, cuda_graphs="true"))
        return model

    return make


def embedded(repository, name):
    from nann.python_backend.models.embedded_onnx import TritonPythonModel

    model = TritonPythonModel()
    model.initialize(arguments_of(repository, name))
    return model


def score_request(users, width, seed=0):
    rng = np.random.default_rng(seed)
    states = rng.normal(size=(users, tiny_bundle.LENGTH)).astype(np.float32)
    return triton_fakes.Request(
        {"user_state": states, "candidates": rng.integers(-1, tiny_bundle.ITEMS, (users, width)).astype(np.int32)}
    )


@pytest.mark.parametrize(
    "shapes", [[(1, 5)], [(2, 5), (16, 12)], [(3, 7)], [(1, 5), (4, 5), (2, 5)], [(16, 5), (2, 5)]]
)
def test_the_scorer_answers_as_the_embedded_one_in_the_grid_and_outside(load, repository, shapes):
    requests = [score_request(users, width, seed) for seed, (users, width) in enumerate(shapes)]
    for got, expected in zip(
        load("scorer").execute(requests), embedded(repository, "scorer").execute(requests), strict=True
    ):
        np.testing.assert_allclose(
            got.arrays()["candidate_scores"], expected.arrays()["candidate_scores"], rtol=1e-5, atol=1e-5
        )


def test_the_user_encoder_answers_as_the_embedded_one(load, repository):
    rng = np.random.default_rng(0)
    requests = [
        triton_fakes.Request(
            {
                "behaviors": rng.integers(-1, 30, (users, tiny_bundle.LENGTH)).astype(np.int32),
                "profile_codes": np.zeros((users, 1), np.int32),
            }
        )
        for users in (1, 3, 2)
    ]
    for got, expected in zip(
        load("user_encoder").execute(requests), embedded(repository, "user_encoder").execute(requests), strict=True
    ):
        np.testing.assert_array_equal(got.arrays()["user_state"], expected.arrays()["user_state"])


def test_a_failing_run_is_an_error_and_the_next_one_is_answered(load):
    model = load("scorer")
    bad = triton_fakes.Request({"user_state": np.zeros((1, 4), np.float32)})
    wrong = triton_fakes.Request({"user_state": np.zeros((1, 4)), "candidates": np.zeros((1, 2), np.int32)})
    assert "candidates is missing; expected INT32" in model.execute([bad])[0].error().message()
    assert "user_state has dtype torch.float64; expected FP32" in model.execute([wrong])[0].error().message()
    assert not model.execute([score_request(1, 2)])[0].has_error()


def test_shapes_to_capture_are_the_grids(repository):
    from nann.python_backend.engines.torch_runner import model_shapes

    bundle = Bundle.open(repository / "scorer" / "1", ())
    shapes = [tuple(one["candidates"]) for one in model_shapes(bundle, SCORER)]
    assert shapes == [(16, 12), (2, 12), (16, 5), (2, 5)]
    assert {one["user_state"] for one in model_shapes(bundle, SCORER)} == {(16, 4), (2, 4)}
    encoder = model_shapes(bundle, USER_ENCODER)
    assert encoder == [{"behaviors": (users, 4), "profile_codes": (users, 1)} for users in (16, 2)]


def test_a_bundle_that_does_not_state_the_width_of_user_state(tmp_path):
    bundle = tiny_bundle.make_bundle(tmp_path / "bundle")
    manifest = {key: value for key, value in bundle.manifest.items() if key != "export"}
    with pytest.raises(BundleError, match="states no width of user_state; run `nann export`"):
        _ = Bundle(bundle.path, manifest).user_state_width


def test_a_changed_file_stops_the_load(repository, tmp_path):
    from nann.python_backend.engines.torch_runner import load_runner

    shutil.copytree(repository / "scorer" / "1", tmp_path / "1")
    content = bytearray((tmp_path / "1" / "model.onnx").read_bytes())
    content[-1] ^= 1
    (tmp_path / "1" / "model.onnx").write_bytes(content)
    with pytest.raises(BundleError, match=r"model\.onnx has sha256"):
        load_runner(tmp_path / "1", "scorer", torch.device("cpu"))


# beam_retrieval: the states stay where they are


def ask(*places, **parameters):
    states = np.repeat(np.array(places, np.float32)[:, None], tiny_bundle.LENGTH, axis=1)
    return triton_fakes.Request({"user_state": states}, json.dumps(parameters))


@pytest.fixture
def answer_by_torch(load, monkeypatch):
    scorer = load("scorer")

    def answer(call):
        return scorer.execute([triton_fakes.Request(call.inputs)])[0]

    monkeypatch.setattr(triton_fakes.InferenceRequest, "answer", answer)
    monkeypatch.setattr(triton_fakes.InferenceRequest, "calls", [])


def test_the_search_with_states_on_the_device_is_the_search(repository, answer_by_torch):
    from nann.python_backend.models import beam_retrieval, torch_beam_retrieval

    requests = [ask(3), ask(17, 25, top_k=7), ask(9, top_k=0), ask(9, ef="1,2", rounds="0,1", top_k=2), ask(5, top_k=1)]
    answers = []
    for module in (beam_retrieval, torch_beam_retrieval):
        model = module.TritonPythonModel()
        model.initialize(arguments_of(repository, "beam_retrieval", **SEARCH_PARAMETERS, pad_to_grid="true"))
        triton_fakes.InferenceRequest.calls.clear()
        answers.append(model.execute(requests))
        assert {call.inputs["candidates"].shape for call in triton_fakes.InferenceRequest.calls} <= set(GRID.points)
    for one, other in zip(*answers, strict=True):
        assert one.has_error() == other.has_error()
        for name, array in one.arrays().items():
            np.testing.assert_array_equal(array, other.arrays()[name], err_msg=name)
    assert answers[0][2].has_error()


def test_user_states_must_be_rows(repository, answer_by_torch):
    from nann.python_backend.models.torch_beam_retrieval import TritonPythonModel

    model = TritonPythonModel()
    model.initialize(arguments_of(repository, "beam_retrieval", **SEARCH_PARAMETERS))
    (response,) = model.execute([triton_fakes.Request({"user_state": np.zeros((1, 0), np.float32)})])
    assert "user_state has shape [1, 0]; expected [batch, size]" in response.error().message()


def test_states_on_the_device_and_the_scorer_in_process_exclude_each_other(repository):
    from nann.python_backend.models.torch_beam_retrieval import TritonPythonModel

    with pytest.raises(ConfigError, match="parameter scorer is 'in_process'; expected 'bls'"):
        TritonPythonModel().initialize(
            arguments_of(repository, "beam_retrieval", **SEARCH_PARAMETERS, scorer="in_process")
        )

"""beam_retrieval as the one step of the ensemble, in the fake Triton, answers as the separate steps do in turn."""

import json

import numpy as np
import pytest
from support import tiny_bundle, triton_fakes
from support.triton_fakes import SEARCH_PARAMETERS, arguments_of

from nann.errors import BundleError, ScorerError
from nann.python_backend.repository.install import install_bundle
from nann.signature import HEARTBEAT_ID, RESTARTS

FEATURES = {
    "max_request_length": "9",
    "max_list_length": "3",
    "max_stored_length": "6",
    "history_timeout_ms": "1000",
}
IDS = tiny_bundle.item_ids()


def loaded(repository, model="beam_retrieval", **parameters):
    from nann.python_backend.models.beam_retrieval import TritonPythonModel as Search
    from nann.python_backend.models.embedded_onnx import TritonPythonModel as Onnx
    from nann.python_backend.models.feature_transform import TritonPythonModel as Features

    kind = {"beam_retrieval": Search, "feature_transform": Features, "user_encoder": Onnx}[model]
    made = kind()
    made.initialize(arguments_of(repository, model, **parameters))
    return made


@pytest.fixture
def one_step(repository):
    model = loaded(repository, one_step="true", scorer="in_process", **FEATURES, **SEARCH_PARAMETERS)
    yield model
    model.finalize()


def ask(ids, parameters="{}", request_id="", **tensors):
    return triton_fakes.Request({"behavior_item_ids": np.array(ids, np.int64), **tensors}, parameters, request_id)


def step_by_step(repository, requests):
    """The answers of the separate models."""
    features = loaded(repository, "feature_transform", **FEATURES)
    encoder = loaded(repository, "user_encoder")
    search = loaded(repository, scorer="in_process", **SEARCH_PARAMETERS)
    answers = []
    for request in requests:
        (answer,) = features.execute([request])
        if answer.has_error():
            answers.append(answer.error().message())
            continue
        made = answer.arrays()
        (state,) = encoder.execute(
            [triton_fakes.Request({name: made[name] for name in ("behaviors", "profile_codes")})]
        )
        tensors = {**state.arrays(), "behaviors": made["behaviors"], "origin": made["origin"]}
        (found,) = search.execute([triton_fakes.Request(tensors, request.parameters())])
        beside = {name: made[name] for name in ("unknown_items", "stored_items")}
        answers.append(found.error().message() if found.has_error() else {**found.arrays(), **beside})
    for model in (features, search):
        model.finalize()
    return answers


def test_a_batch_of_all_kinds_is_answered_as_by_the_separate_steps(one_step, repository):
    requests = [
        ask([IDS[:4]]),
        ask([[5, IDS[3], 0, IDS[4]], [0, 0, -1, 0]], json.dumps({"top_k": 3, "request_key": 77})),
        ask([[100] * 10]),
        ask([IDS[4:8]], json.dumps({"top_k": 5000})),
        ask([IDS[4:8]], exclude_item_ids=np.array([IDS[:3]], np.int64)),
        ask([IDS[2:4]], json.dumps({"exclude_history": True}), allow_item_ids=np.array([IDS[2:5]], np.int64)),
        ask([IDS[:2]], user_id=np.array([[b"x"]], object)),
        triton_fakes.Request({}),
    ]
    for found, wanted in zip(one_step.execute(requests), step_by_step(repository, requests), strict=True):
        if isinstance(wanted, str):
            assert found.error().message() == wanted
        else:
            arrays = found.arrays()
            assert arrays.keys() == wanted.keys()
            for name, array in wanted.items():
                np.testing.assert_array_equal(arrays[name], array, err_msg=name)


def test_the_user_encoder_runs_once_for_a_batch_and_its_failure_is_that_of_the_batch(one_step, monkeypatch):
    runs = []

    def fail(inputs):
        runs.append(len(inputs["behaviors"]))
        raise ScorerError("the encoder fails")

    monkeypatch.setattr(one_step._one_step._encoder, "run", fail)
    bad, *others = one_step.execute([ask([[100] * 10]), ask([IDS[:4]]), ask([IDS[:4], IDS[4:8]])])
    assert runs == [3]
    assert "expected at most 9" in bad.error().message()
    assert {answer.error().message() for answer in others} == {"the encoder fails"}


def test_a_heartbeat_is_what_bears_the_mark_that_no_client_can_send(one_step):
    beat = {"heartbeat": np.ones((1, 1), np.int32)}
    said = json.dumps({RESTARTS: json.dumps({"scorer": 2})})
    marked, of_client = one_step.execute(
        [ask([[0]], said, HEARTBEAT_ID, **beat), ask([IDS[:4]], "{}", HEARTBEAT_ID)],
    )
    assert marked.arrays()["item_ids"].shape == (1, 0)
    assert of_client.arrays()["item_ids"].shape[1] > 0
    one_step.finalize()
    assert triton_fakes.Metric.values["nann_process_restarts_total"] == 2


def test_the_files_of_all_steps_are_of_one_bundle(tmp_path):
    install_bundle(tiny_bundle.make_bundle(tmp_path / "bundle").path, tmp_path / "r")
    manifest = tmp_path / "r" / "user_encoder" / "1" / "manifest.json"
    text = manifest.read_text()
    manifest.unlink()
    with pytest.raises(BundleError, match=r"user_encoder/1/manifest.json is missing; install the bundle again"):
        loaded(tmp_path / "r", one_step="true", scorer="in_process", **FEATURES, **SEARCH_PARAMETERS)
    manifest.write_text(text + " ")
    with pytest.raises(BundleError, match="are from different bundles"):
        loaded(tmp_path / "r", one_step="true", scorer="in_process", **FEATURES, **SEARCH_PARAMETERS)

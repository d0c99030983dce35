import json
import shutil

import numpy as np
import pytest
from support import tiny_bundle, triton_fakes
from support.tiny_requests import ask, ask_light, nearest, nothing, score
from support.triton_fakes import SEARCH_PARAMETERS

from nann.errors import BundleError, InvalidInputError
from nann.python_backend.models.beam_retrieval import response_to
from nann.python_backend.search.outcomes import Kind
from nann.shape_grid import ShapeGrid
from nann.signature import HEARTBEAT_ID, ITEM_IDS, RESTARTS


def test_the_best_items_by_external_id(model):
    (response,) = model.execute([ask(12)])
    arrays = response.arrays()
    np.testing.assert_array_equal(arrays["item_ids"], [nearest(12, 3)])
    np.testing.assert_array_equal(arrays["scores"], [[0, -1, -1]])
    assert arrays["items_scored"].shape == (1, 1)


def test_a_batch_with_different_parameters_shares_its_scorer_calls(model):
    requests = [ask(3), ask(17, 25, top_k=7), ask(9, ef="1,2", rounds="0,1", top_k=2), ask(5, top_k=1)]
    together = model.execute(requests)
    calls = len(triton_fakes.InferenceRequest.calls)
    assert [response.arrays()["item_ids"].shape for response in together] == [(1, 3), (2, 7), (1, 2), (1, 1)]
    np.testing.assert_array_equal(together[1].arrays()["item_ids"], [nearest(17, 7), nearest(25, 7)])
    alone, most = [], 0
    for request in requests:
        triton_fakes.InferenceRequest.calls.clear()
        alone += model.execute([request])
        most = max(most, len(triton_fakes.InferenceRequest.calls))
    assert calls == most
    for one, other in zip(together, alone, strict=True):
        for name, array in one.arrays().items():
            np.testing.assert_array_equal(array, other.arrays()[name], err_msg=name)


def test_all_items_are_scored_where_a_request_says_so_and_the_corpus_is_small(model_args, model):
    from nann.python_backend.models.beam_retrieval import TritonPythonModel

    (refused,) = model.execute([ask(12, entry="all")])
    assert 'entry "all" would score all 30 items; expected a corpus of at most 25' in refused.error().message()
    roomy = TritonPythonModel()
    roomy.initialize(model_args("beam_retrieval", **{**SEARCH_PARAMETERS, "max_ef": "30"}))
    alone, *together = roomy.execute([ask(12, entry="all", top_k=20)]) + roomy.execute([ask(3), ask(12, entry="all")])
    arrays = alone.arrays()
    np.testing.assert_array_equal(arrays["item_ids"], [nearest(12, 20)])
    assert arrays["items_scored"].tolist() == [[30]]
    np.testing.assert_array_equal(together[1].arrays()["item_ids"], [nearest(12, 3)])
    roomy.finalize()


def test_short_results_are_padded(model):
    (response,) = model.execute([ask(12, top_k=20, ef="3,20", rounds="0,0")])
    arrays = response.arrays()
    assert (arrays["item_ids"][0, 3:] == -1).all()
    assert (arrays["scores"][0, 3:] == np.finfo(np.float32).min).all()


def test_every_score_of_an_answer_is_valid_json(model, monkeypatch):
    """Items that the scorer masks, and padding: both would be -Infinity, which is no JSON."""

    def masked(call):
        response = score(call)
        scores = response.arrays()["candidate_scores"]
        scores[call.inputs["candidates"] % 2 == 1] = -np.inf
        return response

    monkeypatch.setattr(triton_fakes.InferenceRequest, "answer", staticmethod(masked))
    (response,) = model.execute([ask(12, top_k=20, ef="3,20", rounds="0,0")])
    arrays = response.arrays()
    json.dumps(arrays["scores"].tolist(), allow_nan=False)
    found = arrays["item_ids"][0] != -1
    assert (arrays["scores"][0, ~found] == np.finfo(np.float32).min).all()
    assert len({*arrays["item_ids"][0, found].tolist()}) == found.sum() > 1


def test_a_bad_request_fails_alone(model):
    good, bad, unknown, other = model.execute([ask(3), ask(3, top_k=31), ask(3, topk=3), ask(4)])
    assert not good.has_error()
    assert not other.has_error()
    assert "top_k: 31 is out of bounds; expected 1 to 20" in bad.error().message()
    assert "unknown request parameter 'topk'" in unknown.error().message()
    assert {bad.error().code(), unknown.error().code()} == {"INVALID_ARG"}


def test_with_padding_the_scorer_sees_only_shapes_of_the_grid_and_the_answers_are_the_same(tmp_path, monkeypatch):
    """Padding rows and columns never reach results: the scorer returns the highest scores for them."""
    from nann.python_backend.models.beam_retrieval import TritonPythonModel
    from nann.python_backend.repository.install import install_bundle

    grid = ShapeGrid((2, 16), (2, 5))
    bundle = tiny_bundle.make_bundle(tmp_path / "bundle", shape_grid=grid.to_manifest()).path
    install_bundle(bundle, tmp_path / "repository")

    def poisoned(call):
        response = score(call)
        response.arrays()["candidate_scores"][call.inputs["candidates"] < 0] = 1e9
        return response

    monkeypatch.setattr(triton_fakes.InferenceRequest, "answer", poisoned)
    requests = [ask(3), ask(17, 25, top_k=7), ask(9, ef="1,2", rounds="0,1", top_k=2), ask(5, top_k=1)]
    answers, shapes = {}, {}
    for pad in ("false", "true"):
        parameters = {key: {"string_value": value} for key, value in {**SEARCH_PARAMETERS, "pad_to_grid": pad}.items()}
        model = TritonPythonModel()
        model.initialize(
            {
                "model_name": "beam_retrieval",
                "model_version": "1",
                "model_repository": str(tmp_path / "repository" / "beam_retrieval"),
                "model_config": json.dumps({"name": "beam_retrieval", "parameters": parameters}),
            }
        )
        monkeypatch.setattr(triton_fakes.InferenceRequest, "calls", [])
        answers[pad] = [response.arrays() for response in model.execute(requests)]
        shapes[pad] = {call.inputs["candidates"].shape for call in triton_fakes.InferenceRequest.calls}
        assert all(
            len(call.inputs["user_state"]) == len(call.inputs["candidates"])
            for call in triton_fakes.InferenceRequest.calls
        )
    assert shapes["true"] <= set(grid.points)
    assert not shapes["false"] <= set(grid.points)
    for one, other in zip(answers["false"], answers["true"], strict=True):
        for name, array in one.items():
            np.testing.assert_array_equal(array, other[name], err_msg=name)


def test_padding_is_true_or_false(model_args):
    from nann.python_backend.models.beam_retrieval import TritonPythonModel

    with pytest.raises(InvalidInputError, match="parameter pad_to_grid is 'yes'; expected true or false"):
        TritonPythonModel().initialize(model_args("beam_retrieval", **SEARCH_PARAMETERS, pad_to_grid="yes"))


def test_a_batch_of_bad_requests_calls_nobody(model):
    assert model.execute([ask(3, top_k=0)])[0].has_error()
    assert not triton_fakes.InferenceRequest.calls


def test_user_states_must_be_rows(model):
    responses = model.execute(
        [triton_fakes.Request({"user_state": np.zeros((1, 0), np.float32), "behaviors": nothing(1)})]
    )
    assert "user_state has shape [1, 0]; expected [batch, size]" in responses[0].error().message()


def test_a_failing_scorer_fails_its_requests_and_nothing_else(model, monkeypatch):
    failed = triton_fakes.InferenceResponse(error=triton_fakes.TritonError("weights lost"))
    with monkeypatch.context() as patch:
        patch.setattr(triton_fakes.InferenceRequest, "answer", lambda call: failed)
        good, bad = model.execute([ask(3), ask(3, top_k=0)])
    assert (good.error().code(), good.error().message()) == ("INTERNAL", "scorer version 1 failed: weights lost")
    assert bad.error().code() == "INVALID_ARG"
    assert not model.execute([ask(3)])[0].has_error()


def test_a_user_that_the_scorer_fails_for_spoils_no_answer_of_the_batch(model, monkeypatch):
    def fails_for_place_20(call):
        if (call.inputs["user_state"][:, 0] == 20).any():
            return triton_fakes.InferenceResponse(error=triton_fakes.TritonError("out of bounds"))
        return score(call)

    monkeypatch.setattr(triton_fakes.InferenceRequest, "answer", fails_for_place_20)
    good, bad, other = model.execute([ask(3), ask(20), ask(4, 5)])
    assert bad.error().message() == "scorer version 1 failed: out of bounds"
    np.testing.assert_array_equal(good.arrays()["item_ids"], [nearest(3, 3)])
    np.testing.assert_array_equal(other.arrays()["item_ids"], [nearest(4, 3), nearest(5, 3)])


def test_an_absent_scorer_is_asked_once_for_the_batch(model, monkeypatch):
    words = "Model scorer - Error when running inference: Model 'scorer' is not ready."
    absent = triton_fakes.InferenceResponse(error=triton_fakes.TritonError(words))
    monkeypatch.setattr(triton_fakes.InferenceRequest, "answer", lambda call: absent)
    assert all("is not ready" in response.error().message() for response in model.execute([ask(3), ask(4), ask(5)]))
    assert len(triton_fakes.InferenceRequest.calls) == 1


def test_what_nobody_foresaw_fails_with_its_request_alone_and_is_logged(model, monkeypatch):
    def lost(call):
        if (call.inputs["user_state"][:, 0] == 20).any():
            raise MemoryError("no more")
        return score(call)

    monkeypatch.setattr(triton_fakes.InferenceRequest, "answer", lost)
    monkeypatch.setattr(triton_fakes.Logger, "errors", [])
    good, bad = model.execute([ask(3), ask(20)])
    assert not good.has_error()
    assert (bad.error().code(), bad.error().message()) == ("INTERNAL", "internal error: MemoryError: no more")
    assert "Traceback" in triton_fakes.Logger.errors[0]


@pytest.fixture
def failing(monkeypatch):
    failed = triton_fakes.InferenceResponse(error=triton_fakes.TritonError("weights lost"))
    return lambda: monkeypatch.setattr(triton_fakes.InferenceRequest, "answer", lambda call: failed)


def test_with_the_policy_fallback_a_failing_scorer_degrades_answers(model, model_args, failing):
    from nann.python_backend.models.beam_retrieval import TritonPythonModel

    degrading = TritonPythonModel()
    degrading.initialize(model_args("beam_retrieval", **{**SEARCH_PARAMETERS, "on_scorer_failure": "fallback"}))
    request = triton_fakes.Request(
        {
            "user_state": np.full((1, tiny_bundle.LENGTH), 12, np.float32),
            "behaviors": np.array([[-1, 12, 12, 20]], np.int32),
        },
        '{"top_k": 5}',
    )
    failing()
    (outcome,) = degrading.outcomes([request])
    assert outcome.kind is Kind.DEGRADED
    assert "weights lost" in str(outcome.error)
    arrays = response_to(outcome).arrays()
    assert arrays["status"].tolist() == [[2]]
    assert arrays["items_scored"].tolist() == [[0]]
    np.testing.assert_array_equal(arrays["item_ids"][0, :2], tiny_bundle.item_ids()[[12, 20]])
    assert set(tiny_bundle.item_ids()[[11, 13]]) <= set(arrays["item_ids"][0])
    assert model.outcomes([request])[0].kind is Kind.FAILED  # the policy "error"


def test_with_a_light_score_that_is_the_fallback(seeded_model, failing, monkeypatch):
    monkeypatch.setattr(seeded_model.retriever, "_degrade", True)
    failing()
    outcomes = seeded_model.outcomes([ask_light(3, light_place=22), ask_light(3, light_place=9, top_k=5)])
    assert [outcome.kind for outcome in outcomes] == [Kind.DEGRADED] * 2
    np.testing.assert_array_equal(outcomes[0].outputs[ITEM_IDS], [nearest(22, 3)])
    np.testing.assert_array_equal(outcomes[1].outputs[ITEM_IDS], [nearest(9, 5)])
    (nothing_left,) = seeded_model.outcomes([ask_light(3, light_place=float("nan"))])
    assert nothing_left.kind is Kind.FAILED


def test_nan_scores_are_an_error(model, monkeypatch):
    def nan(call):
        scores = np.full(call.inputs["candidates"].shape, np.nan, np.float32)
        return triton_fakes.InferenceResponse([triton_fakes.Tensor("candidate_scores", scores)])

    monkeypatch.setattr(triton_fakes.InferenceRequest, "answer", nan)
    assert "NaN" in model.execute([ask(3)])[0].error().message()


def test_a_bundle_that_recommends_too_much_does_not_load(model_args):
    from nann.python_backend.models.beam_retrieval import TritonPythonModel

    with pytest.raises(
        BundleError, match="recommends 5 where the server's max_ef is 4; recommend less, or raise max_ef"
    ):
        TritonPythonModel().initialize(model_args("beam_retrieval", **{**SEARCH_PARAMETERS, "max_ef": "4"}))


def test_the_scorer_in_process_gives_the_same_answers_and_calls_no_model(model, model_args):
    from nann.python_backend.models.beam_retrieval import TritonPythonModel

    in_process = TritonPythonModel()
    in_process.initialize(model_args("beam_retrieval", **SEARCH_PARAMETERS, scorer="in_process"))
    requests = [ask(12), ask(3, 25, top_k=7), ask(9, ef="1,2", rounds="0,1", top_k=2)]
    expected = [response.arrays() for response in model.execute(requests)]
    triton_fakes.InferenceRequest.calls.clear()
    answers = [response.arrays() for response in in_process.execute(requests)]
    assert not triton_fakes.InferenceRequest.calls
    for one, other in zip(answers, expected, strict=True):
        for name in other:
            np.testing.assert_allclose(one[name], other[name], rtol=1e-6, err_msg=name)


def test_in_process_a_changed_scorer_does_not_load(model_args, repository, tmp_path):
    from nann.python_backend.models.beam_retrieval import TritonPythonModel

    copy = shutil.copytree(repository, tmp_path / "repository")
    path = copy / "scorer" / "1" / "model.onnx"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    args = model_args("beam_retrieval", **SEARCH_PARAMETERS, scorer="in_process")
    with pytest.raises(BundleError, match=r"model\.onnx has sha256"):
        TritonPythonModel().initialize({**args, "model_repository": str(copy / "beam_retrieval")})


def test_the_scorer_is_called_in_one_of_two_ways(model_args):
    from nann.python_backend.models.beam_retrieval import TritonPythonModel

    with pytest.raises(InvalidInputError, match="parameter scorer is 'grpc'; expected bls or in_process"):
        TritonPythonModel().initialize(model_args("beam_retrieval", **SEARCH_PARAMETERS, scorer="grpc"))


def test_a_heartbeat_is_answered_without_a_search_and_is_no_request(model):
    triton_fakes.InferenceRequest.calls.clear()
    beat = triton_fakes.Request(
        {"user_state": np.zeros((1, 0), np.float32), "behaviors": nothing(1)},
        json.dumps({RESTARTS: json.dumps({"scorer": 2, "user_encoder": 1})}),
        HEARTBEAT_ID,
    )
    before = dict(triton_fakes.Metric.values)
    heartbeat, answer = model.execute([beat, ask(12)])
    assert heartbeat.arrays()["item_ids"].shape == (1, 0)
    np.testing.assert_array_equal(answer.arrays()["item_ids"], [nearest(12, 3)])
    model.finalize()

    def added(name):
        return triton_fakes.Metric.values[name] - before.get(name, 0)

    assert added("nann_process_restarts_total") == 3
    assert added("nann_heartbeats_total") == 1
    assert added("nann_requests_total") == 1


def test_a_heartbeat_that_can_not_be_read_is_refused(model):
    (response,) = model.execute([triton_fakes.Request({}, "{}", HEARTBEAT_ID)])
    assert response.has_error()


def test_a_request_with_the_features_of_another_one_is_not_searched(model):
    request, foreign = ask(12, 13, request_key=41), ask(12, 13, request_key=42)
    for one in (request, foreign):
        one.inputs().append(triton_fakes.Tensor("origin", np.array([[2**62, 41, 0]] * 2)))
    answer, error = model.execute([request, foreign])
    assert answer.arrays()["request_key"].tolist() == [[41], [41]]
    assert error.error().code() == "INTERNAL"
    words = "the features are those of another request (request_key 41, expected 42); nothing was searched"
    assert words in error.error().message()
    (without,) = model.execute([ask(12)])
    assert without.arrays()["request_key"].tolist() == [[0]]

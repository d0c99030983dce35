import numpy as np
import pytest
from support import triton_fakes

from nann.errors import DeadlineExceeded, RequestError, ScorerError, ScorerUnavailable
from nann.python_backend.tensors import (
    answer_each,
    call_model,
    check_not_empty,
    error_response,
    make_response,
    make_tensor,
    read_optional_tensor,
    read_parameters,
    read_tensor,
)
from nann.signature import BEHAVIOR_ITEM_IDS, CANDIDATE_SCORES, CANDIDATES


def test_read_tensor():
    request = triton_fakes.Request({"behavior_item_ids": np.array([[1, 2]])})
    np.testing.assert_array_equal(read_tensor(request, BEHAVIOR_ITEM_IDS), [[1, 2]])
    assert read_optional_tensor(request, CANDIDATES) is None


def test_read_tensor_names_what_is_missing_or_wrong():
    with pytest.raises(RequestError, match=r"behavior_item_ids is missing; expected INT64 of shape \[batch, any\]"):
        read_tensor(triton_fakes.Request({}), BEHAVIOR_ITEM_IDS)
    request = triton_fakes.Request({"behavior_item_ids": np.array([[1.0]])})
    with pytest.raises(RequestError, match="behavior_item_ids has dtype float64; expected INT64"):
        read_tensor(request, BEHAVIOR_ITEM_IDS)


def test_responses_have_the_signatures_dtype_and_one_piece_of_memory():
    response = make_response({CANDIDATES: np.arange(6).reshape(2, 3).T})
    (array,) = response.arrays().values()
    assert array.dtype == np.int32
    assert array.shape == (3, 2)


def test_the_callers_mistake_is_invalid_and_ours_internal():
    assert error_response(RequestError("bad top_k")).error().code() == "INVALID_ARG"
    error = error_response(ScorerError("no answer")).error()
    assert (error.code(), error.message()) == ("INTERNAL", "no answer")


def test_the_unforeseen_goes_to_the_log_without_its_traceback_to_the_client():
    triton_fakes.Logger.errors.clear()
    (response,) = answer_each([None], lambda _: {}[0])
    assert response.error().message() == "internal error: KeyError: 0"
    assert "Traceback" in triton_fakes.Logger.errors[0]


def test_one_bad_request_fails_alone():
    def answer(request):
        if request == "bad":
            raise RequestError("bad one")
        return {CANDIDATES: np.zeros((1, 1))}

    responses = answer_each(["good", "bad", "good"], answer)
    assert [response.has_error() for response in responses] == [False, True, False]


def test_call_model_names_version_output_and_memory(monkeypatch):
    answer = make_response({CANDIDATE_SCORES: np.ones((1, 2))})
    monkeypatch.setattr(triton_fakes.InferenceRequest, "answer", lambda call: answer)
    monkeypatch.setattr(triton_fakes.InferenceRequest, "calls", [])
    np.testing.assert_array_equal(
        call_model("scorer", 3, [make_tensor(CANDIDATES, np.zeros((1, 2)))], CANDIDATE_SCORES), [[1, 1]]
    )
    (call,) = triton_fakes.InferenceRequest.calls
    assert call.arguments["model_name"] == "scorer"
    assert call.arguments["model_version"] == 3
    assert call.arguments["requested_output_names"] == ["candidate_scores"]
    assert call.arguments["preferred_memory"].kind == triton_fakes.TRITONSERVER_MEMORY_CPU


def test_parameters_that_are_no_text(monkeypatch):
    request = triton_fakes.Request({}, '{"top_k":3}')
    assert read_parameters(request) == '{"top_k":3}'
    monkeypatch.setattr(request, "parameters", lambda: b'{"\xff":3}'.decode())
    with pytest.raises(RequestError, match="the request parameters hold the byte 0xff; expected text in UTF-8"):
        read_parameters(request)


def test_check_not_empty():
    check_not_empty(CANDIDATES, [1, 5])
    with pytest.raises(RequestError, match=r"candidates has shape \[3, 0\]; expected at least one element in each"):
        check_not_empty(CANDIDATES, [3, 0])


def test_call_model_failures(monkeypatch):
    failed = triton_fakes.InferenceResponse(error=triton_fakes.TritonError("out of memory"))
    monkeypatch.setattr(triton_fakes.InferenceRequest, "answer", lambda call: failed)
    with pytest.raises(ScorerError, match="scorer version 3 failed: out of memory") as caught:
        call_model("scorer", 3, [], CANDIDATE_SCORES)
    assert caught.type is ScorerError
    words = "Model scorer - Error when running inference: Model 'scorer' is not ready."
    absent = triton_fakes.InferenceResponse(error=triton_fakes.TritonError(words))
    monkeypatch.setattr(triton_fakes.InferenceRequest, "answer", lambda call: absent)
    with pytest.raises(ScorerUnavailable, match="scorer version 3 failed: Model scorer - Error"):
        call_model("scorer", 3, [], CANDIDATE_SCORES)
    monkeypatch.setattr(triton_fakes.InferenceRequest, "answer", lambda call: triton_fakes.InferenceResponse())
    with pytest.raises(ScorerError, match="scorer version 3 returned no candidate_scores"):
        call_model("scorer", 3, [], CANDIDATE_SCORES)


def test_a_stopped_search_is_no_fault_of_the_server():
    response = error_response(DeadlineExceeded("too late"))
    assert (response.error().code(), response.error().message()) == ("CANCELLED", "too late")

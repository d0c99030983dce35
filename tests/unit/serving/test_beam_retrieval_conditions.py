"""Conditions in the model `beam_retrieval`: what may not be returned is never scored and never returned."""

import numpy as np
import pytest
from support import tiny_bundle, triton_fakes
from support.tiny_requests import ask, ask_conditions, nearest, score

from nann.python_backend.search.outcomes import Kind
from nann.signature import ITEM_IDS, ITEMS_MATCHING, STATUS

ITEMS = tiny_bundle.ITEMS
EVERY = np.arange(ITEMS)


@pytest.fixture
def scored(monkeypatch):
    """The places that the scorer was given."""
    seen = set()

    def answer(call):
        seen.update(call.inputs["candidates"].ravel().tolist())
        return score(call)

    monkeypatch.setattr(triton_fakes.InferenceRequest, "answer", answer)
    return seen


def answered(model, request):
    (response,) = model.execute([request])
    assert not response.has_error(), response.error().message()
    return response.arrays()


def test_without_conditions_all_items_match(model):
    assert answered(model, ask(12, 13))["items_matching"].tolist() == [[ITEMS], [ITEMS]]


def test_the_history_is_not_returned_where_a_request_says_so(model, scored):
    own = [11, 12, 13]
    arrays = answered(model, ask_conditions(12, own=own, exclude_history=True))
    np.testing.assert_array_equal(arrays["item_ids"], [nearest(12, 3, own)])
    assert arrays["items_matching"].tolist() == [[ITEMS - 3]]
    assert not scored & set(own)
    for said in ({}, {"exclude_history": False}):
        np.testing.assert_array_equal(
            answered(model, ask_conditions(12, own=own, **said))["item_ids"], [nearest(12, 3)]
        )


def test_a_direct_call_excludes_what_it_has_of_the_history(model):
    request = ask(12, exclude_history=True)
    request.inputs()[1].as_numpy()[0, :2] = [12, 11]
    np.testing.assert_array_equal(answered(model, request)["item_ids"], [nearest(12, 3, [12, 11])])


def test_lists_of_each_user(model, scored):
    lists = {"excluded": [[5, -1], [20, 21]], "allowed": [[4, 5, 6, -1], [20, 21, 22, 29]]}
    arrays = answered(model, ask_conditions(5, 20, **lists))
    expected = [nearest(place, 3, set(EVERY) - shown) for place, shown in ((5, {4, 6}), (20, {22, 29}))]
    np.testing.assert_array_equal(arrays["item_ids"], expected)
    assert arrays["items_matching"].tolist() == [[2], [2]]
    assert scored <= {-1, 4, 6, 22, 29}


def test_where_nothing_matches_the_answer_is_complete_and_empty(model):
    (outcome,) = model.outcomes([ask_conditions(5, allowed=[[-1]])])
    assert outcome.kind is Kind.COMPLETE
    assert outcome.outputs[ITEM_IDS].tolist() == [[-1] * 3]
    assert (outcome.outputs[ITEMS_MATCHING].tolist(), outcome.outputs[STATUS].tolist()) == ([[0]], [[0]])


def test_requests_of_a_batch_have_conditions_of_their_own(model):
    requests = [
        ask(12),
        ask_conditions(12, excluded=[[12]]),
        ask(12, top_k=2),
        ask_conditions(3, 4, allowed=[[1], [2]]),
    ]
    alone = [answered(model, request) for request in requests]
    together = [response.arrays() for response in model.execute(requests)]
    for one, other in zip(together, alone, strict=True):
        for name, array in one.items():
            np.testing.assert_array_equal(array, other[name], err_msg=name)
    np.testing.assert_array_equal(together[0]["item_ids"], [nearest(12, 3)])


def test_a_late_answer_has_only_what_may_be_returned(model, monkeypatch):
    now_ns = [10**12]
    monkeypatch.setattr("time.monotonic_ns", lambda: now_ns[0])

    def slow(call):
        now_ns[0] += 100_000_000
        return score(call)

    monkeypatch.setattr(triton_fakes.InferenceRequest, "answer", slow)
    hidden, bounds = [[11, 12]], {"deadline_ms": 50, "on_deadline": "partial", "top_k": 5, "ef": "1,5", "rounds": "1,1"}
    request = ask_conditions(12, arrived_ns=now_ns[0], excluded=hidden, **bounds)
    (outcome,) = model.outcomes([request])
    assert outcome.kind is Kind.PARTIAL
    found = set(outcome.outputs[ITEM_IDS][0].tolist()) - {-1}
    assert found
    assert not found & set(tiny_bundle.item_ids()[hidden[0]].tolist())


@pytest.mark.parametrize("light", [False, True], ids=["neighbourhood", "light score"])
def test_a_degraded_answer_has_only_what_may_be_returned(model, seeded_model, monkeypatch, light):
    one = seeded_model if light else model
    monkeypatch.setattr(one.retriever, "_degrade", True)
    failed = triton_fakes.InferenceResponse(error=triton_fakes.TritonError("weights lost"))
    monkeypatch.setattr(triton_fakes.InferenceRequest, "answer", lambda call: failed)
    request = ask_conditions(12, own=[12, 14], excluded=[[13]], exclude_history=True, top_k=5)
    if light:
        tensors = {tensor.name(): tensor.as_numpy() for tensor in request.inputs()}
        tensors["user_state"] = np.array([[12] * tiny_bundle.LENGTH + tiny_bundle.light_user(12)], np.float32)
        request = triton_fakes.Request(tensors, request.parameters())
    (outcome,) = one.outcomes([request])
    assert outcome.kind is Kind.DEGRADED
    found = outcome.outputs[ITEM_IDS][0]
    assert outcome.outputs[ITEMS_MATCHING].tolist() == [[ITEMS - 3]]
    assert not set(found.tolist()) & set(tiny_bundle.item_ids()[[12, 13, 14]].tolist())
    if light:
        np.testing.assert_array_equal(found, nearest(12, 5, [12, 13, 14]))
    else:
        assert (found != -1).any()


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"exclude_history": 1}, "parameter exclude_history is 1; expected true or false"),
        ({"exclude_history": "yes"}, "parameter exclude_history is 'yes'; expected true or false"),
        ({"exclude_history": None}, "parameter exclude_history is None; expected true or false"),
    ],
)
def test_what_is_no_condition_is_refused(model, parameters, message):
    (response,) = model.execute([ask(3, **parameters)])
    assert response.error().message() == message
    assert response.error().code() == "INVALID_ARG"

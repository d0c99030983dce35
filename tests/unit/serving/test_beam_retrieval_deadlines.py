"""Deadlines in the model `beam_retrieval`."""

import json

import numpy as np
from support import tiny_bundle, triton_fakes
from support.tiny_requests import ask, nearest, nothing, score

from nann.python_backend.models.beam_retrieval import response_to
from nann.python_backend.search.outcomes import Kind
from nann.signature import ITEM_IDS, STATUS, STATUS_COMPLETE, STATUS_PARTIAL


class Clock:
    """A monotonic clock that each scorer call moves by 100 ms."""

    def __init__(self, monkeypatch):
        self.now_ns = 10**12
        monkeypatch.setattr("time.monotonic_ns", lambda: self.now_ns)
        monkeypatch.setattr(triton_fakes.InferenceRequest, "answer", self.answer)

    def answer(self, call):
        self.now_ns += 100_000_000
        return score(call)


def timed(place, arrived_ns, **parameters):
    states = np.full((1, tiny_bundle.LENGTH), place, np.float32)
    tensors = {"user_state": states, "behaviors": nothing(1), "origin": np.array([[arrived_ns, 0, 0]], np.int64)}
    return triton_fakes.Request(tensors, json.dumps(parameters))


def test_each_request_of_a_batch_stops_at_its_own_deadline(model, monkeypatch):
    clock = Clock(monkeypatch)
    asked = [ask(12), ask(12, deadline_ms=150), ask(12, deadline_ms=150, on_deadline="partial")]
    whole, late, partial = model.outcomes(asked)
    assert [whole.kind, late.kind, partial.kind] == [Kind.COMPLETE, Kind.LATE, Kind.PARTIAL]
    np.testing.assert_array_equal(whole.outputs[ITEM_IDS], [nearest(12, 3)])
    assert partial.rounds.tolist() == [2] < whole.rounds.tolist()
    assert partial.items_scored < whole.items_scored
    _, error, answer = map(response_to, (whole, late, partial))
    assert (error.error().code(), answer.arrays()["status"].tolist()) == ("CANCELLED", [[1]])
    assert "did not end within its deadline (deadline_ms 150)" in error.error().message()
    assert 'or for the best items so far (on_deadline "partial")' in error.error().message()
    assert clock.now_ns - 10**12 == whole.rounds[0] * 100_000_000  # stopped requests cost no round


def test_of_a_partial_request_those_users_are_complete_who_had_finished(model, monkeypatch):
    Clock(monkeypatch)
    rounds = {place: int(model.outcomes([ask(place)])[0].rounds[0]) for place in range(tiny_bundle.ITEMS)}
    first, last = min(rounds, key=rounds.get), max(rounds, key=rounds.get)
    assert rounds[first] < rounds[last]
    (both,) = model.outcomes([ask(first, last, deadline_ms=100 * rounds[first] - 50, on_deadline="partial")])
    assert both.kind is Kind.PARTIAL
    assert both.outputs[STATUS].tolist() == [[STATUS_COMPLETE], [STATUS_PARTIAL]]


def test_waiting_counts_and_who_is_late_before_the_first_round_costs_none(model, monkeypatch):
    clock = Clock(monkeypatch)
    second_ns = 1_000_000_000
    in_time, late = timed(12, clock.now_ns - second_ns), timed(12, clock.now_ns - 9 * second_ns, on_deadline="partial")
    assert [outcome.kind for outcome in model.outcomes([late])] == [Kind.LATE]
    assert not triton_fakes.InferenceRequest.calls
    words = response_to(model.outcomes([late])[0]).error().message()
    assert "it came before the first items were scored: ask for a longer one" in words
    assert "partial" not in words  # which was asked for
    assert [outcome.kind for outcome in model.outcomes([late, in_time])] == [Kind.LATE, Kind.COMPLETE]
    # A client's clock that is ahead of ours gives a request no more time.
    (outcome,) = model.outcomes([timed(12, clock.now_ns + 10**15, deadline_ms=150)])
    assert outcome.kind is Kind.LATE

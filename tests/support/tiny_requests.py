"""Requests to the model `beam_retrieval` of `tiny_bundle`, and the scorer that answers its calls."""

from __future__ import annotations

import json

import numpy as np

from nann.python_backend.origin import Origin
from support import tiny_bundle, triton_fakes


def score(call):
    """The ONNX scorer of tiny_bundle, in NumPy; an item's row begins with its place."""
    states, rows = call.inputs["user_state"], call.inputs.get("candidate_rows")
    candidates = call.inputs["candidates"] if rows is None else rows[:, :, 0]
    scores = -np.abs(candidates - states.mean(axis=1, keepdims=True)).astype(np.float32)
    return triton_fakes.InferenceResponse([triton_fakes.Tensor("candidate_scores", scores)])


def ask(*places, **parameters):
    states = np.repeat(np.array(places, np.float32)[:, None], tiny_bundle.LENGTH, axis=1)
    return triton_fakes.Request({"user_state": states, "behaviors": nothing(len(states))}, json.dumps(parameters))


def nothing(users):
    return np.full((users, tiny_bundle.LENGTH), -1, np.int32)


def nearest(place, count, hidden=()):
    """The ids of the best items that are not hidden (places), padded with -1."""
    shown = set(range(tiny_bundle.ITEMS)) - set(hidden)
    order = sorted(shown, key=lambda item: (abs(item - place), item))[:count]
    return np.pad(tiny_bundle.item_ids()[order], (0, count - len(order)), constant_values=-1)


def ask_conditions(*places, own=(), arrived_ns=2**62, excluded=None, allowed=None, **parameters):
    """Users with the same history (places) and with lists of places for each."""
    request = ask(*places, **parameters)
    behaviors, origin = request.inputs()[1].as_numpy(), Origin(arrived_ns, 0, _places(excluded), _places(allowed))
    behaviors[:, : len(own)] = own
    request.inputs().append(triton_fakes.Tensor("origin", origin.pack(len(places))))
    return request


def _places(each):
    return None if each is None else np.array(each, np.int32)


def ask_light(place, light_place=None, own=(), **parameters):
    light = tiny_bundle.light_user(place if light_place is None else light_place)
    states = np.array([[place] * tiny_bundle.LENGTH + light], np.float32)
    behaviors = nothing(1)
    behaviors[0, : len(own)] = own
    return triton_fakes.Request({"user_state": states, "behaviors": behaviors}, json.dumps(parameters))

"""Requests to the model `beam_retrieval` of `tiny_bundle`, and the scorer that answers its calls."""

from __future__ import annotations

import json

import numpy as np

from support import tiny_bundle, triton_fakes


def score(call):
    """The ONNX scorer of tiny_bundle, in NumPy."""
    states, candidates = call.inputs["user_state"], call.inputs["candidates"]
    scores = -np.abs(candidates - states.mean(axis=1, keepdims=True)).astype(np.float32)
    return triton_fakes.InferenceResponse([triton_fakes.Tensor("candidate_scores", scores)])


def ask(*places, **parameters):
    states = np.repeat(np.array(places, np.float32)[:, None], tiny_bundle.LENGTH, axis=1)
    return triton_fakes.Request({"user_state": states, "behaviors": nothing(len(states))}, json.dumps(parameters))


def nothing(users):
    return np.full((users, tiny_bundle.LENGTH), -1, np.int32)


def nearest(place, count):
    order = sorted(range(tiny_bundle.ITEMS), key=lambda item: (abs(item - place), item))
    return tiny_bundle.item_ids()[order[:count]]


def ask_light(place, light_place=None, own=(), **parameters):
    light = tiny_bundle.light_user(place if light_place is None else light_place)
    states = np.array([[place] * tiny_bundle.LENGTH + light], np.float32)
    behaviors = nothing(1)
    behaviors[0, : len(own)] = own
    return triton_fakes.Request({"user_state": states, "behaviors": behaviors}, json.dumps(parameters))

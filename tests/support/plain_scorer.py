"""The native scorer's forms in plain NumPy and double precision, for one user: what the loop must give."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

SHIFT = 6.0
DIGIT = 2048


def plain_network(
    form: Mapping[str, int], arrays: Mapping[str, Any], state: np.ndarray, rows: np.ndarray
) -> np.ndarray:
    """Scores of items by their rows: float[S], float[C, R] -> float[C]."""
    hidden, attention, length = (form[name] for name in ("hidden", "attention", "length"))
    state, rows = state.astype(np.float64), rows.astype(np.float64)
    share, query = rows[:, :hidden], rows[:, hidden:]
    if attention:
        keys, values, mask, _ = np.split(state, np.cumsum([attention * length, length * hidden, length]))
        logits = query @ keys.reshape(attention, length) + mask
        weights = np.exp(logits - logits.max(axis=1, keepdims=True))
        x = share + (weights / weights.sum(axis=1, keepdims=True)) @ values.reshape(length, hidden)
    else:
        x = share + state[:hidden]
    for layer, slope in enumerate(arrays["slopes"]):
        x = np.where(x < 0, slope * x, x)
        if f"weight{layer}" in arrays:
            x = x @ arrays[f"weight{layer}"].astype(np.float64) + arrays[f"bias{layer}"]
    return x @ arrays["output"].astype(np.float64) + arrays["output_bias"][0]


def plain_similarity(form: Mapping[str, int], state: np.ndarray, rows: np.ndarray, items: np.ndarray) -> np.ndarray:
    """Scores of items by their rows: float[S], float[C, R], int[C] -> float[C]."""
    width, heads, attended, repeats, digits, evidences = (
        form[name] for name in ("width", "heads", "attended", "repeats", "digits", "evidences")
    )
    depth = width - 1
    sizes = [heads * depth * attended, heads * attended, digits * repeats, repeats, evidences]
    keys, weights, theirs, repeat_weights, user_gates, vector = np.split(state.astype(np.float64), np.cumsum(sizes))
    vectors, queries, gates, _ = np.split(rows.astype(np.float64), np.cumsum([width, heads * depth, evidences]), axis=1)
    found = []
    for head in range(heads):
        own = queries[:, head * depth : (head + 1) * depth]
        similar = own @ keys.reshape(heads, depth, attended)[head]
        found.append(np.exp(np.minimum(similar, 2 * SHIFT) - SHIFT) @ weights.reshape(heads, attended)[head])
    if repeats:
        behaviors = theirs.reshape(digits, repeats).T @ DIGIT ** np.arange(digits)
        found.append((items[:, None] == behaviors) @ repeat_weights * np.exp(-SHIFT))
    scores = vectors @ vector
    for place, sums in enumerate(found):
        scores += (gates[:, place] + user_gates[place]) * (SHIFT + np.log(sums + np.exp(-SHIFT)))
    return scores

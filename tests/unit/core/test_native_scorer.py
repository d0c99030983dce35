"""The native scorer against plain NumPy: every form, all widths, padding, users, threads, and rows from elsewhere."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.plain_scorer import DIGIT, plain_network, plain_similarity

from nann import _kernels
from nann.item_rows import ItemRows
from nann.native_scorer import NETWORK, SIMILARITY, NativeScorer, native_kernel, native_refusal

ITEMS = 600
BF16_ERROR = 0.02
"""Of the largest score: products of bfloat16 numbers, which have 8 bits each, through three layers."""
needs_bf16 = pytest.mark.skipif(not _kernels.has_bf16(), reason="needs a CPU with avx512_bf16")


def network_form(hidden: int, attention: int, length: int, layers: tuple[int, ...], seed: int = 0) -> tuple:
    """A form with random weights, user states of four users (the last without history), and a table."""
    rng = np.random.default_rng(seed)

    def normal(*shape: int, scale: float = 1.0) -> np.ndarray:
        return (scale * rng.standard_normal(shape)).astype(np.float32)

    arrays = {"slopes": np.abs(normal(len(layers) + 1, scale=0.3)), "output_bias": normal(1)}
    width = hidden
    for i, wide in enumerate(layers):
        arrays |= {f"weight{i}": normal(width, wide, scale=width**-0.5), f"bias{i}": normal(wide, scale=0.3)}
        width = wide
    arrays["output"] = normal(width, scale=width**-0.5)
    states = []
    for kept in (length, max(length // 2, 1), 1, 0):
        base = normal(hidden)
        known = np.arange(length) >= length - kept
        keys, values = normal(attention, length, scale=attention**-0.5 if attention else 1), normal(length, hidden)
        mask = np.where(known, 0, -1e9).astype(np.float32)
        if kept > 2:
            mask[length - 2] = -1e9  # padding in the middle
        values = values * (mask == 0)[:, None] + base
        light = normal(3)
        states.append(np.concatenate([keys.ravel(), values.ravel(), mask, light]) if attention else base)
    form = {"form": NETWORK, "hidden": hidden, "attention": attention, "length": length}
    return form, arrays, np.stack(states), normal(ITEMS, hidden + attention)


def similarity_form(width: int, heads: int, attended: int, repeats: int, digits: int, seed: int = 0) -> tuple:
    """As `network_form`; the table's items are every 40th, so that their indices have two digits."""
    rng = np.random.default_rng(seed)
    evidences = heads + (repeats > 0)
    indices = 40 * np.arange(ITEMS)
    states = []
    for kept in (1.0, 0.5, 0.0):
        keys = rng.standard_normal(heads * (width - 1) * attended) * 1.5 * max(width - 1, 1) ** -0.5
        weights = rng.random(heads * attended) * (rng.random(heads * attended) < kept)
        behaviors = rng.choice(indices, repeats)
        found = [behaviors // DIGIT**digit % DIGIT for digit in range(digits)] if repeats else []
        repeat_weights = rng.random(repeats) * (rng.random(repeats) < kept) * 50
        gates, vector = rng.standard_normal(evidences), rng.standard_normal(width)
        states.append(np.concatenate([keys, weights, *found, repeat_weights, gates, vector]))
    columns = [rng.standard_normal((ITEMS, width + heads * (width - 1) + evidences))]
    if repeats:
        columns += [indices[:, None] // DIGIT**digit % DIGIT for digit in range(digits)]
    form = {"form": SIMILARITY, "width": width, "heads": heads, "attended": attended}
    form |= {"repeats": repeats, "digits": digits, "evidences": evidences}
    rows = np.concatenate(columns, axis=1).astype(np.float32)
    return form, indices, np.stack(states).astype(np.float32), rows


def draw(users: int, width: int, padding: float = 0.2, seed: int = 1) -> np.ndarray:
    rng = np.random.default_rng(seed)
    items = rng.integers(ITEMS, size=(users, width), dtype=np.int32)
    items[rng.random(items.shape) < padding] = -1
    return items


def assert_network(form: dict, arrays: dict, states: np.ndarray, table: np.ndarray, candidates: np.ndarray) -> None:
    scorer = NativeScorer(native_kernel(form, arrays), ItemRows(table))
    scores = scorer.score(states, candidates)
    for user, items in enumerate(candidates):
        known = items >= 0
        np.testing.assert_array_equal(scores[user][~known], 0)
        expected = plain_network(form, arrays, states[user], table[items[known]])
        size = np.abs(expected).max(initial=1.0)
        np.testing.assert_allclose(scores[user][known], expected, rtol=0, atol=BF16_ERROR * size)


@needs_bf16
@given(
    hidden=st.integers(1, 70),
    attention=st.sampled_from([0, 1, 7, 16, 33, 64]),
    length=st.sampled_from([1, 2, 17, 50]),
    layers=st.lists(st.integers(1, 40), max_size=3).map(tuple),
    width=st.integers(0, 40),
    seed=st.integers(0, 3),
)
def test_networks_of_any_width_score_as_in_numpy(hidden, attention, length, layers, width, seed):
    form, arrays, states, table = network_form(hidden, attention, length, layers, seed)
    assert_network(form, arrays, states, table, draw(len(states), width, seed=seed))


@needs_bf16
@pytest.mark.parametrize("length", [1, 50, 300])
@pytest.mark.parametrize("attention", [0, 64])
def test_the_papers_network_scores_as_in_numpy(attention, length):
    form, arrays, states, table = network_form(128, attention, length, (64, 32))
    assert_network(form, arrays, states, table, draw(len(states), 1000))


@pytest.mark.parametrize("heads", [0, pytest.param(3, marks=needs_bf16)])
@given(
    width=st.integers(1, 40),
    attended=st.sampled_from([1, 17, 50]),
    repeats=st.sampled_from([0, 1, 60]),
    digits=st.sampled_from([2, 3]),
    count=st.integers(0, 40),
    seed=st.integers(0, 3),
)
def test_similarities_and_repeats_score_as_in_numpy(heads, width, attended, repeats, digits, count, seed):
    form, indices, states, rows = similarity_form(width, heads, attended, repeats, digits, seed)
    candidates = draw(len(states), count, seed=seed)
    kernel = native_kernel(form, {})
    scores = NativeScorer(kernel, None).score(states, candidates, ItemRows(rows))
    for user, items in enumerate(candidates):
        known = items >= 0
        expected = plain_similarity(form, states[user], rows[items[known]], indices[items[known]])
        atol = (0.03 if heads else 1e-4) * np.abs(expected).max(initial=1.0)
        np.testing.assert_allclose(scores[user][known], expected, rtol=0, atol=atol)


def test_without_digits_in_the_rows_an_item_is_its_place_in_the_table():
    form, _, states, rows = similarity_form(5, 0, 1, 30, 2)
    states[:, 0:30], states[:, 30:60] = np.arange(30), 0  # the first 30 items
    own = np.ascontiguousarray(rows[:, :-2])
    candidates = np.arange(60, dtype=np.int32)[None].repeat(len(states), axis=0)
    scores = NativeScorer(native_kernel(form, {}), ItemRows(own)).score(states, candidates)
    for user, state in enumerate(states):
        expected = plain_similarity(form, state, own[:60], np.arange(60))
        np.testing.assert_allclose(scores[user], expected, rtol=1e-4, atol=1e-4)


FORMS = [
    pytest.param(lambda: similarity_form(9, 0, 1, 20, 2), id="similarity"),
    pytest.param(lambda: network_form(20, 8, 10, (12,)), id="network", marks=needs_bf16),
]


@pytest.mark.parametrize("make", FORMS)
def test_threads_shapes_and_where_rows_come_from_change_no_bit(make):
    form, arrays, states, rows = make()
    kernel = native_kernel(form, arrays)
    candidates = draw(len(states), 3000, padding=0.01)
    expected = NativeScorer(kernel, ItemRows(rows)).score(states, candidates)
    np.testing.assert_array_equal(NativeScorer(kernel, ItemRows(rows), threads=3).score(states, candidates), expected)
    live = ItemRows(np.ascontiguousarray(rows[:400]), np.ascontiguousarray(rows[400:]), first=1000)
    numbered = np.where(candidates >= 400, candidates + 600, candidates)
    np.testing.assert_array_equal(NativeScorer(kernel, None).score(states, numbered, live), expected)
    few = np.where(candidates < 0, 0, candidates)[:, :50]
    np.testing.assert_array_equal(
        NativeScorer(kernel, None).score(states, rows[few]), NativeScorer(kernel, ItemRows(rows)).score(states, few)
    )


@pytest.mark.parametrize("make", FORMS)
@pytest.mark.parametrize("item", [-2, 400, 999, 1200])
def test_an_item_without_a_row_is_refused(make, item):
    form, arrays, states, rows = make()
    table = ItemRows(np.ascontiguousarray(rows[:400]), np.ascontiguousarray(rows[400:]), first=1000)
    with pytest.raises(IndexError, match=f"candidates holds {item}; expected an item of 0 <= item < 400"):
        NativeScorer(native_kernel(form, arrays), table).score(states, np.full((len(states), 1), item, np.int32))


@pytest.mark.parametrize("make", FORMS)
def test_arrays_of_another_shape_are_refused(make):
    form, arrays, states, rows = make()
    scorer, items = NativeScorer(native_kernel(form, arrays), ItemRows(rows)), draw(len(states), 3)
    with pytest.raises(ValueError, match=r"user_state has \d+ columns; expected"):
        scorer.score(states[:, :5], items)
    with pytest.raises(ValueError, match=r"candidate_rows has 3 columns; expected"):
        scorer.score(states, items, ItemRows(rows[:, :3].copy()))
    with pytest.raises(ValueError, match="candidates has 1 rows"):
        scorer.score(states, items[:1])
    with pytest.raises(TypeError, match="candidates"):
        scorer.score(states, items.astype(np.int64))
    with pytest.raises(ValueError, match="the scorer has no item table; expected rows"):
        NativeScorer(native_kernel(form, arrays), None).score(states, items)
    with pytest.raises(ValueError, match="delta has 2 columns"):
        native_kernel(form, arrays).score(states, items, rows, np.zeros((1, 2), np.float32), ITEMS, 1)


def test_forms_that_make_no_sense_are_refused():
    with pytest.raises(ValueError, match="the form is 'other'; expected network or similarity"):
        native_kernel({"form": "other"}, {})
    form = similarity_form(5, 0, 1, 3, 2)[0]
    with pytest.raises(ValueError, match="width is -1; expected a whole number from 0 to"):
        native_kernel({**form, "width": -1}, {})
    with pytest.raises(ValueError, match="width is 0; expected at least 1"):
        native_kernel({**form, "width": 0}, {})
    with pytest.raises(ValueError, match="there are 0 gates; expected 1, one of each head and one of repeats"):
        native_kernel({**form, "evidences": 0}, {})


@needs_bf16
def test_layers_that_do_not_fit_are_refused():
    form, arrays, _, _ = network_form(20, 8, 10, (12,))
    with pytest.raises(ValueError, match="a layer has 20 inputs; expected 21, the outputs of the layer before"):
        native_kernel({**form, "hidden": 21}, arrays)
    with pytest.raises(ValueError, match="a layer has not one bias for each output"):
        native_kernel(form, {**arrays, "bias0": arrays["bias0"][:3]})
    with pytest.raises(ValueError, match="2 slopes came; expected 1, one before each layer and the output"):
        _kernels.NetworkScorer(4, 0, 1, [], [0.1, 0.2], np.ones(4, np.float32), 0.0)


@pytest.mark.skipif(_kernels.has_bf16(), reason="needs a CPU without avx512_bf16")
def test_a_network_needs_bf16():
    form, arrays, _, _ = network_form(20, 8, 10, (12,))
    with pytest.raises(RuntimeError, match="this network needs a CPU with avx512_bf16"):
        native_kernel(form, arrays)


def test_what_can_not_run_natively_says_why(monkeypatch):
    assert "has no native form" in (native_refusal({}) or "")
    network, products = {"form": NETWORK}, {"form": SIMILARITY, "heads": 0}
    monkeypatch.setattr(_kernels, "has_bf16", lambda: False)
    assert "a CPU with avx512_bf16" in (native_refusal({"export": {"native": network}}) or "")
    assert native_refusal({"export": {"native": products}}) is None

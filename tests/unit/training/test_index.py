from __future__ import annotations

import json

import hnswlib
import numpy as np
import pytest

from nann import item_sets
from nann.best_first_search import best_first_search
from nann.bundle import Bundle, search_file_names
from nann.bundle_check import check_servable
from nann.errors import BundleError, ConfigError, DataError, FilterError
from nann.item_ids import TEXT
from nann.reachability import Reachability
from nann.search_input import UserBatch
from nann.search_params import SearchOptions, SearchParams
from nann.training.config import IndexConfig, SearchConfig
from nann.training.search.index import build_hnsw, create_bundle, graph_from_hnswlib

CONFIG = IndexConfig(m=8, ef_construction=40, entry_layer=2)
SEARCH = SearchConfig(top_k=5, ef=(10, 20, 40), rounds=(1, 2, 3))


class L2Scorer:
    """The user state is a query vector; the score is the negative squared distance."""

    def __init__(self, vectors):
        self._vectors = vectors

    def score(self, user_states, candidates):
        return -((self._vectors[candidates] - user_states[:, None]) ** 2).sum(axis=-1)


@pytest.fixture(scope="module")
def vectors():
    # Small integers: distances are exact in float32 whatever the order of summation.
    return np.random.default_rng(0).integers(-50, 50, size=(3000, 12)).astype(np.float32)


@pytest.fixture(scope="module")
def queries():
    return np.random.default_rng(1).integers(-50, 50, size=(40, 12)).astype(np.float32)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("ef", [10, 64])
def test_the_layers_are_hnswlibs_own(vectors, queries, threads, ef):
    """The while-loop search under an L2 scorer on our layers finds what hnswlib finds on its own."""
    index = build_hnsw(vectors, CONFIG, threads=threads)
    graph = graph_from_hnswlib(index, entry_layer=2)
    index.set_ef(ef)
    index.set_num_threads(1)
    _, distances = index.knn_query(queries, k=10)
    found = best_first_search(graph, L2Scorer(vectors), UserBatch(queries, None), top_k=10, ef=ef)
    np.testing.assert_array_equal(-found.scores, distances)


def test_labels_need_not_follow_insertion(vectors, queries):
    labels = np.random.default_rng(2).permutation(len(vectors))
    index = hnswlib.Index("l2", vectors.shape[1])
    index.init_index(len(vectors), M=8, ef_construction=40)
    index.add_items(vectors[labels], labels, num_threads=1)
    graph = graph_from_hnswlib(index, entry_layer=1)
    index.set_ef(50)
    _, distances = index.knn_query(queries, k=10)
    found = best_first_search(graph, L2Scorer(vectors), UserBatch(queries, None), top_k=10, ef=50)
    np.testing.assert_array_equal(-found.scores, distances)


def test_levels_and_degrees_are_those_of_the_index(vectors):
    index = build_hnsw(vectors, CONFIG, threads=1)
    state = index.__getstate__()[0]
    graph = graph_from_hnswlib(index, entry_layer=1)
    assert graph.layer_sizes == tuple(
        np.count_nonzero(state["element_levels"] >= n) for n in range(state["max_level"] + 1)
    )
    assert np.diff(graph.layers[0].indptr).max() <= 16
    assert len(graph.layers) > 1
    assert max(np.diff(layer.indptr).max() for layer in graph.layers[1:]) <= 8


def test_the_same_vectors_and_one_thread_give_the_same_graph(vectors):
    first, second = (graph_from_hnswlib(build_hnsw(vectors, CONFIG, threads=1), 2) for _ in range(2))
    for a, b in zip(first.layers, second.layers, strict=True):
        np.testing.assert_array_equal(a.neighbors, b.neighbors)


def test_a_small_corpus_has_only_the_ground_layer():
    vectors = np.arange(12, dtype=np.float32)[:, None]
    graph = graph_from_hnswlib(build_hnsw(vectors, IndexConfig(m=16), threads=1), entry_layer=2)
    assert graph.entry_layer == len(graph.layers) - 1


NAMES = [f"sku-{number:04}" for number in range(3000)]


def make_bundle(folder, vectors, **changes):
    arguments = {
        "item_ids": np.arange(1, len(vectors) + 1),
        "item_vectors": vectors,
        "sequence_length": 4,
        "index": CONFIG,
        "search": SEARCH,
        **changes,
    }
    return create_bundle(folder, **arguments)


def test_the_bundle_holds_what_was_given(vectors, tmp_path):
    bundle = make_bundle(tmp_path / "bundle", vectors, item_names=[f"item\n{i}" for i in range(3000)])
    opened = Bundle.open(tmp_path / "bundle")
    np.testing.assert_array_equal(opened.item_vectors, vectors)
    assert opened.item_names[7] == "item 7"
    assert opened.bundle_id == bundle.bundle_id
    assert opened.search_params.ef == (10, 20, 40)
    manifest = json.loads((tmp_path / "bundle" / "manifest.json").read_text())
    assert manifest["graph"]["m"] == 8
    assert manifest["graph"]["layer_sizes"][0] == 3000


def test_a_bundle_is_replaced_and_anything_else_is_not(vectors, tmp_path):
    first = make_bundle(tmp_path / "bundle", vectors)
    second = make_bundle(tmp_path / "bundle", vectors + 1)
    assert first.bundle_id != second.bundle_id
    other = tmp_path / "thesis"
    other.mkdir()
    (other / "chapter1.tex").write_text("irreplaceable")
    with pytest.raises(BundleError, match="is not a bundle"):
        make_bundle(other, vectors)
    assert (other / "chapter1.tex").read_text() == "irreplaceable"


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"item_ids": np.arange(1, 10)}, DataError, "9 item ids came with 3000 item vectors"),
        ({"item_ids": np.arange(3000)}, DataError, "item id 0 is not positive"),
        (
            {"item_ids": np.arange(3001, 1, -1)},
            DataError,
            "must be strictly ascending, and row 1 has 3000 after 3001: sort ids and vectors together",
        ),
        ({"item_ids": [1, *range(1, 3000)]}, DataError, "row 1 has 1 after 1: the same item twice"),
        ({"item_ids": [*NAMES[:-1], "sku-02"]}, DataError, "row 2,999 has 'sku-02' after 'sku-2998': sort ids and"),
        ({"item_ids": [*NAMES[:-1], NAMES[-2]]}, DataError, "'sku-2998' after 'sku-2998': the same item twice"),
        ({"item_ids": NAMES[:9]}, DataError, "9 item ids came with 3000 item vectors"),
        (
            {"item_ids": np.arange(1.0, 3001)},
            DataError,
            r"item_ids is float64\[3000\]; expected whole numbers or texts",
        ),
        (
            {"item_ids": np.arange(2**64 - 3000, 2**64, dtype=np.uint64)},
            DataError,
            "item id 18446744073709551615 is too",
        ),
        ({"item_ids": np.arange(3000, 0, -1, dtype=np.uint32)}, DataError, "strictly ascending"),
        (
            {"light_vectors": np.zeros((2999, 3))},
            DataError,
            r"light_vectors has shape \[2999, 3\]; expected \[3000, any",
        ),
        (
            {"search": SearchConfig(top_k=4000, ef=(1, 1, 4000), rounds=(1, 1, 1))},
            ConfigError,
            "has 3000 items and top_k",
        ),
        ({"search": SearchConfig(top_k=5, ef=(5,), rounds=(1,))}, ConfigError, "1 values and the graph 3 layers"),
    ],
)
def test_what_does_not_fit_is_refused(vectors, tmp_path, changes, error, message):
    with pytest.raises(error, match=message):
        make_bundle(tmp_path / "bundle", vectors, **changes)
    assert not (tmp_path / "bundle").exists()


@pytest.mark.parametrize("given", [NAMES, np.array(NAMES), np.array(NAMES, object), TEXT.stored(NAMES)], ids=type)
def test_ids_may_be_text(vectors, tmp_path, given):
    make_bundle(tmp_path / "bundle", vectors, item_ids=given)
    bundle = Bundle.open(tmp_path / "bundle")
    check_servable(bundle)
    assert (bundle.id_kind, bundle.manifest["item_id_kind"]) == (TEXT, "text")
    assert bundle.id_kind.plain(bundle.item_ids) == NAMES
    assert bundle.external_ids(np.array([[5, -1]], np.int32)).tolist() == [[NAMES[5], ""]]
    assert bundle.features.item_indices(np.array(["sku-1500", "sku-1", ""], object)).tolist() == [1500, -1, -1]


@pytest.mark.parametrize("dtype", [np.int32, np.uint64, np.uint16])
def test_integer_ids_of_any_type_are_converted(vectors, tmp_path, dtype):
    bundle = make_bundle(tmp_path / "bundle", vectors, item_ids=np.arange(1, 3001, dtype=dtype))
    assert Bundle.open(bundle.path).item_ids.dtype == np.int64
    np.testing.assert_array_equal(bundle.item_ids, np.arange(1, 3001))


def test_the_search_to_recommend_can_be_given(vectors, tmp_path):
    asked = SearchOptions(top_k=7, rounds=(1, 1, 1))
    bundle = make_bundle(tmp_path / "bundle", vectors, asked=asked)
    assert bundle.search_params == SearchParams(7, (10, 20, 40), (1, 1, 1))


def test_a_search_that_leaves_places_empty_is_not_recommended(vectors, tmp_path):
    few = SearchConfig(top_k=40, ef=(1, 1, 40), rounds=(0, 0, 1))
    with pytest.raises(BundleError, match=r"finds \d+ items where top_k is 40; raise ef, rounds"):
        make_bundle(tmp_path / "bundle", vectors, search=few)


def test_vectors_that_are_not_finite_are_refused(vectors, tmp_path):
    broken = vectors.copy()
    broken[5, 3] = np.nan
    with pytest.raises(DataError, match="item_vectors has 1 rows that are not finite, the first is 5: a diverged"):
        make_bundle(tmp_path / "bundle", broken)


def test_a_graph_that_leaves_items_unreachable_is_no_bundle(vectors, tmp_path, monkeypatch):
    """Two distant halves and two links an item: hnswlib leaves one half without a link from the other."""
    far = np.concatenate([vectors, vectors + 10_000])
    with pytest.raises(BundleError, match=r"no search can reach .* of the 6,000 items .*; expected at most 5%"):
        make_bundle(tmp_path / "bundle", far, index=IndexConfig(m=2, ef_construction=1, entry_layer=2))
    assert not (tmp_path / "bundle").exists()


def test_the_notes_count_equal_vectors_and_unreachable_items(tmp_path):
    vectors = np.zeros((3000, 12), np.float32)
    vectors[:2000] = np.random.default_rng(3).normal(size=(2000, 12))
    bundle = make_bundle(tmp_path / "bundle", vectors)
    expected = {"items_with_another_items_vector": 999, **Reachability.of(bundle.graph).summary()}
    assert bundle.notes["reachability"] == expected


def test_attributes_and_named_filters_come_into_the_bundle(tmp_path, vectors):
    attributes = {
        "price": np.arange(3000) / 100,
        "tags": [["even", "any"] if item % 2 == 0 else ["any"] for item in range(3000)],
        "available": [None if item == 5 else item < 10 for item in range(3000)],
    }
    filters = {"few": "available and price < 0.055"}
    bundle = make_bundle(tmp_path / "bundle", vectors, attributes=attributes, filters=filters)
    assert bundle.manifest["attributes"] == {
        "price": {"type": "number", "column": 0},
        "tags": {"type": "categories", "column": 1},
        "available": {"type": "flag", "column": 2},
    }
    opened = Bundle.open(bundle.path)
    assert opened.filters == filters
    assert opened.attributes.names == ["price", "tags", "available"]
    few = opened.attributes.compile(opened.filters["few"])
    assert item_sets.members(few).tolist() == [0, 1, 2, 3, 4]
    assert item_sets.count(opened.attributes.compile('tags = "even"')) == 1500
    listed = {name for name in opened.manifest["files"] if name.startswith("attribute")}
    assert listed == set(search_file_names(opened.manifest)) & listed
    assert len(listed) == 6
    plain = make_bundle(tmp_path / "plain", vectors)
    assert (plain.attributes, plain.filters) == (None, {})
    assert not {"attributes", "filters"} & set(plain.manifest)


def test_attributes_and_named_filters_that_do_not_fit(tmp_path, vectors):
    with pytest.raises(DataError, match="attribute 'price' has 2 values; expected 3,000"):
        make_bundle(tmp_path / "bundle", vectors, attributes={"price": [1, 2]})
    with pytest.raises(FilterError, match="filter 'few': position 1: got 'price'; expected an attribute"):
        make_bundle(tmp_path / "bundle", vectors, filters={"few": "price < 2"})

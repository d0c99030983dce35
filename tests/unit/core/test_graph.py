import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.searching import make_graph, random_graph

from nann.array_files import load_array
from nann.errors import BundleError
from nann.graph import HnswGraph, Layer, graph_files, layer_files


def int32(*values):
    return np.array(values, np.int32)


LEVELS = np.array([1, 0, 2, 0], np.uint8)
GROUND = Layer(int32(0, 2, 3, 5, 6), int32(1, 2, 0, 0, 3, 2))
MIDDLE = Layer(int32(0, 1, 1, 2, 2), int32(2, 0))
TOP = Layer(int32(0, 0, 0, 0, 0), int32())


def graph(ground=GROUND, middle=MIDDLE, top=TOP, levels=LEVELS, entry_layer=1, hnsw_entry_point=2):
    return HnswGraph((ground, middle, top), levels, entry_layer, hnsw_entry_point)


def test_what_a_graph_tells():
    g = graph()
    g.validate()
    assert g.item_count == 4
    assert g.layer_sizes == (4, 2, 1)
    np.testing.assert_array_equal(g.entry_points, int32(0, 2))
    assert g.entry_points.dtype == np.int32
    np.testing.assert_array_equal(g.layers[0].neighbors_of(2), int32(0, 3))
    assert g.layers[1].neighbors_of(1).size == 0


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (HnswGraph((), LEVELS, 0, 0), "the graph has no layers; expected at least the ground layer"),
        (graph(entry_layer=3), "entry_layer is 3; the graph has layers 0 to 2"),
        (graph(entry_layer=-1), "entry_layer is -1; the graph has layers 0 to 2"),
        (graph(hnsw_entry_point=4), "hnsw_entry_point is 4; expected an item below 4"),
        (graph(hnsw_entry_point=-1), "hnsw_entry_point is -1; expected an item below 4"),
        (graph(ground=Layer(int32(0, 6), GROUND.neighbors)), r"layer 0: indptr has shape \(2,\); expected \(5,\)"),
        (
            graph(middle=Layer(np.zeros((5, 1), np.int32), int32())),
            r"layer 1: indptr has shape \(5, 1\); expected \(5,\)",
        ),
        (graph(ground=Layer(int32(1, 2, 3, 5, 6), GROUND.neighbors)), "layer 0: indptr does not rise from 0 to 6"),
        (graph(ground=Layer(int32(0, 2, 3, 5, 5), GROUND.neighbors)), "layer 0: indptr does not rise from 0 to 6"),
        (graph(ground=Layer(int32(0, 2, 7, 5, 6), GROUND.neighbors)), "layer 0: indptr does not rise from 0 to 6"),
        (graph(ground=Layer(GROUND.indptr, int32(1, 2, 0, 0, 4, 2))), r"layer 0: a neighbour is outside 0\.\.3"),
        (graph(ground=Layer(GROUND.indptr, int32(1, 2, 0, 0, -1, 2))), r"layer 0: a neighbour is outside 0\.\.3"),
        (graph(middle=Layer(MIDDLE.indptr, int32(3, 0))), "layer 1: an item of a lower level has or is a neighbour"),
        (
            graph(middle=Layer(int32(0, 0, 1, 2, 2), int32(2, 0))),
            "layer 1: an item of a lower level has or is a neighbour",
        ),
        (
            graph(levels=np.array([1, 0, 1, 0], np.uint8), entry_layer=2),
            "layer 2, the entry layer, has no items",
        ),
    ],
)
def test_what_is_wrong_is_named(broken, message):
    with pytest.raises(BundleError, match=message):
        broken.validate()


def test_the_items_of_a_graph_may_have_no_links():
    make_graph([[[], []]], [0, 0])


@given(st.integers(0, 2**32 - 1), st.integers(1, 60), st.integers(1, 4))
def test_save_and_load_give_the_same_graph(tmp_path_factory, seed, items, layers):
    folder = tmp_path_factory.mktemp("graph")
    saved = random_graph(np.random.default_rng(seed), items, layers, degree=5)
    assert saved.save(folder) == graph_files(layers)
    assert sorted(path.name for path in folder.iterdir()) == sorted(graph_files(layers))
    loaded = HnswGraph.load(folder, layers, saved.entry_layer, saved.hnsw_entry_point)
    loaded.validate()
    assert (loaded.entry_layer, loaded.hnsw_entry_point) == (saved.entry_layer, saved.hnsw_entry_point)
    np.testing.assert_array_equal(loaded.levels, saved.levels)
    for ours, theirs in zip(loaded.layers, saved.layers, strict=True):
        np.testing.assert_array_equal(ours.indptr, theirs.indptr)
        np.testing.assert_array_equal(ours.neighbors, theirs.neighbors)


def test_loaded_arrays_are_memory_mapped_and_read_only(tmp_path):
    graph().save(tmp_path)
    loaded = HnswGraph.load(tmp_path, 3, 1, 2)
    for array in (loaded.levels, loaded.layers[0].indptr, loaded.layers[0].neighbors):
        assert isinstance(array.base, np.memmap)
        assert not array.flags.writeable
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 1


def test_file_names():
    assert layer_files(1) == ("layer1.indptr.npy", "layer1.neighbors.npy")
    assert graph_files(1) == ["levels.npy", "layer0.indptr.npy", "layer0.neighbors.npy"]


@pytest.mark.parametrize("content", [b"", b"not an array", b"\x93NUMPY\x01\x00"])
def test_a_file_that_is_no_array_is_refused(tmp_path, content):
    path = tmp_path / "levels.npy"
    path.write_bytes(content)
    with pytest.raises(BundleError, match=r"levels\.npy can't be read as a NumPy array: .*; make the bundle again"):
        load_array(path, np.uint8, 1)


def test_a_missing_array_is_refused(tmp_path):
    with pytest.raises(BundleError, match=r"levels\.npy can't be read as a NumPy array"):
        HnswGraph.load(tmp_path, 0, 0, 0)


def test_a_pickle_is_refused(tmp_path):
    path = tmp_path / "levels.npy"
    np.save(path, np.array([{"an": "object"}], object), allow_pickle=True)
    with pytest.raises(BundleError, match="can't be read as a NumPy array"):
        load_array(path, np.uint8, 1)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros(3, np.int64), r"holds int64\[1 dimensions\]; expected int32\[1\]; make the bundle again"),
        (np.zeros((3, 1), np.int32), r"holds int32\[2 dimensions\]; expected int32\[1\]"),
        (np.zeros(3, ">i4"), r"holds >i4\[1 dimensions\]; expected int32\[1\]"),
    ],
)
def test_an_array_of_another_dtype_or_rank_is_refused(tmp_path, array, message):
    path = tmp_path / "layer0.indptr.npy"
    np.save(path, array)
    with pytest.raises(BundleError, match=message):
        load_array(path, np.int32, 1)

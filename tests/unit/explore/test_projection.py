"""Two dimensions of item vectors, made once."""

from __future__ import annotations

import numpy as np
import pytest

from nann.explore import projection
from nann.explore.projection import Projection


@pytest.fixture(scope="module")
def vectors() -> np.ndarray:
    rng = np.random.default_rng(5)
    return (rng.normal(size=(3000, 8)) * [9, 4, 1, 1, 1, 1, 1, 1] + 3).astype(np.float32)


def test_the_picture_shows_the_two_directions_of_most_spread(vectors):
    made = Projection.of(vectors)
    np.testing.assert_allclose(abs(made.matrix[:2]), np.eye(2), atol=0.1)
    points = made.points(vectors)
    assert points.min() == 0
    assert points.max() == 1
    for axis in (0, 1):  # each axis keeps the order of its component
        assert (
            abs(
                np.corrcoef(
                    np.argsort(np.argsort(points[:, axis])), np.argsort(np.argsort(vectors @ made.matrix[:, axis]))
                )[0, 1]
            )
            > 0.999
        )


def test_far_items_leave_room_for_the_others(vectors):
    far = vectors.copy()
    far[0] = 1e5
    points = Projection.of(far).points(far)
    assert np.ptp(points[1:], axis=0).min() > 0.45, "half of each axis goes by rank"


def test_a_large_corpus_is_sampled(vectors, monkeypatch):
    monkeypatch.setattr(projection, "MOST_POINTS", 100)
    sample = Projection.of(vectors).sample
    assert len(sample) == len(set(sample.tolist())) == 100
    assert (np.diff(sample) > 0).all()


def test_vectors_of_one_number():
    points = Projection.of(np.arange(9, dtype=np.float32)[:, None]).points(np.float32([[0], [8]]))
    assert points[:, 0].tolist() in ([0, 1], [1, 0])


def test_it_is_made_once(vectors, tmp_path, monkeypatch):
    path = tmp_path / "cache/b.npz"
    made = Projection.kept(path, vectors)
    monkeypatch.setattr(Projection, "of", lambda _: pytest.fail("made again"))
    again = Projection.kept(path, vectors)
    assert np.array_equal(again.points(vectors), made.points(vectors))
    assert np.array_equal(again.sample, made.sample)


@pytest.mark.parametrize("content", [b"", b"no archive", None])
def test_a_file_that_can_not_be_used_is_made_again(vectors, tmp_path, content):
    path = tmp_path / "b.npz"
    if content is None:
        Projection.kept(path, vectors[:, :4])  # of other vectors
    else:
        path.write_bytes(content)
    assert Projection.kept(path, vectors).matrix.shape == (8, 2)
    with np.load(path, allow_pickle=False) as arrays:
        assert arrays["matrix"].shape == (8, 2)


def test_where_nothing_can_be_written_it_is_made_each_time(vectors, tmp_path):
    (tmp_path / "file").write_text("")
    assert Projection.kept(tmp_path / "file/b.npz", vectors).sample.shape == (3000,)

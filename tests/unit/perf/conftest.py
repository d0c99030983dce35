"""A corpus that is measured within a second."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from nann.perf.corpora.offline import OfflineUsers
from nann.search_input import UserBatch
from nann.training.config import IndexConfig, SearchConfig
from nann.training.data.prepared import Queries
from nann.training.search.index import create_bundle
from nann.training.search.planted import PlantedCorpus, PlantedScorer, planted_vectors

ITEMS, USERS = 3000, 6


@pytest.fixture(scope="session")
def planted_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("planted")


@pytest.fixture(scope="session")
def corpus(planted_cache: Path) -> PlantedCorpus:
    return PlantedCorpus.cached(planted_cache, ITEMS)


@pytest.fixture(scope="session")
def users(tmp_path_factory: pytest.TempPathFactory) -> OfflineUsers:
    """Users whose targets are the items nearest to their vectors; the light vectors are the item vectors with noise."""
    vectors = planted_vectors(0, ITEMS)
    blur = np.random.default_rng(2).normal(0, 0.05, vectors.shape).astype(np.float32)
    bundle = create_bundle(
        tmp_path_factory.mktemp("bundle") / "bundle",
        item_ids=np.arange(1, ITEMS + 1),
        item_vectors=vectors,
        light_vectors=vectors + blur,
        sequence_length=4,
        index=IndexConfig(m=8),
        search=SearchConfig(top_k=20, ef=(20, 40, 80), rounds=(1, 1, 3)),
        threads=1,
    )
    states = planted_vectors(0, USERS, seed=1)
    targets = np.sort(np.argsort(-(states @ vectors.T), axis=1)[:, :5], axis=1).astype(np.int32)
    queries = Queries(
        behaviors=np.ascontiguousarray(targets[:, :4]),
        external_ids=targets[:, :4] + np.int64(1),
        profiles=np.zeros((USERS, 1), np.int32),
        target_indptr=np.arange(0, 5 * USERS + 1, 5),
        target_items=targets.reshape(-1),
        users=np.arange(USERS, dtype=np.int32),
        excluded_indptr=np.zeros(USERS + 1, np.int64),
        excluded_items=np.zeros(0, np.int32),
    )
    scorer = PlantedScorer(vectors)
    return OfflineUsers(bundle, scorer, scorer, queries, UserBatch(states, queries.behaviors))

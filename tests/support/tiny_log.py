"""A log and a configuration so small that training on them takes less than a second."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl

USERS, ITEMS, CATEGORIES = 120, 300, 12
CONFIG: dict = {
    "model": {
        "sequence_length": 8,
        "embedding_dim": 8,
        "item_layers": [16, 16],
        "attention_dim": 8,
        "key_hidden": 8,
        "query_hidden": 8,
        "score_layers": [16, 8],
    },
    "loss": {"negatives": 15, "nce": "ranking", "auxiliary": {"candidates": 4}},
    "optimization": {"steps": 30, "batch_size": 32, "warmup_steps": 5},
    "index": {"m": 8, "entry_layer": 1},
    "search": {"top_k": 10, "ef": [10, 40], "rounds": [1, 3]},
}


def write_log(path: Path, columns: Sequence[str] = ("user", "item", "time", "category"), users: int = USERS) -> Path:
    """A CSV in which each of `users` users stays within two categories, and a few others see every item once."""
    rng = np.random.default_rng(7)
    category_of = np.arange(ITEMS) % CATEGORIES
    rows = []
    for user in range(users):
        liked = np.flatnonzero(np.isin(category_of, rng.choice(CATEGORIES, 2, replace=False)))
        rows += [
            (user, int(item) + 1, time, f"c{category_of[item]}") for time, item in enumerate(rng.choice(liked, 20))
        ]
    rows += [(users + item // 20, item + 1, item, f"c{category_of[item]}") for item in range(ITEMS)]
    pl.DataFrame(rows, schema=list(columns), orient="row").write_csv(path)
    return path

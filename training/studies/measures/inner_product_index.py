"""hnswlib for inner products: the first stage of a cascade."""

from __future__ import annotations

from pathlib import Path

import hnswlib
import numpy as np

from nann.durable_files import new_folder
from nann.scorer import Float32Array, Int32Array

_LEAST_EF = 400
_FILE = "inner_products.hnsw"


class InnerProductIndex:
    """The items with the largest inner products with a user's vector, about.

    hnswlib's inner-product space finds only about half of a long list. So items get one more dimension, which gives all
    of them the same norm: the nearest by L2 then have the largest inner products (Bachrach et al. 2014).

    Args:
        items: `float32[N, d]`.
        folder: keeps the index for the next time; None: it is not kept.
        m: hnswlib's M.
        ef_construction: hnswlib's.
    """

    def __init__(
        self, items: Float32Array, folder: Path | None = None, m: int = 32, ef_construction: int = 200
    ) -> None:
        norms = np.linalg.norm(items, axis=1)
        self._norm = norms.max()
        self._index = hnswlib.Index(space="l2", dim=items.shape[1] + 1)
        if folder is not None and (folder / _FILE).is_file():
            self._index.load_index(str(folder / _FILE))
            return
        rest = np.sqrt(np.maximum(norms.max() ** 2 - norms**2, 0))
        self._index.init_index(max_elements=len(items), M=m, ef_construction=ef_construction, random_seed=1)
        self._index.add_items(np.column_stack([items, rest]).astype(np.float32), np.arange(len(items)))
        if folder is not None:
            with new_folder(folder) as made:
                self._index.save_index(str(made / _FILE))

    def best(self, users: Float32Array, n: int, threads: int = -1) -> Int32Array:
        """The n best, `int32[U, n]`, for `float32[U, d]`; -1 threads: all cores.

        Raises:
            RuntimeError: hnswlib finds fewer.
        """
        self._index.set_ef(max(2 * n, _LEAST_EF))
        # Only the direction of a user vector matters; with the items' norm, queries lie among the items.
        lengths = np.maximum(np.linalg.norm(users, axis=1, keepdims=True), np.finfo(np.float32).tiny)
        queries = np.pad(users / lengths * self._norm, ((0, 0), (0, 1))).astype(np.float32)
        found: Int32Array = self._index.knn_query(queries, k=n, num_threads=threads)[0].astype(np.int32)
        return found

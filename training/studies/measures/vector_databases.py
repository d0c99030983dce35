"""What vector databases find under a filter: candidates by the two-sided vectors, re-ranked by the same scorer.

Each is asked for as many items as our search has scored for that user. Their own cost is not counted, which favours
them. Those that are not installed are left out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from time import perf_counter
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from nann.scorer import Float32Array, Int32Array
from nann.signature import PADDING_ITEM

M, EF_CONSTRUCTION = 32, 200
"""Of each graph."""
_WIDER = 2
"""The length of a database's own list of candidates, as a multiple of what it is asked for."""
_FIELD = "sets"
_BATCH = 2000


class Database(Protocol):
    """A vector database with N items."""

    def search(self, user: Float32Array, count: int, number: int, matching: npt.NDArray[np.bool_]) -> list[int]:
        """At most `count` items of the filter with this number, best first.

        Args:
            user: `float32[d]`; nearer by L2 is better.
            count: how many.
            number: of the filter, as in `Tags`.
            matching: `bool[N]`, the same filter for a database that takes a predicate.
        """
        ...


@dataclass(frozen=True)
class Tags:
    """The filters that each item matches, by their numbers, as a database stores them with the item."""

    of_items: Sequence[list[int]]

    @classmethod
    def of(cls, filters: Sequence[npt.NDArray[np.bool_]]) -> Tags:
        """Those of filters over the same items, `bool[N]` each."""
        return cls([np.flatnonzero(row).tolist() for row in np.stack(filters, axis=1)])


class Usearch:
    """usearch. Its Python interface takes no predicate: it is asked for more until enough items match, or for all."""

    def __init__(self, vectors: Float32Array, tags: Tags, folder: Path) -> None:
        from usearch.index import Index

        self._index = Index(ndim=vectors.shape[1], metric="l2sq", connectivity=M, expansion_add=EF_CONSTRUCTION)
        self._index.add(np.arange(len(vectors)), vectors)

    def search(self, user: Float32Array, count: int, number: int, matching: npt.NDArray[np.bool_]) -> list[int]:
        """See `Database`."""
        wanted = min(count, int(matching.sum()))
        asked = min(max(round(count / matching.mean()), count), len(matching))
        while True:
            self._index.expansion_search = _WIDER * asked
            keys = self._index.search(user, asked).keys.astype(np.int64)
            found: list[int] = keys[matching[keys]][:count].tolist()
            if len(found) >= wanted or asked == len(matching):
                return found
            asked = min(2 * asked, len(matching))


class QdrantEdge:
    """qdrant-edge, with an index of the filters' numbers and its search through items that do not match (ACORN)."""

    def __init__(self, vectors: Float32Array, tags: Tags, folder: Path) -> None:
        import qdrant_edge as qdrant

        self._qdrant = qdrant
        graph = qdrant.HnswIndexConfig(M, EF_CONSTRUCTION, 10)  # the last: almost never a full scan for its size in KB
        size = qdrant.EdgeVectorParams(vectors.shape[1], qdrant.Distance.Euclid, hnsw_config=graph)
        folder.mkdir()
        self._shard = qdrant.EdgeShard.create(
            str(folder),
            qdrant.EdgeConfig(size, hnsw_config=graph, optimizers=qdrant.EdgeOptimizersConfig(indexing_threshold=1)),
        )
        update = qdrant.UpdateOperation
        self._shard.update(update.create_field_index(_FIELD, qdrant.PayloadSchemaType.Integer))
        for first in range(0, len(vectors), _BATCH):
            rows = range(first, min(first + _BATCH, len(vectors)))
            points = [qdrant.Point(row, vectors[row].tolist(), {_FIELD: tags.of_items[row]}) for row in rows]
            self._shard.update(update.upsert_points(points))
        while self._shard.optimize():
            pass

    def search(self, user: Float32Array, count: int, number: int, matching: npt.NDArray[np.bool_]) -> list[int]:
        """See `Database`."""
        qdrant = self._qdrant
        condition = qdrant.FieldCondition(_FIELD, match=qdrant.MatchValue(number))
        request = qdrant.SearchRequest(
            qdrant.Query.Nearest(user.tolist()),
            count,
            filter=qdrant.Filter(must=[condition]),
            params=qdrant.SearchParams(hnsw_ef=_WIDER * count, acorn=qdrant.AcornSearchParams(True)),
        )
        return [int(point.id) for point in self._shard.search(request)]


class MilvusLite:
    """milvus-lite: an HNSW index, and the filters' numbers as an array of each item."""

    def __init__(self, vectors: Float32Array, tags: Tags, folder: Path) -> None:
        from pymilvus import DataType, MilvusClient

        folder.mkdir()
        self._client: Any = MilvusClient(str(folder / "items.db"))
        schema = self._client.create_schema()
        schema.add_field("id", DataType.INT64, is_primary=True)
        schema.add_field("vector", DataType.FLOAT_VECTOR, dim=vectors.shape[1])
        capacity = max(map(len, tags.of_items)) + 1
        schema.add_field(_FIELD, DataType.ARRAY, element_type=DataType.INT64, max_capacity=capacity)
        index = self._client.prepare_index_params()
        graph = {"M": M, "efConstruction": EF_CONSTRUCTION}
        index.add_index("vector", index_type="HNSW", metric_type="L2", params=graph)
        self._client.create_collection("items", schema=schema, index_params=index)
        for first in range(0, len(vectors), _BATCH):
            rows = range(first, min(first + _BATCH, len(vectors)))
            made = [{"id": row, "vector": vectors[row].tolist(), _FIELD: tags.of_items[row]} for row in rows]
            self._client.insert("items", made)
        self._client.flush("items")
        self._client.load_collection("items")

    def search(self, user: Float32Array, count: int, number: int, matching: npt.NDArray[np.bool_]) -> list[int]:
        """See `Database`."""
        (found,) = self._client.search(
            "items",
            data=[user.tolist()],
            limit=count,
            filter=f"array_contains({_FIELD}, {number})",
            search_params={"params": {"ef": _WIDER * count}},
            output_fields=["id"],
        )
        return [hit["id"] for hit in found]


DATABASES: Mapping[str, tuple[str, Callable[[Float32Array, Tags, Path], Database]]] = {
    "usearch": ("usearch", Usearch),
    "qdrant-edge-py": ("qdrant_edge", QdrantEdge),
    "milvus-lite": ("milvus_lite", MilvusLite),
}
"""By the name of the package: the module it is imported by, and how it is filled."""


@dataclass(frozen=True, eq=False)
class Asked:
    """What the databases are asked for, for U users under F filters.

    Attributes:
        users: `float32[U, d]`.
        filters: F of `bool[U or 1, N]`, which items match; 1: the same for all users.
        counts: `int64[F, U]`, how many items.
    """

    users: Float32Array
    filters: Sequence[npt.NDArray[np.bool_]]
    counts: npt.NDArray[np.int64]


def installed() -> list[str]:
    """The packages of `DATABASES` that are installed."""
    return [name for name, (module, _) in DATABASES.items() if find_spec(module) is not None]


def found_by(name: str, vectors: Float32Array, asked: Asked, folder: Path) -> Iterator[tuple[Int32Array, float]]:
    """The items that a database finds under one filter after the other, and its milliseconds per user (p50).

    Args:
        name: of `DATABASES`.
        vectors: `float32[N, d]` of all items.
        asked: what it is asked for.
        folder: a new folder for its files.

    Yields:
        `int32[U, n]`, padded with -1; only items that match.
    """
    first_numbers = np.cumsum([0, *(len(each) for each in asked.filters)])
    tags = Tags.of([row for each in asked.filters for row in each])
    vectors, users = by_distance(vectors, asked.users)
    database = DATABASES[name][1](vectors, tags, folder)
    for number, each, counts in zip(first_numbers, asked.filters, asked.counts, strict=False):
        found = np.full((len(asked.users), int(counts.max())), PADDING_ITEM, np.int32)
        times = []
        for user, (vector, count) in enumerate(zip(users, counts, strict=True)):
            row = user % len(each)
            start = perf_counter()
            items = database.search(vector, int(count), int(number + row), each[row])
            times.append(1000 * (perf_counter() - start))
            found[user, : len(items)] = items
        yield found, float(np.median(times))


def by_distance(vectors: Float32Array, users: Float32Array) -> tuple[Float32Array, Float32Array]:
    """Vectors of one more number, the nearest of which by L2 have the largest inner products (Bachrach et al. 2014).

    A graph by inner products finds half of a long list. Now all items have one norm; `float32[N or U, d + 1]`.
    """
    norms = np.linalg.norm(vectors, axis=1)
    rest = np.sqrt(np.maximum(norms.max() ** 2 - norms**2, 0))
    lengths = np.maximum(np.linalg.norm(users, axis=1, keepdims=True), np.finfo(np.float32).tiny)
    near = np.pad(users / lengths * norms.max(), ((0, 0), (0, 1)))
    return np.column_stack([vectors, rest]).astype(np.float32), near.astype(np.float32)

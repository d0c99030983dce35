"""The items of the served bundle as the page shows them."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from nann.bundle import Bundle
from nann.manifest import search_to_json
from nann.search_requests import SERVED_BOUNDS

from .item_values import Attributes
from .names import NameIndex
from .projection import Float32Array, Int32Array, Projection

_COORDINATES = 65_535


class Corpus:
    """Names, attributes and places of N items; what takes long is made in the background.

    Args:
        bundle: with item vectors; no file of it is verified, as the server has verified its own.
        cache: folder for the projection.
    """

    def __init__(self, bundle: Bundle, cache: Path) -> None:
        self.bundle = bundle
        self._names = bundle.item_names
        columns = {} if bundle.attributes is None else bundle.attributes.columns
        self._attributes = Attributes(columns)
        workers = ThreadPoolExecutor(2, "explore")
        vectors, path = bundle.item_vectors, cache / f"{bundle.bundle_id}.projection.npz"
        self.projection = workers.submit(Projection.kept, path, vectors)
        self.index = workers.submit(
            lambda: NameIndex(self._names or list(map(str, bundle.id_kind.plain(bundle.item_ids))))
        )
        workers.shutdown(wait=False)

    def name(self, item: int) -> str:
        """The item's name; its id where the bundle has no names."""
        return (self._names[item] if self._names else "") or self.id(item)

    def id(self, item: int) -> str:
        """The external id as text."""
        return str(self.bundle.id_kind.plain(self.bundle.item_ids[[item]])[0])

    def described(self, items: Iterable[int]) -> list[dict[str, Any]]:
        """Items as the page shows them: index, id, name and attributes."""
        rows = np.fromiter(items, np.int32)
        ids = self.bundle.id_kind.plain(self.bundle.item_ids[rows])
        each = zip(rows.tolist(), ids, self._attributes.of(rows), strict=True)
        return [{"item": item, "id": str(one), "name": self.name(item), "attributes": of} for item, one, of in each]

    def found(self, text: str, limit: int) -> list[dict[str, Any]]:
        """Items whose names fit what was typed, and first the one with this id."""
        kind = self.bundle.id_kind
        try:
            known = self.bundle.features.item_indices(kind.row([kind.item(text.strip())]))[0].tolist()
        except ValueError:
            known = []
        items = [item for item in known if item >= 0]
        items += [item for item in self.index.result().search(text, limit) if item not in items]
        return self.described(items[:limit])

    def places(self, items: Int32Array) -> Float32Array:
        """Where items (`int32[n]`) are drawn: `float32[n, 2]`, from 0 to 1."""
        return self.projection.result().points(self.bundle.item_vectors[items])

    def background(self) -> bytes:
        """The P items that are drawn behind the walk: `int32[P]`, `uint16[P]` x, `uint16[P]` y, `uint8[P]` level."""
        sample = self.projection.result().sample
        places = np.rint(self.places(sample) * _COORDINATES).astype("<u2")
        levels = self.bundle.graph.levels[sample].astype(np.uint8)
        return b"".join(
            (sample.astype("<i4").tobytes(), places[:, 0].tobytes(), places[:, 1].tobytes(), levels.tobytes())
        )

    def about(self) -> dict[str, Any]:
        """What the dials and the filter builder need to know of the bundle."""
        bundle = self.bundle
        bounds = SERVED_BOUNDS.of_corpus(bundle.item_count)
        return {
            "bundle": bundle.bundle_id,
            "items": bundle.item_count,
            "layer_sizes": bundle.graph.layer_sizes,
            "light_score": bundle.light_vectors is not None,
            "entry": bundle.search_params.entry,
            "search": {entry: search_to_json(params) for entry, params in bundle.search_by_entry.items()},
            "bounds": vars(bounds),
            "attributes": self._attributes.schema(),
        }

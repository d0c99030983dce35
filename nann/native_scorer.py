"""The product's own networks without an engine: a native loop over rows of items, in bfloat16 where that is faster.

`nann export` writes what it needs of a network beside the ONNX file: sizes in the manifest (`export.native`), and the
small weights in `NATIVE_SCORER_FILE`. Rows of items stay where they are: among the weights of the ONNX file, or in
`item_rows.npy`. A scorer of your own has no native form.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt

from nann import _kernels
from nann.array_files import read_arrays
from nann.errors import BundleError
from nann.item_rows import ItemRows
from nann.kernel_checks import check
from nann.kernels import Float32Array

NATIVE_SCORER_FILE = "scorer.native.npz"
NETWORK, SIMILARITY = "network", "similarity"
"""The forms: the paper's network (`nann.training.models.neural_scorer`), and inner products with similarities and
repeats (`kernel_scorer`; the architecture `two_sided` too)."""
NETWORK_SIZES = ("hidden", "attention", "length")
SIMILARITY_SIZES = ("width", "heads", "attended", "repeats", "digits", "evidences")
_SIZES = {NETWORK: NETWORK_SIZES, SIMILARITY: SIMILARITY_SIZES}
_LARGEST = 1 << 24
_SHARED_PAIRS = 1000
"""Pairs of a user and a candidate that justify a further thread: about 0.4 ms of work."""


def native_refusal(manifest: Mapping[str, Any]) -> str | None:
    """Why this process can't run a bundle's scorer natively; None if it can."""
    form = manifest.get("export", {}).get("native")
    if form is None:
        return "the bundle has no native form: it is of modules of your own, or of an earlier `nann export`"
    needs_bf16 = form.get("form") == NETWORK or form.get("heads") != 0
    if needs_bf16 and not _kernels.has_bf16():
        return "it needs a CPU with avx512_bf16, and a build by GCC 10 or later"
    return None


class NativeScorer:
    """A network's native form; a `nann.scorer.Scorer`. Threads may share it.

    Args:
        kernel: the loop, with the packed weights.
        table: rows of all items; None: they come with each call.
        threads: how many threads share the candidates of a call.
    """

    def __init__(
        self, kernel: _kernels.NetworkScorer | _kernels.SimilarityScorer, table: ItemRows | None, threads: int = 1
    ) -> None:
        self._kernel = kernel
        self._table = table
        self._threads = threads

    @classmethod
    def open(cls, folder: Path, manifest: Mapping[str, Any], threads: int = 1) -> NativeScorer:
        """Opens the native form in a bundle's folder, or in a version folder; hashes are not verified.

        Raises:
            BundleError: if there is none, or it is damaged.
        """
        form = manifest.get("export", {}).get("native")
        path = folder / NATIVE_SCORER_FILE
        if not isinstance(form, Mapping) or not path.is_file():
            raise BundleError(f"{folder} has no native form of its scorer; run `nann export` again")
        try:
            arrays = read_arrays(path)
            kernel = native_kernel(form, arrays)
            table = _table(folder, form, arrays)
        except (KeyError, TypeError, ValueError, OSError, EOFError, BadZipFile, MemoryError) as error:
            raise BundleError(f"{path} does not fit its manifest: {error}; run `nann export` again") from error
        return cls(kernel, table, threads)

    def score(
        self, user_states: Float32Array, candidates: npt.NDArray[Any], rows: ItemRows | None = None
    ) -> Float32Array:
        """Scores every candidate of every user.

        Args:
            user_states: `float32[B, S]`.
            candidates: `int32[B, C]`, -1 = padding; or their rows, `float32[B, C, R]`.
            rows: of the items, for a scorer without an item table.

        Returns:
            `float32[B, C]`; 0 where a candidate is -1.

        Raises:
            IndexError: an item that has no row.
            TypeError: an array of another dtype.
            ValueError: an array of another shape.
        """
        if candidates.ndim == 3:
            rows = ItemRows(np.ascontiguousarray(candidates.reshape(-1, candidates.shape[2])))
            candidates = np.arange(len(rows.base), dtype=np.int32).reshape(candidates.shape[:2])
        table = rows if rows is not None else self._table
        if table is None:
            raise ValueError("the scorer has no item table; expected rows of the items, or of the candidates")
        states, items = np.ascontiguousarray(user_states), np.ascontiguousarray(candidates)
        check("user_states", states, np.float32, 2)
        check("candidates", items, np.int32, 2, rows=len(states))
        threads = max(1, min(self._threads, items.size // _SHARED_PAIRS))
        first = len(table.base) if table.first is None else table.first
        return self._kernel.score(states, items, table.base, table.delta, first, threads)


def native_kernel(
    form: Mapping[str, Any], arrays: Mapping[str, Any]
) -> _kernels.NetworkScorer | _kernels.SimilarityScorer:
    """The loop of a form.

    Args:
        form: its name, `form`, and its sizes.
        arrays: of `NETWORK`: `slopes` float32[layers + 1], for each layer i `weight{i}` float32[K, N] and `bias{i}`
            float32[N], `output` float32[K] and `output_bias` float32[1]. Of `SIMILARITY`: none.

    Raises:
        KeyError, TypeError, ValueError: saying what is missing or does not fit.
    """
    name = form.get("form")
    if name not in _SIZES:
        raise ValueError(f"the form is {name!r}; expected {' or '.join(_SIZES)}")
    sizes = {key: form[key] for key in _SIZES[name]}
    for key, size in sizes.items():
        if not isinstance(size, int) or not 0 <= size <= _LARGEST:
            raise ValueError(f"{key} is {size!r}; expected a whole number from 0 to {_LARGEST}")
    if name == SIMILARITY:
        return _kernels.SimilarityScorer(**sizes)
    slopes = arrays["slopes"].tolist()
    layers = [(arrays[f"weight{i}"], arrays[f"bias{i}"]) for i in range(len(slopes) - 1)]
    return _kernels.NetworkScorer(
        **sizes,
        layers=layers,
        slopes=slopes,
        output=arrays["output"],
        output_bias=float(arrays["output_bias"][0]),
    )


def _table(folder: Path, form: Mapping[str, Any], arrays: Mapping[str, Any]) -> ItemRows | None:
    """The rows of all items, where the scorer has them among its weights."""
    if "rows" in arrays:  # a small table
        return ItemRows(arrays["rows"])
    place = form.get("table")
    if place is None:
        return None
    name, offset, shape = str(place["file"]), int(place["offset"]), tuple(int(size) for size in place["shape"])
    if Path(name).name != name or len(shape) != 2:
        raise ValueError(f"the table is in {name!r} with shape {list(shape)}; expected a file beside it, and a matrix")
    return ItemRows(np.memmap(folder / name, np.float32, "r", offset, shape))

"""The two kinds of external item ids: whole numbers, and text. All that differs between them is here.

                numbers                         text
what            int64, 1 to 2^63 - 1            UTF-8, 1 to `MAX_ID_BYTES` bytes, no NUL
tensors         INT64                           BYTES
padding         0 and -1; answers have -1       the empty text
in a bundle     int64[N]                        S[N], as wide as the longest id: no pickle, memory-mapped, ordered
                                                as the UTF-8 bytes are
in Python       int                             str; Triton hands tensors over as bytes, which are taken everywhere

A bundle has ids of one kind. A text id of a request that breaks the rules is like any other that no item has: unknown.
"""

from __future__ import annotations

import csv
import io
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import replace
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nann.array_files import load_array
from nann.errors import BundleError, DataError, RequestError
from nann.kernels import Int32Array
from nann.signature import PADDING_IDS, PADDING_ITEM, TensorSpec

MAX_ID_BYTES = 256
"""The longest text id, in bytes of UTF-8. All ids of a bundle take as much room as its longest one."""

_LARGEST = int(np.iinfo(np.int64).max)
_CHUNK = 1 << 18

Ids = npt.NDArray[Any]
"""External ids: int64, or of text S (in a bundle) or object (in requests and answers)."""
GivenIds = Sequence[Any] | npt.NDArray[Any]
"""External ids as people give them."""


class IdKind(ABC):
    """One of the two kinds.

    Attributes:
        name: in manifests and in the served configuration.
        words: in messages.
        dtype: of requests and answers as arrays.
        stored_type: of the ids in files.
        request_padding: means "no item here" in requests.
        padding: the same in answers.
    """

    name: str
    words: str
    dtype: np.dtype[Any]
    stored_type: type
    request_padding: int | str
    padding: int | str

    def spec(self, tensor: TensorSpec) -> TensorSpec:
        """A tensor of item ids as a bundle of this kind has it. It equals the one of the other kind."""
        return tensor if tensor.dtype is self.dtype else replace(tensor, dtype=self.dtype)

    @abstractmethod
    def is_padding(self, ids: Ids) -> npt.NDArray[np.bool_]:
        """Where external ids mean "no item here"; any shape."""

    @abstractmethod
    def indices(self, table: Ids, ids: Ids) -> Int32Array:
        """Place of each id in a bundle's ids, `table`, strictly ascending; -1 if unknown or padding; any shape.

        Raises:
            RequestError: if the ids are of the other kind.
        """

    @abstractmethod
    def keys(self, ids: Ids) -> npt.NDArray[np.int64]:
        """A number of 63 bits for each id, at least 1; 0 for what is none; any shape.

        Different numbers have different keys. Those of texts are hashed: one pair among 10^9 of them has the same.
        """

    @abstractmethod
    def external(self, table: Ids, items: Int32Array, padding: int | str) -> Ids:
        """The ids in `table` of item indices; -1 becomes `padding`; any shape."""

    @abstractmethod
    def row(self, ids: Sequence[Any]) -> Ids:
        """One user's ids, as JSON has them, as a request's tensor: `[1, L]` with L >= 1.

        Raises:
            ValueError, TypeError, OverflowError: if they are not of this kind.
        """

    @abstractmethod
    def parse(self, text: str) -> list[Any]:
        """Reads ids that a person has typed, separated by commas.

        Raises:
            ValueError: if they are not of this kind.
        """

    @abstractmethod
    def item(self, text: str) -> int | str:
        """Reads the id of one item, a line of a file.

        Raises:
            ValueError: if it is none of this kind.
        """

    def typed(self, ids: Sequence[Any]) -> str:
        """Ids as a person types them: what `parse` reads."""
        line = io.StringIO()
        csv.writer(line, lineterminator="").writerow(ids)
        return line.getvalue()

    @abstractmethod
    def readable(self, ids: Ids) -> Ids:
        """Ids of any shape as answers hold them: `dtype`, of text ids str.

        Raises:
            UnicodeDecodeError: if a text is no UTF-8; a checked bundle has none.
        """

    def plain(self, ids: Ids) -> list[Any]:
        """Ids of any shape as lists of Python's int or str."""
        return list(self.readable(ids).tolist())

    @abstractmethod
    def stored(self, given: GivenIds) -> Ids:
        """Ids as a bundle holds them, in the order in which they are given.

        Raises:
            DataError: naming the first that is no id of this kind.
        """

    @abstractmethod
    def load(self, path: Path) -> Ids:
        """Memory-maps the ids in a bundle's file.

        Raises:
            BundleError: if they are of another type.
        """

    @abstractmethod
    def check(self, table: Ids, where: str) -> None:
        """Reads a bundle's ids, ascending, once.

        Raises:
            BundleError: beginning with `where`, if one of them is no id of this kind.
        """


class _Numbers(IdKind):
    name, words = "numbers", "whole numbers (INT64)"
    dtype, stored_type = np.dtype(np.int64), np.int64
    request_padding, padding = PADDING_IDS

    def is_padding(self, ids: Ids) -> npt.NDArray[np.bool_]:
        zero, minus_one = PADDING_IDS
        padding: npt.NDArray[np.bool_] = (ids == zero) | (ids == minus_one)  # np.isin would take ten times as long
        return padding

    def indices(self, table: Ids, ids: Ids) -> Int32Array:
        if ids.dtype.kind not in "iu":
            raise RequestError(f"item ids came as {ids.dtype}; expected {self.words}, as in the bundle")
        place = np.minimum(np.searchsorted(table, ids), table.shape[0] - 1)
        known = (table[place] == ids) & ~self.is_padding(ids)
        return np.where(known, place, PADDING_ITEM).astype(np.int32)

    def keys(self, ids: Ids) -> npt.NDArray[np.int64]:
        return np.maximum(ids, 0)

    def external(self, table: Ids, items: Int32Array, padding: int | str) -> Ids:
        return np.where(items == PADDING_ITEM, np.int64(padding), table[items])

    def row(self, ids: Sequence[Any]) -> Ids:
        return np.array([ids or [self.request_padding]], np.int64)

    def parse(self, text: str) -> list[Any]:
        return [int(part) for part in text.split(",")]

    def item(self, text: str) -> int | str:
        if not (text.strip().isdecimal() and 0 < int(text) <= _LARGEST):
            raise ValueError(f"{shown(text)} is no whole number from 1 to {_LARGEST}")
        return int(text)

    def readable(self, ids: Ids) -> Ids:
        return ids

    def stored(self, given: GivenIds) -> Ids:
        ids = np.asarray(given)
        if ids.ndim != 1 or ids.dtype.kind not in "iu":
            raise DataError(f"item_ids is {ids.dtype}{list(ids.shape)}; expected whole numbers or texts, one an item")
        if ids.size and int(ids.max()) > _LARGEST:
            raise DataError(f"item id {ids.max()} is too large; expected at most {_LARGEST}, as ids are int64")
        if ids.size and int(ids.min()) < 1:
            raise DataError(f"item id {ids.min()} is not positive; expected 1 or more: 0 and -1 mean padding")
        return ids.astype(np.int64)

    def load(self, path: Path) -> Ids:
        return load_array(path, self.stored_type, 1)

    def check(self, table: Ids, where: str) -> None:
        if table[0] < 1:  # ascending, so the first is the smallest
            raise BundleError(
                f"{where} begins with {table[0]}; expected positive ids: 0 and -1 mean padding; make the bundle again"
            )


class _Text(IdKind):
    name, words = "text", "text (BYTES)"
    dtype, stored_type = np.dtype(object), np.bytes_
    request_padding = padding = ""

    def is_padding(self, ids: Ids) -> npt.NDArray[np.bool_]:
        return np.fromiter((not each for each in ids.ravel().tolist()), bool, ids.size).reshape(ids.shape)

    def indices(self, table: Ids, ids: Ids) -> Int32Array:
        if ids.dtype.kind not in "OSU":
            raise RequestError(f"item ids came as {ids.dtype}; expected {self.words}, as in the bundle")
        # An array of S cuts what is longer, and ignores NULs at the end. Of the width of the table: otherwise NumPy
        # would copy the whole table to compare them.
        if ids.dtype.kind == "S":
            keys = ids.astype(table.dtype)
            exact = (keys == ids) & (ids != b"")
        else:
            each = list(map(as_bytes, ids.ravel().tolist()))
            width = table.dtype.itemsize
            exact = np.fromiter((0 < len(one) <= width and one[-1] != 0 for one in each), bool, len(each))
            exact, keys = exact.reshape(ids.shape), np.array(each, table.dtype).reshape(ids.shape)
        place = np.minimum(np.searchsorted(table, keys), table.shape[0] - 1)
        known = exact & (table[place] == keys)
        return np.where(known, place, PADDING_ITEM).astype(np.int32)

    def keys(self, ids: Ids) -> npt.NDArray[np.int64]:
        keys = [_key(as_bytes(each)) if each else 0 for each in ids.ravel().tolist()]
        return np.array(keys, np.int64).reshape(ids.shape)

    def external(self, table: Ids, items: Int32Array, padding: int | str) -> Ids:
        return self.readable(np.where(items == PADDING_ITEM, b"", table[items]))

    def row(self, ids: Sequence[Any]) -> Ids:
        if isinstance(ids, str) or not all(isinstance(each, str) for each in ids):
            raise TypeError(f"item ids are {shown(ids)}; expected a list of texts")
        return np.array([ids or [self.request_padding]], object)

    def parse(self, text: str) -> list[Any]:
        try:
            return next(csv.reader([text], strict=True), [])
        except csv.Error as error:
            raise ValueError(
                f"{shown(text)} are no ids with commas between them: {error}; quote ids as in CSV"
            ) from error

    def item(self, text: str) -> int | str:
        if (why := why_no_text_id(text)) is not None:
            raise ValueError(f"{shown(text)} is no item id: expected {why}")
        return text

    def readable(self, ids: Ids) -> Ids:
        texts = np.empty(ids.size, object)
        texts[:] = [as_bytes(each).decode() for each in ids.ravel().tolist()]
        return texts.reshape(ids.shape)

    def stored(self, given: GivenIds) -> Ids:
        each = np.asarray(given, object)
        if each.ndim != 1:
            raise DataError(f"item_ids has shape {list(each.shape)}; expected one text an item")
        texts = each.tolist()
        for row, text in enumerate(texts):
            if (why := why_no_text_id(text)) is not None:
                raise DataError(f"item_ids has {shown(text)} in row {row:,}; expected {why}")
        return np.array(list(map(as_bytes, texts)), np.bytes_)

    def load(self, path: Path) -> Ids:
        ids = load_array(path, self.stored_type, 1)
        if ids.dtype.itemsize > MAX_ID_BYTES:
            raise BundleError(
                f"{path} holds ids of up to {ids.dtype.itemsize} bytes; expected at most {MAX_ID_BYTES}; "
                "make the bundle again"
            )
        return ids

    def check(self, table: Ids, where: str) -> None:
        for start in range(0, len(table), _CHUNK):
            for text in table[start : start + _CHUNK].tolist():
                if (why := why_no_text_id(text)) is not None:
                    raise BundleError(f"{where} holds {shown(text)}; expected {why}; make the bundle again")


NUMBERS: IdKind = _Numbers()
TEXT: IdKind = _Text()
KINDS = {kind.name: kind for kind in (NUMBERS, TEXT)}
"""By name."""


def kind_of(ids: GivenIds) -> IdKind:
    """The kind of some ids: of a list, text where any of them is text; of an array, as its dtype says."""
    if isinstance(ids, np.ndarray):
        return TEXT if ids.dtype.kind in "OSU" else NUMBERS
    return TEXT if any(isinstance(each, str | bytes) for each in ids) else NUMBERS


def kind_of_typed(texts: Iterable[str]) -> IdKind:
    """The kind that typed ids seem to be of: numbers if all are written as numbers are, without leading zeros."""
    numbers = all(len(text) < 20 and text.isdecimal() and text == str(int(text)) for text in texts)
    return NUMBERS if numbers else TEXT


def _key(text: bytes) -> int:
    return (int.from_bytes(blake2b(text, digest_size=8).digest(), "little") >> 1) or 1


def as_bytes(text: str | bytes) -> bytes:
    """A text id as Triton hands it over. What Python holds and UTF-8 lacks (surrogates) becomes bytes of no id."""
    return text if isinstance(text, bytes) else text.encode(errors="surrogatepass")


def why_no_text_id(text: Any) -> str | None:
    """What is expected instead of something that is no text id; None: it is one."""
    if not isinstance(text, str | bytes):
        return "texts alone: ids are all numbers or all texts"
    try:
        encoded = text.encode() if isinstance(text, str) else text
        encoded.decode()
    except UnicodeError:
        return "text in UTF-8"
    if not encoded:
        return "text: the empty one means padding"
    if b"\0" in encoded:
        return "text without NUL"
    return (
        None if len(encoded) <= MAX_ID_BYTES else f"at most {MAX_ID_BYTES} bytes of UTF-8, and it has {len(encoded):,}"
    )


def shown(value: Any) -> str:
    """A given id in a message."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."

"""What people give as item ids and codes, as rows of a tensor."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from numbers import Integral
from typing import Any

import numpy as np
import numpy.typing as npt

from nann.errors import RequestError
from nann.item_ids import NUMBERS, TEXT, IdKind, Ids, shown
from nann.signature import PADDING_IDS, USER_ID, TensorSpec

ItemIds = Sequence[int] | Sequence[str] | Sequence[Sequence[int] | Sequence[str] | npt.NDArray[Any]] | npt.NDArray[Any]
"""Item ids of one user, or of several, numbers or texts; histories may differ in length. Tensors of torch on the CPU
are taken too."""
UserIds = int | str | Sequence[int] | Sequence[str] | npt.NDArray[Any]
"""Id of one user, or one for each of several."""
_LEAST, _MOST = -(2**63), 2**63 - 1


def id_rows(given: Mapping[TensorSpec, ItemIds], of_server: Callable[[], IdKind]) -> dict[TensorSpec, Ids]:
    """Tensors of item ids: `int64[B, L]` or `object[B, L]` of text ids, shorter rows padded on the left.

    Args:
        given: lists of ids by tensor.
        of_server: gives the kind where there are no ids at all.

    Raises:
        RequestError: naming the tensor, if something is no id, or some ids are numbers and others text.
    """
    lists = {spec: _split(values) for spec, values in given.items()}
    found: dict[bool, TensorSpec] = {}
    for spec, rows in lists.items():
        for row in rows:
            if (text := _is_text(row)) is not None:
                found.setdefault(text, spec)
    if len(found) > 1:
        raise RequestError(f"{found[True].name} has texts, and {found[False].name} numbers; expected ids of one kind")
    is_text = next(iter(found), None)
    kind = of_server() if is_text is None else TEXT if is_text else NUMBERS
    if kind is NUMBERS:
        return {kind.spec(spec): _padded(spec, rows) for spec, rows in lists.items()}
    return {kind.spec(spec): _padded_texts(spec, rows) for spec, rows in lists.items()}


def code_rows(spec: TensorSpec, values: ItemIds) -> npt.NDArray[np.int64]:
    """Rows of whole numbers, `int64[B, L]` with L >= 1, shorter ones padded on the left.

    Raises:
        RequestError: naming the tensor, if something is none.
    """
    return _padded(spec, _split(values))


def user_rows(user_ids: UserIds) -> npt.NDArray[np.object_]:
    """The tensor of user ids, `object[B, 1]`: numbers as their decimal digits, None as "", which is nobody's.

    Raises:
        RequestError: if something is neither a whole number nor text, or there is nobody.
    """
    each: Any = user_ids if _is_list(user_ids) else [user_ids]
    if len(each) == 0:
        raise RequestError(f"{USER_ID.name} is empty; expected one id per user")
    rows = np.empty((len(each), 1), object)
    for row, user in enumerate(each):
        rows[row, 0] = _user_id(user)
    return rows


def _user_id(user: Any) -> bytes:
    if user is None:
        return b""
    if isinstance(user, Integral) and not isinstance(user, bool):
        return str(int(user)).encode()
    return _encoded(USER_ID, user)


def _split(values: Any) -> Sequence[Any]:
    several = _is_list(values) and len(values) > 0 and all(map(_is_list, values))
    return values if several else [values]


def _padded(spec: TensorSpec, lists: Sequence[Any]) -> npt.NDArray[np.int64]:
    rows = [_whole_numbers(spec, row) for row in lists]
    width = max(1, *(len(row) for row in rows))
    padded = np.full((len(rows), width), PADDING_IDS[0], np.int64)
    for place, row in enumerate(rows):
        padded[place, width - len(row) :] = row
    return padded


def _padded_texts(spec: TensorSpec, lists: Sequence[Any]) -> Ids:
    width = max(1, *map(len, lists))
    padded = np.full((len(lists), width), TEXT.request_padding, object)
    for place, row in enumerate(lists):
        for column, text in enumerate(row, width - len(row)):
            padded[place, column] = _encoded(spec, text)
    return padded


def _encoded(spec: TensorSpec, text: Any) -> bytes:
    try:
        if isinstance(text, str | bytes):
            return text if isinstance(text, bytes) else text.encode()
    except UnicodeEncodeError:
        pass
    expected = (
        "whole numbers or texts that UTF-8 can hold, one" if spec is USER_ID else "texts that UTF-8 can hold, one list"
    )
    raise RequestError(f"{spec.name} holds {shown(text)}; expected {expected} per user")


def _is_list(value: Any) -> bool:
    """Whether it has an order and a length: a sequence that is no text, or an array of any library."""
    if isinstance(value, Sequence):
        return not isinstance(value, str | bytes)
    return hasattr(value, "__array__") and getattr(value, "ndim", 1) > 0


def _is_text(row: Any) -> bool | None:
    """Whether the first of a list is text; None: there is no list, or nothing in it."""
    if not _is_list(row) or len(row) == 0:
        return None
    return isinstance(next(iter(row)), str | bytes)


def _whole_numbers(spec: TensorSpec, row: Any) -> npt.NDArray[np.int64]:
    expected = "expected whole numbers, one list per user"
    try:
        numbers = np.asarray(row)
    except ValueError as error:
        raise RequestError(f"{spec.name} holds lists of different depth; {expected}") from error
    except (TypeError, RuntimeError) as error:  # torch's, for a tensor on a GPU
        raise RequestError(f"{spec.name} can't be read: {error}; {expected}") from error
    if numbers.ndim == 1 and numbers.dtype.kind in "ufO":  # as NumPy holds a number that is too large for int64
        beyond = [value for value in row if isinstance(value, Integral) and not _LEAST <= int(value) <= _MOST]
        if beyond:
            raise RequestError(f"{spec.name} holds {beyond[0]}; expected 64-bit signed numbers")
    if numbers.ndim != 1 or (len(numbers) and not np.issubdtype(numbers.dtype, np.integer)):
        raise RequestError(f"{spec.name} holds {numbers.dtype}{list(numbers.shape)}; {expected}")
    return numbers.astype(np.int64)

"""Filters with a name, such as "available_de", which an operator may replace while servers run.

A folder of a model repository has one file for each, `NAME.filter`: the text of a filter, or the ids of the items that
it allows as a `.npy` array, int64 or S. It is replaced as a whole, and a process that reads it looks whether it
changed. So what was set is seen by the next request, and survives a restart and the deploy of another bundle.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from nann import item_sets
from nann.array_files import read_array
from nann.durable_files import new_file, remove_file
from nann.errors import ConfigError, FilterError, InvalidInputError, RequestError
from nann.features import FeatureTransform
from nann.item_ids import Ids, kind_of

from .catalogue import Catalogue
from .columns import Uint64Array
from .parser import MAX_LENGTH, parse
from .predicate import Predicate

FOLDER = ".filters"
"""In a model repository. Triton does not look into it."""
MAX_NAME = 100
NAME = re.compile(rf"[A-Za-z0-9][A-Za-z0-9_.-]{{0,{MAX_NAME - 1}}}")
"""A name that a filter may have."""

_NPY = b"\x93NUMPY"  # no text begins like this, as it is not UTF-8
_SUFFIX = ".filter"

Definition = str | Ids
"""The text of a filter, or the ids of the items that it allows: `int64[X]`, or `S[X]` of text ids."""


class NamedFilters:
    """The filters that an operator has named, in one folder. Reads it anew each time."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @classmethod
    def of_repository(cls, repository: Path) -> NamedFilters:
        """Those of a model repository."""
        return cls(repository / FOLDER)

    def names(self) -> list[str]:
        """All names, ascending."""
        found = (path.name.removesuffix(_SUFFIX) for path in self._folder.glob(f"*{_SUFFIX}"))
        return sorted(name for name in found if NAME.fullmatch(name))

    def set(self, name: str, definition: Definition) -> None:
        """Writes a filter, in place of the one that has the name, and so that it survives a crash.

        Raises:
            ConfigError: if the name or the definition is not valid.
            FilterError: if the text can't be read.
        """
        path = self._path(name)
        if isinstance(definition, str):
            parse(definition)
        elif definition.ndim != 1 or definition.dtype.kind not in "iuS":
            raise ConfigError(
                f"filter {name!r} is {definition.dtype}{list(definition.shape)}; expected the ids of items, int64[X], "
                "or S[X] of text ids"
            )
        with new_file(path) as temporary:
            with temporary.open("wb") as stream:
                if isinstance(definition, str):
                    stream.write(definition.encode())
                else:
                    # Ascending ids are looked up many times as fast.
                    ids: Ids = np.unique(definition.astype(kind_of(definition).stored_type))
                    np.save(stream, ids, allow_pickle=False)
            os.utime(temporary, ns=(now := time.time_ns(), now))  # a file system's own clock may tick in milliseconds

    def remove(self, name: str) -> None:
        """Removes a filter, and so that it stays removed after a crash.

        Raises:
            ConfigError: if there is none of this name.
        """
        path = self._path(name)
        if not path.is_file():
            raise ConfigError(f"there is no filter {name!r} to remove; there are: {_listed(self.names())}")
        remove_file(path)

    def version(self, name: str) -> object | None:
        """What changes when the filter is replaced: one look at its file. None: there is none of this name."""
        if NAME.fullmatch(name) is None:
            return None
        try:
            state = os.stat(f"{self._folder}/{name}{_SUFFIX}")
        except FileNotFoundError:
            return None
        return state.st_mtime_ns, state.st_ino, state.st_size

    def read(self, name: str) -> Definition | None:
        """The filter of this name, or None.

        Raises:
            ConfigError: if its file is damaged.
        """
        path = self._path(name)
        try:
            if not path.is_file() and path.exists():  # a named pipe would never end
                raise ConfigError(f"{path} is no file; set the filter again with `nann filters set`")
            with path.open("rb") as stream:
                begin = stream.read(len(_NPY))
                stream.seek(0)
                if begin != _NPY:
                    return stream.read(4 * MAX_LENGTH + 1).decode()
                ids: Ids = read_array(stream)
        except FileNotFoundError:
            return None
        except ValueError as error:
            raise ConfigError(f"{path} can't be read: {error}; set the filter again with `nann filters set`") from error
        if ids.dtype.type not in (np.int64, np.bytes_) or ids.ndim != 1:
            raise ConfigError(f"{path} holds {ids.dtype}{list(ids.shape)}; expected int64[X] or S[X]: set it again")
        return ids

    def _path(self, name: str) -> Path:
        _check_name(name)
        return self._folder / f"{name}{_SUFFIX}"


@dataclass(frozen=True)
class _Compiled:
    version: object
    allowed: Uint64Array


class FilteredBundle(Protocol):
    """What filters need of a `nann.bundle.Bundle`."""

    @property
    def filters(self) -> Mapping[str, str]:
        """The filters that its maker has named: text by name."""

    @property
    def attributes(self) -> Catalogue | None:
        """The items' attributes."""

    @property
    def features(self) -> FeatureTransform:
        """Knows the items' ids."""


class ServedFilters:
    """Filters by name for the items of one bundle: the operator's, and those of the bundle.

    Args:
        operator: the operator's; None: there are none. Of one name this one counts.
        of_bundle: texts by name.
        catalogue: the items' attributes, if the bundle has any.
        features: knows the items' ids.
    """

    def __init__(
        self,
        operator: NamedFilters | None,
        of_bundle: Mapping[str, str],
        catalogue: Catalogue | None,
        features: FeatureTransform,
    ) -> None:
        self._operator = operator
        self._of_bundle = of_bundle
        self._catalogue = catalogue
        self._features = features
        self._compiled: dict[str, _Compiled] = {}

    @classmethod
    def of_bundle(cls, bundle: FilteredBundle, operator: NamedFilters | None = None) -> ServedFilters:
        """Those of a bundle, and maybe an operator's."""
        return cls(operator, bundle.filters, bundle.attributes, bundle.features)

    def follow(self, catalogue: Catalogue | None) -> None:
        """Goes on with items whose attributes changed."""
        if catalogue is not self._catalogue:
            self._catalogue = catalogue
            self._compiled.clear()

    @property
    def names(self) -> list[str]:
        """All names, ascending."""
        return sorted({*self._of_bundle, *(self._operator.names() if self._operator else ())})

    def allowed(self, name: str) -> Uint64Array:
        """The items that the filter of this name allows now, `uint64[W]`, read-only.

        Raises:
            FilterError: if there is none of this name, or it does not fit the bundle's attributes.
        """
        version = self._version(name)
        kept = self._compiled.get(name)
        if kept is not None and kept.version == version:
            return kept.allowed
        allowed = self.compiled(name, self._definition(name, version))
        # A filter that is replaced between the two looks is compiled again at the next request.
        self._compiled[name] = _Compiled(version, allowed)
        return allowed

    def misfits(self) -> list[str]:
        """A message for each of the operator's filters that can't be used with this bundle."""
        found = []
        for name in self._operator.names() if self._operator else ():
            try:
                self.allowed(name)
            except InvalidInputError as error:  # noqa: PERF203
                found.append(str(error))
        return found

    def definition(self, name: str) -> Definition:
        """What the filter of this name is now: a text, or the ids that it allows.

        Raises:
            FilterError: if there is none of this name.
        """
        return self._definition(name, self._version(name))

    def _version(self, name: str) -> object:
        return self._operator.version(name) if self._operator else None

    def _definition(self, name: str, version: object) -> Definition:
        found = self._operator.read(name) if self._operator and version is not None else None
        if found is None:
            found = self._of_bundle.get(name)
        if found is None:
            raise FilterError(f"filter_name is {name!r}; expected one of: {_listed(self.names)}")
        return found

    def compiled(self, name: str, definition: Definition) -> Uint64Array:
        """The items that a filter allows, `uint64[W]`, read-only; `name` is for messages.

        Raises:
            FilterError: if it does not fit the bundle's attributes.
        """
        if isinstance(definition, str) and self._catalogue is None:
            raise FilterError(f"filter {name!r} is {definition!r}; expected a bundle whose items have attributes")
        try:
            if not isinstance(definition, str):
                allowed = item_sets.of_items(self._features.item_indices(definition), len(self._features.item_ids))
                allowed.flags.writeable = False
                return allowed
            assert self._catalogue is not None
            return self._catalogue.compile(definition)
        except RequestError as error:
            raise FilterError(f"filter {name!r} does not fit this bundle: {error}") from error


def checked_named(filters: Mapping[str, str | Predicate], catalogue: Catalogue) -> dict[str, str]:
    """The texts of filters that a bundle is to offer.

    Raises:
        ConfigError: if a name is not valid.
        FilterError: if one is no filter, can't be read, or does not fit the attributes.
    """
    for name, each in filters.items():
        _check_name(name)
        if not isinstance(each, (str, Predicate)):
            raise FilterError(
                f"filter {name!r} is {each!r}; expected text, or a comparison that is built with nann.filters.where"
            )
        try:
            catalogue.compile(each)
        except FilterError as error:
            raise FilterError(f"filter {name!r}: {error}") from error
    return {name: str(each) for name, each in filters.items()}


def _check_name(name: str) -> None:
    if not isinstance(name, str) or NAME.fullmatch(name) is None:
        raise ConfigError(
            f"a filter's name is {name!r}; expected at most {MAX_NAME} letters, digits, '_', '-' and '.', the first a "
            "letter or a digit"
        )


def _listed(names: list[str]) -> str:
    return ", ".join(names) or "none"

"""Reads and checks the `parameters` of a model's config.pbtxt.

A value that is not valid raises `InvalidInputError`, which names the model and the parameter.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from nann.errors import InvalidInputError
from nann.threads import core_count

CATALOG_STREAM_VARIABLE = "NANN_CATALOG_STREAM"
"""Environment variable that tells the catalog of `nann serve --catalog-stream`; empty or not set: there is none."""


def config_int(model_config: Mapping[str, Any], key: str) -> int:
    """A whole number of at least 1."""
    value = _value(model_config, key)
    if value is None or not value.isdecimal() or int(value) < 1:
        raise _refused(model_config, key, "a whole number >= 1")
    return int(value)


def config_threads(model_config: Mapping[str, Any], key: str) -> int:
    """A number of threads; one per usable core for "auto", or if the parameter is not set."""
    if _value(model_config, key, "auto") == "auto":
        return core_count()
    try:
        return config_int(model_config, key)
    except InvalidInputError as error:
        raise InvalidInputError(f"{error}, or auto") from None


def config_share(model_config: Mapping[str, Any], key: str, default: float = 0.0) -> float:
    """A number from 0 to 1; `default` if the parameter is not set."""
    try:
        share = float(_value(model_config, key, default))
    except ValueError:
        share = math.nan
    if not 0 <= share <= 1:
        raise _refused(model_config, key, "a number from 0 to 1")
    return share


def config_flag(model_config: Mapping[str, Any], key: str) -> bool:
    """`true` or `false`; False if the parameter is not set."""
    return config_choice(model_config, key, ("true", "false"), default="false") == "true"


def config_choice(model_config: Mapping[str, Any], key: str, choices: Sequence[str], default: str | None = None) -> str:
    """One of `choices`; `default` if the parameter is not set and there is a default."""
    value = _value(model_config, key, default)
    if value not in choices:
        raise _refused(model_config, key, " or ".join(choices))
    return str(value)


def _value(model_config: Mapping[str, Any], key: str, default: Any = None) -> Any:
    return model_config.get("parameters", {}).get(key, {}).get("string_value", default)


def _refused(model_config: Mapping[str, Any], key: str, expected: str) -> InvalidInputError:
    value = _value(model_config, key)
    return InvalidInputError(
        f"config.pbtxt of {model_config['name']}: parameter {key} is {value!r}; expected {expected}"
    )

"""The `parameters` of a model's config.pbtxt, read and checked."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from nann.errors import InvalidInputError
from nann.kernels import core_count


def config_int(model_config: Mapping[str, Any], key: str) -> int:
    """A whole number of at least 1 from the `parameters` of config.pbtxt.

    Raises:
        InvalidInputError: naming the model and the parameter.
    """
    value = model_config.get("parameters", {}).get(key, {}).get("string_value")
    if value is None or not value.isdecimal() or int(value) < 1:
        raise InvalidInputError(
            f"config.pbtxt of {model_config['name']}: parameter {key} is {value!r}; expected a whole number >= 1"
        )
    return int(value)


def config_threads(model_config: Mapping[str, Any], key: str) -> int:
    """A number of threads from the `parameters` of config.pbtxt; "auto", and where it is not set: one a usable core.

    Raises:
        InvalidInputError: naming the model and the parameter.
    """
    if model_config.get("parameters", {}).get(key, {}).get("string_value", "auto") == "auto":
        return core_count()
    try:
        return config_int(model_config, key)
    except InvalidInputError as error:
        raise InvalidInputError(f"{error}, or auto") from None


def config_share(model_config: Mapping[str, Any], key: str, default: float = 0.0) -> float:
    """A number from 0 to 1 from the `parameters` of config.pbtxt.

    Raises:
        InvalidInputError: naming the model and the parameter.
    """
    value = model_config.get("parameters", {}).get(key, {}).get("string_value", str(default))
    try:
        share = float(value)
    except ValueError:
        share = math.nan
    if not 0 <= share <= 1:
        raise InvalidInputError(
            f"config.pbtxt of {model_config['name']}: parameter {key} is {value!r}; expected a number from 0 to 1"
        )
    return share


def config_flag(model_config: Mapping[str, Any], key: str) -> bool:
    """`true` or `false` from the `parameters` of config.pbtxt; False where it is not set.

    Raises:
        InvalidInputError: naming the model and the parameter.
    """
    return config_choice(model_config, key, ("true", "false"), default="false") == "true"


def config_choice(model_config: Mapping[str, Any], key: str, choices: Sequence[str], default: str | None = None) -> str:
    """One of `choices` from the `parameters` of config.pbtxt; `default` where it is not set, if there is one.

    Raises:
        InvalidInputError: naming the model and the parameter.
    """
    value = model_config.get("parameters", {}).get(key, {}).get("string_value", default)
    if value not in choices:
        raise InvalidInputError(
            f"config.pbtxt of {model_config['name']}: parameter {key} is {value!r}; expected {' or '.join(choices)}"
        )
    return str(value)

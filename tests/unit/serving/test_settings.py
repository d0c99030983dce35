from __future__ import annotations

import pytest

from nann.errors import InvalidInputError
from nann.python_backend.settings import config_choice, config_int, config_threads


def test_config_choice():
    config = {"name": "m", "parameters": {"a": {"string_value": "x"}}}
    assert config_choice(config, "a", ("x", "y")) == "x"
    assert config_choice(config, "b", ("x", "y"), default="y") == "y"
    with pytest.raises(InvalidInputError, match=r"config\.pbtxt of m: parameter a is 'x'; expected y or z"):
        config_choice(config, "a", ("y", "z"))
    with pytest.raises(InvalidInputError, match="parameter b is None"):
        config_choice(config, "b", ("x", "y"))


def test_config_int():
    config = {"name": "m", "parameters": {"a": {"string_value": "7"}, "b": {"string_value": "0"}}}
    assert config_int(config, "a") == 7
    with pytest.raises(
        InvalidInputError, match=r"config\.pbtxt of m: parameter b is '0'; expected a whole number >= 1"
    ):
        config_int(config, "b")
    with pytest.raises(InvalidInputError, match="parameter c is None"):
        config_int(config, "c")


def test_config_threads(monkeypatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: {2, 3, 5})
    config = {"name": "m", "parameters": {"a": {"string_value": "auto"}, "b": {"string_value": "7"}}}
    assert [config_threads(config, key) for key in ("a", "b", "absent")] == [3, 7, 3]
    config["parameters"]["b"]["string_value"] = "many"
    with pytest.raises(InvalidInputError, match="parameter b is 'many'; expected a whole number >= 1, or auto"):
        config_threads(config, "b")

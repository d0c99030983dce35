"""The table of settings in docs/training.md is that of the code."""

from __future__ import annotations

import json
from collections.abc import Iterator

import yaml
from pydantic import BaseModel
from support.pages import ROOT

from nann.training.config import TrainingConfig


def settings(section: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, object]]:
    """Every key with its default; of a section that is there by default only its keys."""
    for name, field in section.model_fields.items():
        inner = next(
            (kind for kind in (field.annotation, *getattr(field.annotation, "__args__", ()))
             if isinstance(kind, type) and issubclass(kind, BaseModel)), None
        )  # fmt: skip
        if inner is None or field.default is None:
            yield prefix + name, json.loads(json.dumps(field.default))
        if inner is not None:
            yield from settings(inner, f"{prefix}{name}.")


def test_every_setting_and_its_default_are_documented():
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in (ROOT / "docs/training.md").read_text(encoding="utf-8").splitlines()
        if line.startswith("| `")
    ]
    documented = {key.strip("`"): yaml.safe_load(default) for key, default, _ in rows}
    assert documented == dict(settings(TrainingConfig))
    assert all(meaning for _, _, meaning in rows)

"""All studies, in the order of the report. A new one is a `Study` in a module of its own and a line here."""

from __future__ import annotations

from . import (
    curves,
    flatness,
    growth_study,
    readings,
    rounds,
    seeded,
    sensitivity,
    table3,
    today,
    tuned,
)
from .study import Study

STUDIES: tuple[Study, ...] = (
    table3.STUDY,
    curves.FIGURE3,
    curves.FIGURE4,
    rounds.STUDY,
    flatness.STUDY,
    sensitivity.STUDY,
    readings.STUDY,
    tuned.STUDY,
    today.STUDY,
    growth_study.STUDY,
    seeded.STUDY,
)

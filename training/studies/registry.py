"""All studies, in the order of the report. A new one is a `Study` in a module of its own and a line here."""

from __future__ import annotations

from . import baselines, figure5, figure6, figure7, figures3_4, growth, readings, seeds, table3, tuned
from .study import Study

STUDIES: tuple[Study, ...] = (
    table3.STUDY,
    figures3_4.FIGURE3,
    figures3_4.FIGURE4,
    figure5.STUDY,
    figure6.STUDY,
    figure7.STUDY,
    readings.STUDY,
    tuned.STUDY,
    baselines.STUDY,
    growth.STUDY,
    seeds.STUDY,
)

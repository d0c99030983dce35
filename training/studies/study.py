"""What a study is made of."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ..config import TrainingConfig
from ..reports.store import Json
from .runs import Runs
from .settings import StudySettings

Plot = Callable[[Json, Path], None]


def _nothing(result: Json, data_name: str) -> dict[str, Json]:
    return {}


@dataclass(frozen=True)
class Study:
    """One study: pure functions of its inputs and of its result.

    Attributes:
        name: what `--only` takes.
        title: heading in the report.
        configs: the models it trains; several studies may share one.
        inputs: what the result depends on besides the models, the data and the test users.
        run: (runs, settings) -> the result, JSON-able, fractions as fractions.
        markdown: the result as text and tables of the report, without the heading and the plots.
        plots: file name -> (result, path) writes that PNG.
        headline: (result, name of the data set) -> keys at the top of experiments.json.
    """

    name: str
    title: str
    configs: Callable[[StudySettings], list[TrainingConfig]]
    inputs: Callable[[StudySettings], Json]
    run: Callable[[Runs, StudySettings], Json]
    markdown: Callable[[Json], str]
    plots: Mapping[str, Plot] = field(default_factory=dict)
    headline: Callable[[Json, str], dict[str, Json]] = _nothing

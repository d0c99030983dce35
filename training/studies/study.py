"""What a study is made of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from ..config import TrainingConfig
from ..reports.report import Part
from ..reports.store import Json
from .runs import Runs
from .settings import StudySettings


@dataclass(frozen=True)
class Study(Part[[Runs, StudySettings]]):
    """One study: `run` takes the models and the settings, `headline` the result and the name of the data set.

    Attributes:
        configs: the models it trains; several studies may share one.
        inputs: what the result depends on besides the models, the data and the test users.
    """

    configs: Callable[[StudySettings], list[TrainingConfig]] = field(kw_only=True)
    inputs: Callable[[StudySettings], Json] = field(kw_only=True)

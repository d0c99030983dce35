"""The parts of a study."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from ..config import TrainingConfig
from ..data.prepared import PreparedData
from ..reports.report import Part
from ..reports.store import Json
from .runs import Runs
from .settings import StudySettings


def _base_model(settings: StudySettings) -> list[TrainingConfig]:
    return [settings.config()]


@dataclass(frozen=True)
class Study(Part[[Runs, StudySettings]]):
    """One study. `run` takes the models and the settings; `headline` takes the result and the name of the data set.

    Attributes:
        inputs: all that the result depends on, except the models, the data and the test users.
        configs: the models it trains; studies may share models. Default: DNN with attention, trained with the
            auxiliary loss and the first random seed.
        data_inputs: what else the result depends on and only the data tells; under its own keys.
    """

    inputs: Callable[[StudySettings], Json] = field(kw_only=True)
    configs: Callable[[StudySettings], list[TrainingConfig]] = field(default=_base_model, kw_only=True)
    data_inputs: Callable[[PreparedData], dict[str, Json]] = field(default=lambda data: {}, kw_only=True)

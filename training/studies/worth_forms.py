"""What the study `worth` trains: the configuration `auto`, its two-sided form, and `auto` without one of its means."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
from pydantic import BaseModel

from ..config import TrainingConfig
from ..data.prepared import PreparedData
from ..row_sampling import RowSampler

SectionT = TypeVar("SectionT", bound=BaseModel)

ID_DROPOUT = 0.2
ABLATIONS = {
    "nothing": "nothing left out",
    "attributes": "without item attributes and categories",
    "logq": "without the correction for how often a candidate is drawn (logQ)",
    "heads": "without target attention (heads)",
    "repeats": "without knowledge of repeats",
    "own_items": "with own items as negatives",
    "basket_power": "with a basket's targets weighing as much as any others",
    "popularity_discount": "with all of the popularity in the score",
    "dropout": "without dropout",
    "start": "without the two-sided start, the same passes",
    "ids_kept": "without id dropout",
    "id_dropout": f"with id dropout {ID_DROPOUT}",
}
"""Name of an ablation -> what it says in the table. The last one adds something, where `auto` has no id dropout."""


@dataclass(frozen=True, eq=False)
class Form:
    """A configuration and the data that it is trained and measured with."""

    name: str
    config: TrainingConfig
    data: PreparedData

    def for_share(self, share: float) -> Form:
        """The same, trained for a share of its steps."""
        return replace(self, config=self.config.override(steps=max(1, round(share * self.config.steps))))


def two_sided(auto: TrainingConfig, data: PreparedData) -> Form:
    """The two-sided form of `auto`, trained by itself: in the steps of the start, as many passes as `auto` gets."""
    start = auto.start
    alone = _with_kernel(auto, heads=0, repeats=False)
    if start is None:
        return Form("two_sided", alone, data)
    optimization = {
        "steps": start.steps + round(auto.optimization.steps / _main_steps_a_start_step(auto, data)),
        "batch_size": start.batch_size,
        "learning_rate": start.learning_rate,
    }
    config = _with(
        alone,
        start=None,
        loss=_with(auto.loss, negatives=start.negatives),
        optimization=_with(auto.optimization, **optimization),
    )
    return Form("two_sided", config, data)


def ablated(auto: TrainingConfig, data: PreparedData) -> Iterator[Form]:
    """`auto` itself, and then without each of the means that it takes on this data set; see `ABLATIONS`."""
    start, main, kernel = auto.start, auto.optimization, auto.model.kernel
    described = data.describes_items
    ids_kept = _with(auto, model=_with(auto.model, id_dropout=0.0))
    yield Form("nothing", auto, data)
    if described:
        bare = replace(
            data, item_attributes=None, item_categories=np.zeros_like(data.item_categories), category_labels=("",)
        )
        yield Form("attributes", ids_kept, bare)
    yield Form("logq", _with(auto, loss=_with(auto.loss, logq=False)), data)
    if kernel.heads:
        yield Form("heads", _with_kernel(auto, heads=0), data)
    if kernel.repeats:
        yield Form("repeats", _with_kernel(auto, repeats=False), data)
    if auto.loss.own_items == "masked":
        yield Form("own_items", _with(auto, loss=_with(auto.loss, own_items="kept")), data)
    first, end, _ = data.training_groups()
    if (end - first > 1).any():
        yield Form("basket_power", _with(auto, loss=_with(auto.loss, basket_power=1.0)), data)
    if auto.loss.popularity_discount:
        yield Form("popularity_discount", _with(auto, loss=_with(auto.loss, popularity_discount=0.0)), data)
    yield Form("dropout", _with_kernel(auto, dropout=0.0), data)
    if start is not None:
        steps = main.steps + round(start.steps * _main_steps_a_start_step(auto, data))
        yield Form("start", _with(auto, start=None, optimization=_with(main, steps=steps)), data)
    if auto.model.id_dropout:
        yield Form("ids_kept", ids_kept, data)
    elif described:
        yield Form("id_dropout", _with(auto, model=_with(auto.model, id_dropout=ID_DROPOUT)), data)


def _main_steps_a_start_step(auto: TrainingConfig, data: PreparedData) -> float:
    """How many steps after the start visit as many rows as one step of the start."""
    start, main = auto.start, auto.optimization
    assert start is not None
    of_start = RowSampler(data, auto, start.batch_size, start.negatives).steps_per_epoch
    return RowSampler(data, auto, main.batch_size, auto.loss.negatives).steps_per_epoch / of_start


def _with_kernel(config: TrainingConfig, **changes: Any) -> TrainingConfig:
    return _with(config, model=_with(config.model, kernel=_with(config.model.kernel, **changes)))


def _with(section: SectionT, **changes: Any) -> SectionT:
    return section.model_copy(update=changes)

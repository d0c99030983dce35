"""What placing new items by their attributes is worth: answers that training never saw, by data set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import torch

from nann.errors import ConfigError
from nann.scorer import Int32Array

from ..auto_config import auto_config
from ..config import TrainingConfig, ValidationConfig
from ..data.prepared import PreparedData
from ..export.item_encoder import item_codes
from ..export.serving_modules import item_vectors
from ..models.scorer import AnyScorer
from ..reports.store import Json, cached
from ..reports.text import mean, spread
from .fresh_text import markdown
from .measures.fresh_items import FreshItems
from .runs import Runs, trained
from .settings import SPLIT, StudySettings
from .study import Study
from .worth import joined as joined_by_data

FOLDER = "fresh"
"""Cache folder, with a folder per model."""
TOP_K = 200
FORMS = ("plain", "dropout")


@dataclass(frozen=True)
class FreshSettings:
    """What is trained and measured.

    Attributes:
        share: of the steps of `auto`, unless --steps gives their number.
        id_dropout: of the form with id dropout.
        users: test users, at most.
    """

    share: float = 0.15
    id_dropout: float = 0.1
    users: int = 300


SETTINGS = FreshSettings()


def run(runs: Runs, settings: StudySettings) -> Json:
    """The measures of one data set, as means over the random seeds and for each of them."""
    users = min(SETTINGS.users, settings.users or SETTINGS.users)
    auto = auto_config(runs.data).config
    fresh = FreshItems(runs.data, runs.data.queries(SPLIT, auto.model.sequence_length, users), TOP_K)
    answers = {kind: fresh.target_count(new=kind == "new") for kind in ("new", "old")}
    if not (runs.data.describes_items and all(answers.values())):
        raise ConfigError(
            f"the test users have {answers['new']:,} answers that training never saw, and {answers['old']:,} others; "
            "expected both, and items with categories or attributes: prepare the log with `nann "
            "prepare log --protocol time-split`"
        )
    steps = settings.worth.steps or max(1, round(SETTINGS.share * auto.steps))
    auto = auto.model_copy(update={"validation": ValidationConfig(every=0)})  # the measures are the study's own
    of_seeds = [_seed(runs, fresh, auto.override(steps=steps, seed=seed)) for seed in settings.seeds]
    return {
        "top_k": TOP_K,
        "items": runs.data.item_count,
        "new_items": int(fresh.new.sum()),
        "users": len(fresh.queries.users),
        "answers": answers,
        "steps": steps,
        "id_dropout": SETTINGS.id_dropout,
        "methods": {name: _averaged([one[name] for one in of_seeds], settings.seeds) for name in of_seeds[0]},
    }


def _seed(runs: Runs, fresh: FreshItems, auto: TrainingConfig) -> Json:
    """The measures of both forms, trained with one random seed."""
    measured: Json = {}
    for form in FORMS:
        share = SETTINGS.id_dropout if form == "dropout" else 0.0
        config = auto.model_copy(update={"model": auto.model.model_copy(update={"id_dropout": share})})
        entries = _measured(runs, fresh, form, config)
        measured |= {f"without_{form}" if name == "without" else name: one for name, one in entries.items()}
    return measured


def _measured(runs: Runs, fresh: FreshItems, form: str, config: TrainingConfig) -> Json:
    """The measures of one model, which is trained first."""
    folder, words, users = runs.folder / FOLDER / runs.key(config), f"{form}, seed {config.seed}", fresh.queries.users

    def on_train(first: int) -> None:
        runs.say(f"{words}: training, step {first} to {config.steps}")

    def measure() -> Json:
        model = trained(runs.data, config, folder, on_train).restore(runs.data)
        runs.say(f"{words}: scoring every item for {len(users)} users")
        return fresh.measure(model, _placements(form, model, fresh))

    return cached(folder, {"config": config.fingerprint, "users": len(users), "top_k": TOP_K}, measure)


@torch.inference_mode()
def _placements(form: str, model: AnyScorer, fresh: FreshItems) -> Mapping[str, torch.Tensor]:
    """The e_v of new items: by the item encoder, or for the form without one by category and as they are."""
    items: Int32Array = np.flatnonzero(fresh.new).astype(np.int32)
    if form == "dropout":
        return {"encoder": model.described_vectors(torch.from_numpy(item_codes(fresh.data, items)))}
    vectors = item_vectors(model)
    return {"category_mean": fresh.category_means(vectors), "untrained": vectors[torch.from_numpy(items).long()]}


def _averaged(entries: Sequence[Json], seeds: Sequence[int]) -> Json:
    """Means over the seeds, their spread, and the entries themselves."""
    of = {name: [one[name] for one in entries] for name in entries[0] if name != "boosted"}
    averaged: Json = {name: mean(values) for name, values in of.items()}
    if "boosted" in entries[0]:
        places = zip(*(one["boosted"] for one in entries), strict=True)
        averaged["boosted"] = [{name: mean(one[name] for one in each) for name in each[0]} for each in places]
    by_seed = [{"seed": seed, **one} for seed, one in zip(seeds, entries, strict=True)]
    return {**averaged, "spread": {name: spread(values) for name, values in of.items()}, "by_seed": by_seed}


def headline(result: Json, data: str) -> dict[str, Json]:
    """`fresh`: the measures of each data set, with machine and date."""
    made = ("command", "machine", "date")
    return {
        "fresh": {
            name: {
                **{key: value for key, value in one.items() if key != "provenance"},
                **{key: one["provenance"][key] for key in made},
            }
            for name, one in result.items()
        }
    }


def _data_inputs(data: PreparedData) -> dict[str, Json]:
    return {"auto": auto_config(data).config.fingerprint}


STUDY = Study(
    "fresh",
    "Items that training never saw",
    run,
    markdown,
    headline=headline,
    joined=joined_by_data,
    configs=lambda settings: [],  # the data set chooses them
    inputs=lambda settings: {**asdict(SETTINGS), "seeds": settings.seeds, "steps": settings.worth.steps},
    data_inputs=_data_inputs,
)

"""Measures how the cost and the loss of a search change as a synthetic corpus grows.

The steps for each size are: synthetic log, prepare, train, index, tune on validation users, measure on test users. The
size's folder keeps each step's result, so an interrupted run continues where it stopped.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from nann.bundle import Bundle
from nann.durable_files import write_json
from nann.errors import DataError
from nann.manifest import search_to_json

from ...checkpoint import Checkpoint
from ...config import TrainingConfig
from ...data.prepare import prepare
from ...data.prepared import PreparedData
from ...data.protocol import Protocol
from ...data.synthetic import SyntheticSpec, synthetic_log
from ...excluded import Excluded
from ...reports.plots import COLORS, MARKERS, figure, plain_log
from ...reports.store import cached_array, digest
from ...reports.text import listing, percent
from ...search.measured_users import MeasuredUsers, exact_top
from ...search.tuning_search import tune_every_entry
from ...search.tuning_trials import Aim
from ..runs import ServedModules, indexed, trained
from ..settings import ONE_MILLION
from .content_start import content_start


@dataclass(frozen=True)
class GrowthSettings:
    """Settings that all sizes share.

    Attributes:
        config: training, index and top_k.
        spec: the synthetic log; each size replaces its number of items.
        wanted_coverage: coverage to tune for. The margin above 0.98 is for the test users, whose coverage may be up to
            a percentage point lower than that of the validation users.
        max_share: largest share of the corpus that a search may score.
        tuning_users: how many validation users to tune on.
        test_users: how many test users to measure on.
    """

    config: TrainingConfig
    spec: SyntheticSpec = field(default_factory=SyntheticSpec)
    wanted_coverage: float = 0.99
    max_share: float = 0.3
    tuning_users: int = 200
    test_users: int = 500

    def of_size(self, items: int) -> dict[str, Any]:
        """All that the result of one size depends on, for JSON."""
        return {
            "config": self.config.model_dump(mode="json"),
            "spec": replace(self.spec, items=items).settings(),
            "wanted_coverage": self.wanted_coverage,
            "max_share": self.max_share,
            "tuning_users": self.tuning_users,
            "test_users": self.test_users,
        }


def run(
    sizes: Sequence[int],
    folder: Path,
    settings: GrowthSettings,
    on_step: Callable[[str], None] = lambda step: None,
) -> dict[str, Any]:
    """Measures each size (a number of items), unless `folder` has its result with the same settings.

    Returns:
        `sizes`: one entry per size, ascending; `synthetic_1m`: metrics of the first size of a million items or more,
        None without such a size.
    """
    entries = [_size(items, folder, settings, on_step) for items in sorted(set(sizes))]
    large = [entry for entry in entries if entry["items"] >= ONE_MILLION]
    names = ("coverage", "recall_delta", "share_scored")
    return {
        "wanted_coverage": settings.wanted_coverage,
        "top_k": settings.config.search.top_k,
        "sizes": entries,
        "synthetic_1m": {name: large[0][name] for name in names} if large else None,
    }


def plot(result: Mapping[str, Any], path: Path) -> None:
    """Plots the share of the corpus scored, and the number of items scored, against the number of items."""
    entries = result["sizes"]
    items = [entry["items"] for entry in entries]
    share = [100 * entry["share_scored"] for entry in entries]
    count = [entry["items_scored"] for entry in entries]
    with figure(path, panels=2) as panels:
        for axis, values, label, title in (
            (panels[0], share, "share of the items scored (%)", "The share scored"),
            (panels[1], count, "scorer evaluations per user", "The number scored"),
        ):
            axis.plot(items, values, color=COLORS[0], marker=MARKERS[0])
            plain_log(axis, "x", "y")
            axis.set(xlabel="items of the synthetic corpus", ylabel=label, title=title)
            axis.margins(x=0.2, y=0.2)
            near = {"textcoords": "offset points", "xytext": (0, 8), "ha": "center", "fontsize": 7}
            for entry, y in zip(entries, values, strict=True):
                axis.annotate(f"coverage {entry['coverage']:.1%}", (entry["items"], y), **near)


def table(result: Mapping[str, Any]) -> str:
    """Markdown, one row per size."""
    k = result["top_k"]
    columns = {
        "items (synthetic)": "{items:,}",
        "entry": "{entry}",
        "ef": "{ef}",
        "rounds": "{rounds}",
        "scored per user": "{items_scored:,.0f}",
        "share scored": "{share_scored:.2%}",
        f"coverage@{k}": "{coverage:.2%}",
        f"recall-all@{k}": "{recall_all:.2%}",
        "recall-Delta": "{lost}",
        f"popular items' recall@{k}": "{recall_popular:.2%}",
    }
    rows = []
    for size in result["sizes"]:
        search = size["search"]
        entry = f"{search['seeds']['count']} seeds" if "seeds" in search else "layers"
        numbers = {name: ", ".join(map(str, search[name])) for name in ("ef", "rounds")}
        rows.append({**size, "entry": entry, **numbers, "lost": percent(size["recall_delta"])})
    return listing(rows, columns)


@dataclass(frozen=True)
class Made:
    """One size's corpus, model and index, with the settings that made them; `folder` keeps measurements."""

    name: str
    data: PreparedData
    checkpoint: Checkpoint
    bundle: Bundle
    modules: ServedModules
    settings: GrowthSettings
    folder: Path

    def users(self, split: str) -> MeasuredUsers:
        """Users of the split "validation" or "test", as many as `settings` says."""
        count = self.settings.tuning_users if split == "validation" else self.settings.test_users
        queries = self.data.queries(split, self.checkpoint.config.model.sequence_length, count)
        batch = self.modules.encode(queries)
        top_k = self.checkpoint.config.search.top_k
        # Kept on disk, since scoring every item takes longer than any search.
        exact = cached_array(
            self.folder / f"exact-{split}-{count}-{top_k}.npy",
            lambda: exact_top(self.modules.scorer, batch, self.bundle.item_count, top_k, Excluded.of(queries)),
        )
        return MeasuredUsers(batch, queries, exact)


def make_size(items: int, folder: Path, settings: GrowthSettings, on_step: Callable[[str], None]) -> Made:
    """Makes one size's corpus, model and index; steps that an earlier call has finished are read.

    Where items have traits, the training begins with `content_start`.
    """
    spec, home = replace(settings.spec, items=items), size_folder(items, folder, settings)
    home.mkdir(parents=True, exist_ok=True)
    data = _data(spec, home / "data", on_step)
    start = partial(content_start, spec, data, settings.config) if spec.traits else None
    checkpoint = trained(
        data, settings.config, home / "train", lambda first: on_step(f"{spec.name}: training"), start=start
    )
    bundle = indexed(checkpoint, data, home / "bundle", lambda: on_step(f"{spec.name}: index"))
    return Made(spec.name, data, checkpoint, bundle, ServedModules.of(checkpoint.restore(data)), settings, home)


def size_folder(items: int, folder: Path, settings: GrowthSettings) -> Path:
    """The folder where `make_size` keeps one size: `data/`, `train/`, `bundle/`."""
    spec, made_with = replace(settings.spec, items=items), settings.of_size(items)
    return folder / f"{spec.name}-{digest({name: made_with[name] for name in ('config', 'spec')})[:8]}"


def _size(items: int, folder: Path, settings: GrowthSettings, on_step: Callable[[str], None]) -> dict[str, Any]:
    wanted = settings.of_size(items)
    home = size_folder(items, folder, settings)
    result_file = home / f"growth-{digest(wanted)[:8]}.json"
    if result_file.is_file():
        entry: dict[str, Any] = json.loads(result_file.read_text(encoding="utf-8"))
        return entry
    entry = {**_measured(make_size(items, folder, settings, on_step), on_step), "settings": wanted}
    write_json(result_file, entry)
    return entry


def _data(spec: SyntheticSpec, folder: Path, on_step: Callable[[str], None]) -> PreparedData:
    try:
        return PreparedData.load(folder)
    except DataError:
        on_step(f"{spec.name}: making the log")
        prepare(lambda scratch: synthetic_log(spec, scratch), folder, Protocol(seed=spec.seed))
        return PreparedData.load(folder)


def _measured(made: Made, on_step: Callable[[str], None]) -> dict[str, Any]:
    """Tunes the search on validation users and measures it on test users."""
    data, checkpoint, bundle, settings = made.data, made.checkpoint, made.bundle, made.settings
    top_k = checkpoint.config.search.top_k
    on_step(f"{made.name}: tuning")
    validation, wanted = made.users("validation"), settings.wanted_coverage
    tuning = tune_every_entry(bundle.index, made.modules.scorer, validation, Aim(wanted), max_share=settings.max_share)
    pick = tuning.nearest
    if pick is None:
        raise DataError(
            f"{made.name}: every search scores more than {settings.max_share:.0%} of the items; raise max_share"
        )
    on_step(f"{made.name}: measuring")
    test = made.users("test")
    popular = np.tile(np.argsort(-data.train_counts, kind="stable")[:top_k].astype(np.int32), (len(test), 1))
    graph = bundle.manifest["graph"]
    return {
        "name": made.name,
        "items": bundle.item_count,
        "behaviors": int(data.manifest["counts"]["behaviors"]),
        "train_users": int(data.manifest["counts"]["train_users"]),
        "steps": checkpoint.step,
        "tuned": tuning.best is not None,
        "validation_coverage": pick.coverage,
        "test_users": len(test),
        "search": search_to_json(pick.params),
        **test.measure(bundle.index, made.modules.scorer, pick.params),
        "recall_popular": test.recall(popular),
        "graph": {key: graph[key] for key in ("layer_sizes", "mean_ground_degree")},
    }

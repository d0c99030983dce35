"""`nann tune`: finds search parameters for a bundle on validation users, and writes them into it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from time import monotonic
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import Progress, TaskID

from nann.bundle import Bundle
from nann.durable_files import new_file
from nann.errors import ConfigError
from nann.graph import HnswGraph, layer_files
from nann.manifest import search_to_json
from nann.scorer import Scorer
from nann.scorer_check import SCORER_CHECK_FILE
from nann.search_input import SearchIndex
from nann.search_params import SearchParams
from nann.search_requests import SERVED_BOUNDS, SearchBounds
from nann.signature import ENTRY_ALL, ENTRY_LAYERS, ENTRY_SEEDS

from ..data.prepared import PreparedData
from ..export.onnx_export import require_exported
from .checked_users import add_check_of
from .evaluate import check_same_items
from .measured_users import MeasuredUsers
from .timed_search import WORTH_TIMING, SearchTimer, timed
from .tuning_plot import plot_frontier
from .tuning_search import tune_all, tune_search
from .tuning_subject import SPLIT, TuningSubject
from .tuning_trials import Aim, SearchTuning, Trial, merged

DEFAULT_USERS = 256
DEFAULT_MAX_SHARE = 0.25


@dataclass(frozen=True)
class TuningReport:
    """What `tune_bundle` found.

    Attributes:
        params: the recommended parameters.
        record: the entry about the tuning in the bundle's notes.
        frontier: see `SearchTuning.thinned`.
        timed: the settings that were compared by time, fastest first.
        plot: the PNG file with the frontier.
    """

    params: SearchParams
    record: Mapping[str, Any]
    frontier: tuple[Trial, ...]
    timed: tuple[Trial, ...]
    plot: Path


def tune_bundle(
    bundle: Bundle,
    data: PreparedData,
    wanted: Aim,
    *,
    top_k: int | None = None,
    users: int | None = DEFAULT_USERS,
    max_share: float | None = None,
    entry: str | None = None,
    filters: Sequence[str] = (),
    repair: bool = False,
    plot: Path | None = None,
    seconds: float | None = None,
    bounds: SearchBounds = SERVED_BOUNDS,
    timer: Callable[[Bundle], SearchTimer] | None = None,
) -> TuningReport:
    """Finds the cheapest search that reaches a coverage or a recall-Delta, and makes it the bundle's default.

    Entry by seeds is tuned first, since it is usually the cheapest. Entry by layers is then tuned only as far as it
    could be cheaper still, unless it is the only one. In a corpus of which a request may have all items scored, that is
    recommended where it is the cheapest. A timer then compares the few cheapest of each by their time.

    Only validation users are read. The bundle's id changes only if a repair adds links, or if it gets the users on whom
    engines of the scorer are compared, which a bundle of an earlier release lacks.
    Nothing is written before everything has been measured.

    Args:
        bundle: complete, with its ONNX files.
        data: the data set it was made from.
        wanted: what to reach: coverage@top_k above 0 and at most 1, or recall-Delta from 0 to below 1.
        top_k: None: the bundle's.
        users: how many validation users at most; None: all.
        max_share: largest share of the corpus that a search may score; None: a quarter, or all where a request may
            have all items scored.
        entry: the only entry strategy to tune; None: all of them.
        filters: texts of filters. The users take turns in asking without a filter and with each of these, and the aim
            is for the mean over all users.
        repair: whether to link items that no search reaches, and items without a link to them.
        plot: where to write the plot; None: beside the bundle.
        seconds: try no more settings after so many seconds, counted from the start; None: no limit.
        bounds: what the server allows; nothing beyond is tried.
        timer: of the bundle's searches; None: the fewest evaluations are the cheapest, all items at once count less.

    Raises:
        ConfigError: if no setting within the bounds reaches the aim; the message names the best one found. If the aim
            is a recall-Delta, and scoring every item finds nothing that the users did next.
        RequestError: if a filter can't be read, or the bundle's items have no attributes.
        DataError: if bundle and data set do not have the same items, or there are no validation users.
        BundleError: if the bundle was not exported.
    """
    start = monotonic()
    top_k = bundle.search_params.top_k if top_k is None else top_k
    entries = entries_to_tune(bundle, entry, most=bounds.max_ef)
    if max_share is None:
        max_share = 1.0 if ENTRY_ALL in entries else DEFAULT_MAX_SHARE
    _check(bundle, wanted, max_share, top_k, bounds)
    require_exported(bundle)
    check_same_items(bundle, data)
    subject = TuningSubject.of(bundle, data, top_k, users, filters, repair=repair)
    _require_recall(subject.users, wanted)
    until = np.inf if seconds is None else start + seconds
    slack = 1.0 if timer is None else WORTH_TIMING
    limits = {"until": until, "max_ef": bounds.max_ef}
    index, measured = subject.index, subject.users
    by_entry = tune_entries(index, subject.scorer, measured, wanted, max_share, entries, slack=slack, **limits)
    _require_best(merged(list(by_entry.values())), subject, max_share, repair, seconds)
    if SCORER_CHECK_FILE not in bundle.manifest["files"]:
        bundle = add_check_of(bundle, data)
    clock = None if timer is None else timer(bundle)
    final: list[Trial] = []
    if clock is not None:
        by_entry, final = timed(by_entry, index, measured.batch, clock)
    tuning = merged(list(by_entry.values()))
    assert tuning.best is not None
    best = tuning.best.params
    record = {
        "by": "nann tune",
        **tuning_record(measured, by_entry, max_share),
        **subject.measures(best),
        "frontier": [trial.summary() for trial in tuning.thinned],
    }
    if clock is not None:
        record["timed"] = {"engine": clock.engine, "searches": [trial.summary() for trial in final]}
    if subject.repaired:
        record["repair"] = subject.repair(best)
    path = plot or bundle.path.with_name(f"{bundle.path.name}.tuning.png")
    plot_frontier(tuning, describe(best), bundle.item_count, len(measured), path)
    others = [each.best.params for each in by_entry.values() if each.best is not None]
    record["seconds"] = round(monotonic() - start, 1)
    write_tuning(bundle, index.graph, best, others, record)
    return TuningReport(best, record, tuple(tuning.thinned), tuple(final), path)


def tune_entries(
    index: SearchIndex,
    scorer: Scorer,
    users: MeasuredUsers,
    wanted: Aim,
    max_share: float,
    entries: list[str],
    *,
    slack: float = 1.0,
    **options: Any,
) -> dict[str, SearchTuning]:
    """Tunes entry strategies, each only up to `slack` times the cost of those before; options: see `tune_search`."""
    found: dict[str, SearchTuning] = {}
    with Progress(console=Console(stderr=True)) as bar:
        for entry in entries:
            task = bar.add_task(f"trying entry {entry}", total=None)
            if entry == ENTRY_ALL:
                found[entry] = tune_all(users, wanted, index.item_count, max_share)
                continue
            best = merged(list(found.values())).best if found else None
            most = max_share if best is None else min(max_share, slack * best.share_scored)
            update = partial(_update, bar, task)
            found[entry] = tune_search(
                index, scorer, users, wanted, entry=entry, max_share=most, progress=update, **options
            )
    return found


def _update(bar: Progress, task: TaskID, done: int, total: int) -> None:
    bar.update(task, completed=done, total=total)


def tuning_record(users: MeasuredUsers, by_entry: Mapping[str, SearchTuning], max_share: float) -> dict[str, Any]:
    """What the bundle's notes say of any tuning: when, for what, on whom, and the nearest setting of each entry."""
    tuning = merged(list(by_entry.values()))
    found, targets = users.targets
    return {
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "wanted_coverage": tuning.wanted.coverage or None,
        "wanted_recall_delta": None if np.isinf(tuning.wanted.recall_delta) else tuning.wanted.recall_delta,
        "max_share": max_share,
        "split": SPLIT,
        "users": len(users),
        "targets": targets,
        "targets_found_by_all": found,
        "walks": tuning.walks,
        "by_entry": {one: each.nearest.summary() for one, each in by_entry.items() if each.nearest is not None},
    }


def describe(params: SearchParams) -> str:
    """Search parameters in a few words."""
    if params.every_item:
        return "all items"
    ef, rounds = (",".join(map(str, values)) for values in (params.ef, params.rounds))
    seeds = "" if params.seeds is None else f"{params.seeds.count} seeds (ef {params.seeds.ef}), "
    return f"{seeds}ef {ef}, rounds {rounds}"


def entries_to_tune(bundle: Bundle, wanted: str | None = None, *, most: int = 0) -> list[str]:
    """The entry strategies to tune for, those that walk first, and of them the usually cheapest.

    Args:
        bundle: to tune.
        wanted: the only one to tune; None: all.
        most: of how many items a request may have all scored.

    Raises:
        ConfigError: if the bundle can't serve it.
    """
    served = {ENTRY_SEEDS: bundle.light_vectors is not None, ENTRY_LAYERS: True, ENTRY_ALL: bundle.item_count <= most}
    known = [entry for entry, fits in served.items() if fits]
    if wanted is None:
        return known
    if wanted not in known:
        what = f" (all is for at most max_ef items, {most:,} here)" if wanted == ENTRY_ALL else ""
        raise ConfigError(f'entry is "{wanted}"; expected {" or ".join(known)}, which this bundle can serve{what}')
    return [wanted]


def _check(bundle: Bundle, wanted: Aim, max_share: float, top_k: int, bounds: SearchBounds) -> None:
    if np.isinf(wanted.recall_delta) and not 0 < wanted.coverage <= 1:
        raise ConfigError(f"coverage is {wanted.coverage}; expected a fraction above 0 and at most 1, as in 0.98")
    if not np.isinf(wanted.recall_delta) and not 0 <= wanted.recall_delta < 1:
        raise ConfigError(f"recall_delta is {wanted.recall_delta}; expected a fraction from 0 to below 1, as in 0.005")
    if not 0 < max_share <= 1:
        raise ConfigError(f"max_share is {max_share}; expected a fraction above 0 and at most 1, as in 0.1")
    if not 1 <= top_k <= bundle.item_count:
        raise ConfigError(f"top_k is {top_k}; expected 1 to {bundle.item_count}, the number of items")
    most = bounds.of_corpus(bundle.item_count).max_top_k
    if top_k > most:
        raise ConfigError(
            f"top_k is {top_k}, and the server returns at most {most} items (max_top_k, max_ef): lower it, or raise "
            "these in config.pbtxt of beam_retrieval and name the repository with --repository"
        )


def _require_recall(users: MeasuredUsers, wanted: Aim) -> None:
    found, targets = users.targets
    if not np.isinf(wanted.recall_delta) and not found:
        raise ConfigError(
            f"scoring every item finds none of the {targets} items that the {len(users)} validation users met next, so "
            "there is no recall to lose; aim at coverage, or raise --users"
        )


def _require_best(
    tuning: SearchTuning, subject: TuningSubject, max_share: float, repair: bool, seconds: float | None
) -> None:
    if tuning.best is not None:
        return
    nearest = tuning.nearest
    if nearest is None and not tuning.walks and seconds is not None:
        raise ConfigError(
            f"no search was tried within {seconds} seconds, since scoring every item took longer; raise --seconds or "
            "lower --users"
        )
    if nearest is None:
        raise ConfigError(
            f"every search scores more than {max_share:.2%} of the items, perhaps already on the entry layer; "
            "raise --max-share"
        )
    lower = "lower --coverage" if np.isinf(tuning.wanted.recall_delta) else "raise --recall-delta"
    advice = f"raise --max-share or {lower}" + (", or raise --seconds" if seconds is not None else "")
    if subject.missed.orphans.size and not repair:
        advice += f"; {len(subject.missed.orphans)} items have no link to them or can't be reached: try --repair"
    raise ConfigError(
        f"no search that scores at most {max_share:.1%} of the items reaches {tuning.wanted} on {len(subject.users)} "
        f"validation users; the best found has {nearest.reached}, scoring {nearest.share_scored:.2%} with "
        f"{describe(nearest.params)}: {advice}"
    )


def write_tuning(
    bundle: Bundle, graph: HnswGraph, params: SearchParams, found: list[SearchParams], record: Mapping[str, Any]
) -> None:
    """Writes the search parameters, and the ground layer if `graph` is another, into the manifest and notes.

    To score all items needs no parameters of its own (`parse_search`), so it is written only as the default.
    """
    by_entry = {one.entry: one for one in (*bundle.search_by_entry.values(), *found) if not one.every_item}
    entries: dict[str, Any] = {
        "search": search_to_json(params),
        "search_by_entry": {entry: search_to_json(one) for entry, one in by_entry.items()},
    }
    written: tuple[str, ...] = ()
    if graph is not bundle.graph:
        ground, written = graph.layers[0], layer_files(0)
        for name, array in zip(written, (ground.indptr, ground.neighbors), strict=True):
            with new_file(bundle.path / name) as temporary:
                np.save(temporary, array, allow_pickle=False)
        degree = round(len(ground.neighbors) / graph.item_count, 2)
        entries["graph"] = {**bundle.manifest["graph"], "mean_ground_degree": degree}
    bundle.change(written=written, **entries).note(tuning=dict(record))

"""Chooses what runs the scorer on a CPU: onnxruntime, or an engine that is faster and keeps its best items."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

import numpy as np

from nann.bundle import SCORER_FILE, Bundle
from nann.errors import BundleError, ConfigError, ScorerError
from nann.found_once import found_once
from nann.item_rows import ItemRows
from nann.native_scorer import native_refusal
from nann.scorer import Float32Array, Int32Array
from nann.scorer_check import MIN_AGREEMENT, SCORER_CHECK_FILE, TOP_K, ScorerCheck
from nann.signature import BEAM_RETRIEVAL, SCORER, ModelSpec

from ..version_folder import ONNX_FILE, engine_files
from .native_model import NativeModel
from .onnx_model import OnnxModel
from .onnx_version import load_model
from .openvino_model import OpenVinoModel, openvino_refusal
from .recorded import AUTO, NATIVE, ONNXRUNTIME, OPENVINO, checked_engine
from .scorer_engine import ScorerEngine

_TIMED_USERS = 4
_LEAST_TURNS = 5
_LONG_ENOUGH_S = 0.5
_AGAIN, _AS_FAST = 3, 1.05
"""How often a call must take its best time, or 5% more, before that time is believed."""
_FASTER = 0.9
"""The most of onnxruntime's time that another engine may take: of two that are as fast, every start takes the same."""
_CLEARLY = 2.0
"""A share so many times smaller or larger than `_FASTER` needs no more turns."""
_AS_ASKED = "as asked for"
_NO_CHECK = "the bundle has nothing to compare others on: run `nann export` again, or `nann tune`"


@dataclass(frozen=True)
class ChosenEngine:
    """The engine of a version's scorer.

    Attributes:
        name: one of `ENGINES`, but not "auto".
        engine: what scores.
        reason: for the log, why it is this one, and why not another.
    """

    name: str
    engine: ScorerEngine
    reason: str

    def __str__(self) -> str:
        return f"{SCORER.name}: engine {self.name}; {self.reason}"


def open_scorer(folder: Path, asked: str, threads: int = 1) -> tuple[ModelSpec, ChosenEngine]:
    """Verifies and loads the scorer in a version folder of a model repository.

    With "auto" an engine that this machine has is compared with onnxruntime on users of the data set that the bundle
    brings (`nann.scorer_check`). It is taken if it keeps 99% of their exact best items, in 90% of the time at most. The
    native form is compared first, and OpenVINO only if that is not taken. One process of a server compares, and the
    others take what it has found, as does a process that is loaded again (`nann.found_once`).

    Args:
        folder: of the version.
        asked: one of `ENGINES`; any but "auto" is taken without the comparison.
        threads: how many share the candidates of a call.

    Raises:
        BundleError: if a file is missing or changed, or the model does not fit the signature.
        ConfigError: if the engine that is asked for can't run here.
    """
    checked_engine(asked)
    spec, onnx = load_model(folder, SCORER.name, threads)
    bundle = Bundle.open(folder, engine_files(Bundle.open(folder, ()).manifest))
    files = _Files(bundle, folder / ONNX_FILE, lambda: _rows_beside(folder))
    return spec, _chosen(files, onnx, asked, threads)


def bundle_engine(bundle: Bundle, asked: str = AUTO, threads: int = 1) -> ChosenEngine:
    """What `open_scorer` would choose once this exported bundle is installed; arguments as there.

    Raises:
        BundleError: if the model does not fit the signature.
        ConfigError: if the engine that is asked for can't run here.
    """
    checked_engine(asked)
    files = _Files(bundle, bundle.path / SCORER_FILE, lambda: bundle.item_rows)
    return _chosen(files, OnnxModel(files.onnx, bundle.exported_models[SCORER.name], threads), asked, threads)


@dataclass(frozen=True)
class _Files:
    """Where a scorer's files are: a bundle or a version folder, the ONNX file, and what reads rows of the items."""

    bundle: Bundle
    onnx: Path
    rows: Callable[[], ItemRows | None]


def _chosen(files: _Files, onnx: ScorerEngine, asked: str, threads: int) -> ChosenEngine:
    if asked == ONNXRUNTIME:
        return ChosenEngine(ONNXRUNTIME, onnx, _AS_ASKED)
    others = _others(files, threads)
    if asked != AUTO:
        refusal, make = others[asked]
        if (reason := refusal()) is not None:
            raise ConfigError(f"the scorer's engine is {asked!r}, but {reason}; use {AUTO} or {ONNXRUNTIME}")
        return ChosenEngine(asked, make(), _AS_ASKED)
    made: dict[str, ScorerEngine] = {ONNXRUNTIME: onnx}

    def find() -> str:
        best = _fastest(files, onnx, others)
        made[best.name] = best.engine
        return json.dumps([best.name, best.reason])

    name, reason = json.loads(found_once(f"engine-{files.bundle.identity}-{threads}", find))
    return ChosenEngine(name, made.get(name) or others[name][1](), reason)


_Other = tuple[Callable[[], str | None], Callable[[], ScorerEngine]]


def _others(files: _Files, threads: int) -> dict[str, _Other]:
    """Of each other engine, in the order in which they are tried: why it can't run the scorer here, and its maker."""
    bundle = files.bundle
    spec = bundle.exported_models[SCORER.name]
    return {
        NATIVE: (lambda: native_refusal(bundle.manifest), lambda: NativeModel(bundle, threads)),
        OPENVINO: (openvino_refusal, lambda: OpenVinoModel(files.onnx, spec, threads)),
    }


def _fastest(files: _Files, onnx: ScorerEngine, others: Mapping[str, _Other]) -> ChosenEngine:
    if SCORER_CHECK_FILE not in files.bundle.manifest["files"]:
        return ChosenEngine(ONNXRUNTIME, onnx, _NO_CHECK)
    refused: list[str] = []
    for name, (refusal, make) in others.items():
        engine, reason = None, refusal()
        if reason is None:
            engine, reason = _compared(make, onnx, files)
        if engine is not None:
            return ChosenEngine(name, engine, "; ".join([reason, *refused]))
        refused.append(f"{name}: {reason}")
    return ChosenEngine(ONNXRUNTIME, onnx, "; ".join(refused))


def _compared(make: Callable[[], ScorerEngine], onnx: ScorerEngine, files: _Files) -> tuple[ScorerEngine | None, str]:
    """An engine if it passes the bundle's check and is clearly faster than onnxruntime; and what was found."""
    rows = files.rows() if files.bundle.item_row_width else None
    try:
        check, engine = ScorerCheck.load(files.bundle.path), make()
        kept = min(check.agreement(scores) for scores in _both_ways(engine, check, rows))
    except (BundleError, ScorerError, RuntimeError) as error:  # a form of a later version, for one
        return None, f"fails: {error}"
    if kept < MIN_AGREEMENT:
        return None, f"keeps {kept:.2%} of the exact best {TOP_K}; expected {MIN_AGREEMENT:.0%}"
    share = time_share(engine, onnx, check, rows)
    if share > _FASTER:
        return None, f"takes {share:.2f} of onnxruntime's time; expected {_FASTER} at most"
    return engine, f"{share:.2f} of onnxruntime's time, keeps {kept:.2%} of the exact best {TOP_K}"


def _both_ways(engine: ScorerEngine, check: ScorerCheck, rows: ItemRows | None) -> Iterator[Float32Array]:
    """Scores of all users together, and of one after the other: engines treat other shapes in other ways."""
    yield engine.score(check.user_states, check.candidates, rows)
    yield np.concatenate([engine.score(*one, rows) for one in _one_by_one(check, len(check.candidates))])


def _one_by_one(check: ScorerCheck, users: int) -> Iterator[tuple[Float32Array, Int32Array]]:
    for user in range(min(users, len(check.candidates))):
        yield check.user_states[user : user + 1], check.candidates[user : user + 1]


def time_share(
    engine: ScorerEngine,
    other: ScorerEngine,
    check: ScorerCheck,
    rows: ItemRows | None,
    clock: Callable[[], float] = perf_counter,
) -> float:
    """The time of an engine over that of another, for a few users of a check, one at a time.

    They take turns. Other work on the machine only adds time, so the best time of each call counts. Where the share is
    near the one that decides, there are more turns until the best times have come back: chance does not repeat itself.

    Args:
        engine: whose time is divided.
        other: by whose time.
        check: with the users.
        rows: of the items, if the scorer has no item table.
        clock: seconds.
    """
    users, tries, begun = list(_one_by_one(check, _TIMED_USERS)), [], clock()
    while True:
        turn = []
        for each in (engine, other):
            for user in users:
                start = clock()
                each.score(*user, rows)
                turn.append(clock() - start)
        tries.append(turn)
        times = np.array(tries)
        best = times.min(axis=0)
        share = float(best[: len(users)].sum() / best[len(users) :].sum())
        clear = not _FASTER / _CLEARLY < share < _FASTER * _CLEARLY
        believed = (np.sum(times <= best * _AS_FAST, axis=0) >= _AGAIN).all()
        if len(tries) >= _LEAST_TURNS and (clear or believed or clock() - begun > _LONG_ENOUGH_S):
            return share


def _rows_beside(folder: Path) -> ItemRows | None:
    """Rows of the items, which the search's folder of the same version has."""
    search = folder.parent.parent / BEAM_RETRIEVAL.name / folder.name
    return Bundle.open(search, ()).item_rows

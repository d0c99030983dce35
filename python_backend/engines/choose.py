"""Chooses what runs the scorer on a CPU: onnxruntime, or an engine that is faster and keeps its best items."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

import numpy as np

from nann.bundle import SCORER_FILE, Bundle
from nann.errors import BundleError, ConfigError, ScorerError
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

_TIMED_USERS, _TIMED_CALLS = 4, 7
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
    brings (`nann.scorer_check`). It is taken if it keeps 99% of their exact best items and is faster. The native form
    is compared first, and OpenVINO only if that is not taken.

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
    if asked == AUTO and SCORER_CHECK_FILE not in files.bundle.manifest["files"]:
        return ChosenEngine(ONNXRUNTIME, onnx, _NO_CHECK)
    refusals: dict[str, str] = {}
    for name, (refusal, make) in _others(files, threads).items():
        if asked not in (AUTO, name):
            continue
        reason = refusal()
        if reason is None and asked == name:
            return ChosenEngine(name, make(), _AS_ASKED)
        if reason is None:
            engine, reason = _compared(make, onnx, files)
            if engine is not None:
                noted = "".join(f"; {other}: {why}" for other, why in refusals.items())
                return ChosenEngine(name, engine, reason + noted)
        refusals[name] = reason
    if asked != AUTO:
        raise ConfigError(f"the scorer's engine is {asked!r}, but {refusals[asked]}; use {AUTO} or {ONNXRUNTIME}")
    return ChosenEngine(ONNXRUNTIME, onnx, "; ".join(f"{name}: {why}" for name, why in refusals.items()))


_Other = tuple[Callable[[], str | None], Callable[[], ScorerEngine]]


def _others(files: _Files, threads: int) -> dict[str, _Other]:
    """Of each other engine, in the order in which they are tried: why it can't run the scorer here, and its maker."""
    bundle = files.bundle
    spec = bundle.exported_models[SCORER.name]
    return {
        NATIVE: (lambda: native_refusal(bundle.manifest), lambda: NativeModel(bundle, threads)),
        OPENVINO: (openvino_refusal, lambda: OpenVinoModel(files.onnx, spec, threads)),
    }


def _compared(make: Callable[[], ScorerEngine], onnx: ScorerEngine, files: _Files) -> tuple[ScorerEngine | None, str]:
    """An engine if it passes the bundle's check and is faster than onnxruntime; and what was found."""
    rows = files.rows() if files.bundle.item_row_width else None
    try:
        check, engine = ScorerCheck.load(files.bundle.path), make()
        kept = min(check.agreement(scores) for scores in _both_ways(engine, check, rows))
    except (BundleError, ScorerError, RuntimeError) as error:  # a form of a later version, for one
        return None, f"fails: {error}"
    if kept < MIN_AGREEMENT:
        return None, f"keeps {kept:.2%} of the exact best {TOP_K}; expected {MIN_AGREEMENT:.0%}"
    own, others = _times((engine, onnx), check, rows)
    if own >= others:
        return None, f"takes {own / others:.2f} of onnxruntime's time"
    return engine, f"{own / others:.2f} of onnxruntime's time, keeps {kept:.2%} of the exact best {TOP_K}"


def _both_ways(engine: ScorerEngine, check: ScorerCheck, rows: ItemRows | None) -> Iterator[Float32Array]:
    """Scores of all users together, and of one after the other: engines treat other shapes in other ways."""
    yield engine.score(check.user_states, check.candidates, rows)
    yield np.concatenate([engine.score(*one, rows) for one in _one_by_one(check, len(check.candidates))])


def _one_by_one(check: ScorerCheck, users: int) -> Iterator[tuple[Float32Array, Int32Array]]:
    for user in range(min(users, len(check.candidates))):
        yield check.user_states[user : user + 1], check.candidates[user : user + 1]


def _times(engines: Sequence[ScorerEngine], check: ScorerCheck, rows: ItemRows | None) -> list[float]:
    """Seconds that each takes for some users, one at a time; the best of a few tries, in turns."""
    seconds = [float("inf")] * len(engines)
    for _ in range(_TIMED_CALLS):
        for place, engine in enumerate(engines):
            start = perf_counter()
            for one in _one_by_one(check, _TIMED_USERS):
                engine.score(*one, rows)
            seconds[place] = min(seconds[place], perf_counter() - start)
    return seconds


def _rows_beside(folder: Path) -> ItemRows | None:
    """Rows of the items, which the search's folder of the same version has."""
    search = folder.parent.parent / BEAM_RETRIEVAL.name / folder.name
    return Bundle.open(search, ()).item_rows

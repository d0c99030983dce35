"""Chooses what runs the scorer on a CPU: onnxruntime, or an engine that is faster and keeps its best items."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

from nann.bundle import SCORER_FILE, Bundle
from nann.errors import ConfigError
from nann.item_rows import ItemRows
from nann.native_scorer import native_refusal
from nann.scorer_check import MIN_AGREEMENT, SCORER_CHECK_FILE, TOP_K, ScorerCheck
from nann.signature import BEAM_RETRIEVAL, SCORER, ModelSpec

from ..version_folder import engine_files
from .native_model import NativeModel
from .onnx_model import OnnxModel
from .onnx_version import load_model
from .recorded import AUTO, NATIVE, ONNXRUNTIME, checked_engine
from .scorer_engine import ScorerEngine

_TIMED_USERS, _TIMED_CALLS = 4, 3


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

    With "auto" each engine that this machine has is compared with onnxruntime on users of the data set that the bundle
    brings (`nann.scorer_check`): it must keep 99% of their exact best items. The fastest that does is taken.

    Args:
        folder: of the version.
        asked: one of `ENGINES`; any but "auto" is taken without the comparison.
        threads: how many share the candidates of a call.

    Raises:
        BundleError: if a file is missing or changed, or the model does not fit the signature.
        ConfigError: if the engine that is asked for can't run here.
    """
    checked_engine(asked)
    spec, model = load_model(folder, SCORER.name, threads)
    bundle = Bundle.open(folder, engine_files(Bundle.open(folder, ()).manifest))
    return spec, _chosen(bundle, model, asked, threads, lambda: _rows_beside(folder))


def bundle_engine(bundle: Bundle, asked: str = AUTO, threads: int = 1) -> ChosenEngine:
    """The engine that `open_scorer` would choose once this exported bundle is installed; arguments as there.

    Raises:
        BundleError: if the model does not fit the signature.
        ConfigError: if the engine that is asked for can't run here.
    """
    model = OnnxModel(bundle.path / SCORER_FILE, bundle.exported_models[SCORER.name], threads)
    return _chosen(bundle, model, checked_engine(asked), threads, lambda: bundle.item_rows)


def _chosen(
    bundle: Bundle, onnx: ScorerEngine, asked: str, threads: int, item_rows: Callable[[], ItemRows | None]
) -> ChosenEngine:
    others, refusals = _others(bundle, threads)
    if asked in others:
        return ChosenEngine(asked, others[asked](), "as asked for")
    if asked != AUTO and asked != ONNXRUNTIME:
        raise ConfigError(f"the scorer's engine is {asked!r}, but {refusals[asked]}; use {AUTO} or {ONNXRUNTIME}")
    if asked == ONNXRUNTIME:
        return ChosenEngine(ONNXRUNTIME, onnx, "as asked for")
    if others and SCORER_CHECK_FILE not in bundle.manifest["files"]:
        refusals = dict.fromkeys(others, "the bundle has nothing to compare it on: run `nann export` again") | refusals
        others = {}
    chosen = None
    if others:
        check = ScorerCheck.load(bundle.path)
        rows = item_rows() if bundle.item_row_width else None
        chosen = _fastest({ONNXRUNTIME: onnx, **{name: make() for name, make in others.items()}}, check, rows, refusals)
    reasons = "; ".join(f"{name}: {reason}" for name, reason in refusals.items())
    if chosen is None:
        return ChosenEngine(ONNXRUNTIME, onnx, reasons)
    return ChosenEngine(chosen.name, chosen.engine, "; ".join(filter(None, (chosen.reason, reasons))))


def _others(bundle: Bundle, threads: int) -> tuple[dict[str, Callable[[], ScorerEngine]], dict[str, str]]:
    """How to open each engine that could run the scorer here; and why the others can't."""
    others: dict[str, Callable[[], ScorerEngine]] = {}
    refusals = {}
    refusal = native_refusal(bundle.manifest)
    if refusal is None:
        others[NATIVE] = lambda: NativeModel(bundle, threads)
    else:
        refusals[NATIVE] = refusal
    return others, refusals


def _fastest(
    engines: Mapping[str, ScorerEngine], check: ScorerCheck, rows: ItemRows | None, refusals: dict[str, str]
) -> ChosenEngine | None:
    """The fastest of the engines that pass; None if that is onnxruntime. Notes the others in `refusals`."""
    kept = {}
    for name, engine in engines.items():
        kept[name] = 1.0 if name == ONNXRUNTIME else _agreement(engine, check, rows, refusals, name)
    passed = {name: engine for name, engine in engines.items() if kept[name] >= MIN_AGREEMENT}
    if len(passed) == 1:
        return None
    seconds = _times(passed, check, rows)
    best = min(seconds, key=seconds.__getitem__)
    for name in passed.keys() - {best, ONNXRUNTIME}:
        refusals[name] = f"takes {seconds[name] / seconds[best]:.2f} of the time of {best}"
    if best == ONNXRUNTIME:
        return None
    share = seconds[best] / seconds[ONNXRUNTIME]
    reason = f"{share:.2f} of onnxruntime's time, keeps {kept[best]:.2%} of the exact best {TOP_K}"
    return ChosenEngine(best, engines[best], reason)


def _agreement(
    engine: ScorerEngine, check: ScorerCheck, rows: ItemRows | None, refusals: dict[str, str], name: str
) -> float:
    """`ScorerCheck.agreement`; 0 if the engine fails."""
    try:
        kept = check.agreement(engine.score(check.user_states, check.candidates, rows))
    except Exception as error:  # whatever an engine raises
        refusals[name] = f"fails: {error}"
        return 0.0
    if kept < MIN_AGREEMENT:
        refusals[name] = f"keeps {kept:.1%} of the exact best {TOP_K}; expected {MIN_AGREEMENT:.0%}"
    return kept


def _times(engines: Mapping[str, ScorerEngine], check: ScorerCheck, rows: ItemRows | None) -> dict[str, float]:
    """Seconds that each takes for some users, one at a time; the best of a few tries, in turns."""
    seconds = dict.fromkeys(engines, float("inf"))
    for _ in range(_TIMED_CALLS):
        for name, engine in engines.items():
            start = perf_counter()
            for user in range(min(_TIMED_USERS, len(check.candidates))):
                engine.score(check.user_states[user : user + 1], check.candidates[user : user + 1], rows)
            seconds[name] = min(seconds[name], perf_counter() - start)
    return seconds


def _rows_beside(folder: Path) -> ItemRows | None:
    """Rows of the items, which the search's folder of the same version has."""
    search = folder.parent.parent / BEAM_RETRIEVAL.name / folder.name
    return Bundle.open(search, ()).item_rows

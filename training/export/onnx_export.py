"""User encoder and scorer -> ONNX, checked against torch, into the bundle."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.export import Dim

from nann.bundle import (
    ITEM_ENCODER_FILE,
    ITEM_FIELDS_FILE,
    ITEM_ROWS_FILE,
    SCORER_FILE,
    SCORER_HALF_FILE,
    USER_ENCODER_FILE,
    WARMUP_FILES,
    Bundle,
)
from nann.bundle_check import first_not_finite
from nann.durable_files import scratch_folder
from nann.errors import BundleError, DataError, ScorerError
from nann.item_rows import ItemRows, candidate_tensor
from nann.light_walk import light_users
from nann.native_scorer import NATIVE_SCORER_FILE
from nann.reachability import Reachability
from nann.score_agreement import MIN_ORDER, TOLERANCE, Agreement, typical_score
from nann.scorer import Float32Array
from nann.scorer_check import SCORER_CHECK_FILE
from nann.signature import ROW_SCORER, SCORER, USER_ENCODER

from ..scorers import GatheringScorer, OnnxScorer, OnnxUserEncoder, trained_attention
from .model_contract import check_modules, example_candidates, example_users, half_advice, plain_module, root_cause
from .native_form import write_native
from .onnx_file import export_module, external_data_file

PARITY_SHAPES = ((1, 1), (1, 61), (2, 7), (3, 256), (16, 1000))
"""(users, candidates) at which torch and onnxruntime are compared."""
_LIGHT_ITEMS = 1000
"""About how many items' light scores are compared."""


@dataclass(frozen=True)
class ExportReport:
    """What was written, and the largest difference between onnxruntime and torch (`Agreement.error`).

    Attributes:
        item_row_width: R, columns of item_rows.npy; 0 if the scorer has an item table.
        native: the scorer's native form (`nann.native_scorer`), None for modules that have none.
    """

    user_encoder_bytes: int
    scorer_bytes: int
    user_state_width: int
    item_row_width: int
    max_difference: float
    tolerance: float
    shapes_checked: int
    native: Mapping[str, Any] | None = None


@trained_attention()
def export_to_bundle(
    bundle: Bundle, user_encoder: nn.Module, scorer: nn.Module, item_rows: Float32Array | None = None
) -> ExportReport:
    """Exports the two modules into the bundle, if onnxruntime agrees with torch; see docs/custom_scorer.md.

    Args:
        bundle: from `nann.training.search.index.create_bundle`.
        user_encoder: `(behaviors int32[B, L], profile_codes int32[B, P]) -> float32[B, S]`, any S. If the bundle has
            light vectors, the last columns are the user's side of the light score.
        scorer: `(user_state float32[B, S], candidates int32[B, C]) -> float32[B, C]`, with item tables among its
            weights; with `item_rows`: `(user_state float32[B, S], candidate_rows float32[B, C, R]) -> float32[B, C]`.
        item_rows: `float32[N, R]`, all that the scorer needs of each item. The bundle keeps them in a file of their
            own, and whoever calls the scorer sends it the rows of the candidates. None: the scorer has item tables.

    Raises:
        DataError: if item_rows has another shape, or a number in it is not finite.
        ScorerError: if a module breaks the contract, or onnxruntime's scores differ from torch's. The bundle is then
            left without the ONNX files.
        BundleError: if no search can reach more than 5% of the items, or the items changed after the training.
    """
    if bundle.features.behavior_ids is not None:
        raise BundleError(
            f"{bundle.path} is of `nann refresh`: its items are not those of the training; index and export another one"
        )
    reachability = Reachability.require(bundle.graph, warn=False)  # `create_bundle` has said it
    user_encoder, scorer = plain_module(user_encoder), plain_module(scorer)
    rows = None if item_rows is None else _checked_rows(bundle, item_rows)
    of_candidates = scorer if rows is None else GatheringScorer(scorer, rows)
    state = check_modules(bundle, user_encoder, of_candidates)
    with scratch_folder(bundle.path / "export") as folder:
        paths = {name: folder / name for name in (USER_ENCODER_FILE, SCORER_FILE)}
        one_dynamic: tuple[dict[int, Dim], ...] = ({0: Dim("B")}, {0: Dim("B")})
        export_module(user_encoder, example_users(bundle, 2), USER_ENCODER, one_dynamic, paths[USER_ENCODER_FILE])
        both_dynamic = ({0: Dim("B")}, {0: Dim("B"), 1: Dim("C")})
        _, candidates = candidate_tensor(example_candidates(bundle, 2, 3).numpy(), rows)
        spec = SCORER if rows is None else ROW_SCORER
        export_module(scorer, (state, torch.from_numpy(candidates)), spec, both_dynamic, paths[SCORER_FILE])
        encoder_path, scorer_path = paths.values()
        agreement = check_parity(bundle, user_encoder, of_candidates, encoder_path, scorer_path, rows)
        if rows is not None:
            np.save(folder / ITEM_ROWS_FILE, rows.base)
        native = write_native(scorer, scorer_path)
        written, derived = _replace_exported(folder, bundle.path)
    sizes = {name: written[name] + written.get(external_data_file(name), 0) for name in paths}
    report = ExportReport(
        user_encoder_bytes=sizes[USER_ENCODER_FILE],
        scorer_bytes=sizes[SCORER_FILE],
        user_state_width=state.shape[1],
        item_row_width=0 if rows is None else rows.width,
        max_difference=agreement.error,
        tolerance=TOLERANCE,
        shapes_checked=len(PARITY_SHAPES),
        native=native,
    )
    changed = bundle.change(written=written, removed=derived, export=asdict(report))
    tools = {name: version(name) for name in ("torch", "onnx", "onnxruntime")}
    changed.note(tools={**changed.notes.get("tools", {}), **tools})
    changed.note(reachability={**changed.notes.get("reachability", {}), **reachability.summary()})
    return report


def _checked_rows(bundle: Bundle, given: Float32Array) -> ItemRows:
    rows = np.ascontiguousarray(given, np.float32)
    if rows.ndim != 2 or len(rows) != bundle.item_count or not rows.shape[1]:
        raise DataError(f"item_rows has shape {list(rows.shape)}; expected [{bundle.item_count}, any], a row per item")
    item = first_not_finite(rows)
    if item is not None:
        raise DataError(f"item_rows holds NaN or infinity, for item index {item} first; expected finite numbers")
    return ItemRows(rows)


def _replace_exported(exported: Path, folder: Path) -> tuple[dict[str, int], set[str]]:
    """Moves the exported files into a bundle, and removes those that were made from the last export.

    Returns:
        Sizes of the written files by name, and the names of the removed files.
    """
    written = {path.name: path.stat().st_size for path in exported.iterdir()}
    external = map(external_data_file, (USER_ENCODER_FILE, SCORER_FILE, ITEM_ENCODER_FILE))
    of_items = (ITEM_ENCODER_FILE, ITEM_FIELDS_FILE)
    own = (SCORER_HALF_FILE, NATIVE_SCORER_FILE, SCORER_CHECK_FILE, ITEM_ROWS_FILE)
    derived = {*own, *WARMUP_FILES.values(), *of_items, *external} - set(written)
    for name in derived:
        (folder / name).unlink(missing_ok=True)
    for name in written:
        (exported / name).replace(folder / name)
    return written, derived


def check_parity(
    bundle: Bundle,
    user_encoder: nn.Module,
    scorer: nn.Module,
    encoder_path: Path,
    scorer_path: Path,
    rows: ItemRows | None = None,
) -> Agreement:
    """Compares torch with onnxruntime at `PARITY_SHAPES`; returns the worst agreement.

    The module `scorer` takes candidates; so does the file, unless there are `rows`.

    Raises:
        ScorerError: naming the shape and the difference, if the scores do not agree.
    """
    try:
        onnx_encoder, onnx_scorer = OnnxUserEncoder(encoder_path), OnnxScorer(scorer_path, rows=rows)
    except BundleError as error:
        advice = half_advice(encoder_path, scorer_path)
        raise ScorerError(f"onnxruntime refuses what torch exported: {root_cause(error)}{advice}") from error
    worst = Agreement(0.0)
    _, most = _in_torch(bundle, user_encoder, scorer, *PARITY_SHAPES[-1])
    typical = typical_score(most)  # one score alone may be near 0
    for users, width in PARITY_SHAPES:
        expected_states, expected = _in_torch(bundle, user_encoder, scorer, users, width)
        states, got = _in_onnxruntime(bundle, onnx_encoder, onnx_scorer, users, width)
        agreement = Agreement.of(got, expected, typical)
        if bundle.light_vectors is not None:
            light = Agreement.of(_light_scores(bundle, states), _light_scores(bundle, expected_states))
            agreement = agreement.joined(light)
        if not agreement.holds():
            known = (example_users(bundle, users)[0] >= 0).any(dim=1).numpy()
            advice = half_advice(encoder_path, scorer_path)
            if Agreement.of(got[known], expected[known], typical).holds():
                advice = "; only users without behaviours differ: mask attention with -1e9, not with booleans or -inf"
            raise ScorerError(
                f"at {users} users x {width} candidates onnxruntime differs from torch {agreement}; expected at most "
                f"{TOLERANCE:.0e} and at least {MIN_ORDER:.0%}: the export is not faithful and was not written{advice}"
            )
        worst = worst.joined(agreement)
    return worst


def _in_torch(
    bundle: Bundle, user_encoder: nn.Module, scorer: nn.Module, users: int, width: int
) -> tuple[Float32Array, Float32Array]:
    """User states `float32[users, S]` and scores `float32[users, width]` of the example users.

    Raises:
        ScorerError: if a score is NaN.
    """
    with torch.inference_mode():
        states = user_encoder(*example_users(bundle, users))
        scores = scorer(states, example_candidates(bundle, users, width))
    if scores.isnan().any():
        raise ScorerError(
            f"at {users} users x {width} candidates the modules give NaN in torch: not the export's doing; an empty "
            "history must give numbers"
        )
    return states.numpy(), scores.numpy()


def _in_onnxruntime(
    bundle: Bundle, encoder: OnnxUserEncoder, scorer: OnnxScorer, users: int, width: int
) -> tuple[Float32Array, Float32Array]:
    """User states `float32[users, S]` and scores `float32[users, width]` of the example users.

    Raises:
        ScorerError: if the exported files fail, or give another shape or NaN, which torch did not.
    """
    try:
        states = encoder.encode(*(tensor.numpy() for tensor in example_users(bundle, users)))
        scores = scorer.score(states, example_candidates(bundle, users, width).numpy())
    except Exception as error:  # onnxruntime raises one type of its own per status code
        raise ScorerError(
            f"at {users} users x {width} candidates the exported files fail: {root_cause(error)}; "
            "the modules must work for any number of users and candidates"
        ) from error
    if scores.shape != (users, width):
        raise ScorerError(f"the exported scorer gives {scores.shape} at {users} x {width}")
    if np.isnan(scores).any():
        raise ScorerError(
            f"at {users} users x {width} candidates the exported files give NaN where torch gives numbers: torch "
            "makes a softmax over nothing but -inf 0; mask attention with -1e9, not with booleans or -inf"
        )
    return states, scores


def _light_scores(bundle: Bundle, states: Float32Array) -> Float32Array:
    """Light scores of a sample of the items: float32[B, S] -> float32[B, any]."""
    assert bundle.light_vectors is not None
    some = bundle.light_vectors[:: -(-bundle.item_count // _LIGHT_ITEMS)]
    scores: Float32Array = light_users(states, some.shape[1]) @ some.T
    return scores


def require_exported(bundle: Bundle) -> None:
    """Raises BundleError if the bundle lacks one of the ONNX files."""
    missing = [name for name in (USER_ENCODER_FILE, SCORER_FILE) if name not in bundle.manifest["files"]]
    if missing:
        raise BundleError(f"{bundle.path} lacks {' and '.join(missing)}; run `nann export`")

"""User encoder and scorer -> ONNX, checked against torch, into the bundle."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
import onnx
import torch
from torch import Tensor, nn
from torch.export import Dim

from nann.bundle import SCORER_FILE, USER_ENCODER_FILE, Bundle, write_manifest
from nann.errors import BundleError, ScorerError
from nann.signature import PADDING_ITEM, SCORER, USER_ENCODER, ModelSpec
from training.scorers import OnnxScorer, OnnxUserEncoder

PARITY_SHAPES = ((1, 1), (1, 61), (2, 7), (3, 256), (16, 1000))
"""(users, candidates) at which torch and onnxruntime are compared."""
TOLERANCE = 1e-4
"""Largest difference of two scores, relative to the scores' own spread where that is above 1."""


@dataclass(frozen=True)
class ExportReport:
    """What was written and how far onnxruntime is from torch."""

    user_encoder_bytes: int
    scorer_bytes: int
    user_state_width: int
    max_difference: float
    tolerance: float
    shapes_checked: int


def export_to_bundle(bundle: Bundle, user_encoder: nn.Module, scorer: nn.Module) -> ExportReport:
    """Exports the two modules into the bundle, if they agree with torch.

    The modules may be anyone's: see docs/custom_scorer.md for what they must take and give.

    Args:
        bundle: from `training.index.create_bundle`.
        user_encoder: `(behaviors int32[B, L], profile_codes int32[B, P]) -> float32[B, S]`, any S.
        scorer: `(user_state float32[B, S], candidates int32[B, C]) -> float32[B, C]`.

    Raises:
        ScorerError: if a module breaks the contract, or onnxruntime's scores differ from torch's. The bundle is then
            left without the ONNX files.
    """
    user_encoder, scorer = user_encoder.cpu().eval(), scorer.cpu().eval()
    behaviors, profiles = _example_users(bundle, 2)
    state = _checked_state(user_encoder, behaviors, profiles)
    candidates = _example_candidates(bundle, 2, 3)
    _checked_scores(scorer, state, candidates)
    _check_independence(bundle, user_encoder, scorer)
    paths = {name: bundle.path / f".{name}.tmp" for name in (USER_ENCODER_FILE, SCORER_FILE)}
    try:
        one_dynamic: tuple[dict[int, Dim], ...] = ({0: Dim("B")}, {0: Dim("B")})
        _export(user_encoder, (behaviors, profiles), USER_ENCODER, one_dynamic, paths[USER_ENCODER_FILE])
        both_dynamic = ({0: Dim("B")}, {0: Dim("B"), 1: Dim("C")})
        _export(scorer, (state, candidates), SCORER, both_dynamic, paths[SCORER_FILE])
        difference = check_parity(bundle, user_encoder, scorer, paths[USER_ENCODER_FILE], paths[SCORER_FILE])
        for name, path in paths.items():
            path.replace(bundle.path / name)
    finally:
        for path in paths.values():
            path.unlink(missing_ok=True)
    report = ExportReport(
        user_encoder_bytes=(bundle.path / USER_ENCODER_FILE).stat().st_size,
        scorer_bytes=(bundle.path / SCORER_FILE).stat().st_size,
        user_state_width=state.shape[1],
        max_difference=difference,
        tolerance=TOLERANCE,
        shapes_checked=len(PARITY_SHAPES),
    )
    tools = {**bundle.manifest["tools"], "torch": torch.__version__, "onnx": version("onnx"),
             "onnxruntime": version("onnxruntime")}  # fmt: skip
    manifest = {**bundle.manifest, "tools": tools, "export": asdict(report)}
    write_manifest(bundle.path, manifest, {*bundle.manifest["files"], *paths})
    return report


def check_parity(
    bundle: Bundle, user_encoder: nn.Module, scorer: nn.Module, encoder_path: Path, scorer_path: Path
) -> float:
    """Compares torch with onnxruntime at `PARITY_SHAPES`; returns the largest difference of two scores.

    Raises:
        ScorerError: naming the shape and the difference, if it is above `TOLERANCE`.
    """
    try:
        onnx_encoder, onnx_scorer = OnnxUserEncoder(encoder_path), OnnxScorer(scorer_path)
    except BundleError as error:
        raise ScorerError(f"onnxruntime refuses what torch exported: {_root_cause(error)}") from error
    largest = 0.0
    for users, width in PARITY_SHAPES:
        behaviors, profiles = _example_users(bundle, users)
        candidates = _example_candidates(bundle, users, width)
        with torch.inference_mode():
            expected = scorer(user_encoder(behaviors, profiles), candidates).numpy()
        try:
            states = onnx_encoder.encode(behaviors.numpy(), profiles.numpy())
            got = onnx_scorer.score(states, candidates.numpy())
        except Exception as error:  # onnxruntime raises its own types, one a status code
            raise ScorerError(
                f"at {users} users x {width} candidates the exported files fail: {_root_cause(error)}; "
                "the modules must work for any number of users and candidates"
            ) from error
        if got.shape != expected.shape:
            raise ScorerError(f"the exported scorer gives {got.shape} at {users} x {width}; torch {expected.shape}")
        difference = float(np.abs(got - expected).max() / max(1.0, float(np.ptp(expected))))
        if not difference <= TOLERANCE:
            raise ScorerError(
                f"at {users} users x {width} candidates onnxruntime differs from torch by {difference:.2e}; "
                f"expected at most {TOLERANCE:.0e}: the export is not faithful and was not written"
            )
        largest = max(largest, difference)
    return largest


def _export(
    module: nn.Module,
    inputs: tuple[Tensor, ...],
    spec: ModelSpec,
    dynamic_shapes: tuple[dict[int, Dim], ...],
    path: Path,
) -> None:
    names = [tensor.name for tensor in spec.inputs]
    try:
        with _quiet():
            program = torch.onnx.export(
                module, inputs, dynamo=True, input_names=names, output_names=[spec.outputs[0].name],
                dynamic_shapes=dynamic_shapes, verbose=False,
            )  # fmt: skip
    except Exception as error:  # the exporter's own types, around whatever the module or torch.export raised
        raise ScorerError(
            f"{spec.name} can't be exported to ONNX: {_root_cause(error)}; see docs/custom_scorer.md"
        ) from error
    assert program is not None
    model = program.model_proto
    _declare_signature(model, spec)
    onnx.save(model, str(path))


def _root_cause(error: BaseException) -> str:
    while error.__cause__ is not None:
        error = error.__cause__
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"


def _declare_signature(model: onnx.ModelProto, spec: ModelSpec) -> None:
    """Makes the file declare what `nann.signature` says, as Triton's ONNX Runtime backend compares the two.

    Inputs that the module does not read are added, and widths that are fixed in this bundle (S, L, P) become symbols.
    """
    declared = {value.name: value for value in (*model.graph.input, *model.graph.output)}
    for tensor in (*spec.inputs, *spec.outputs):
        value = declared.get(tensor.name)
        if value is None:
            value = model.graph.input.add(name=tensor.name)
            value.type.tensor_type.elem_type = onnx.helper.np_dtype_to_tensor_dtype(tensor.dtype)
            value.type.tensor_type.shape.dim.add(dim_param="B")
            value.type.tensor_type.shape.dim.add()
        width = value.type.tensor_type.shape.dim[1]
        if not width.dim_param:
            width.dim_param = f"{tensor.name}_width"


def _checked_state(user_encoder: nn.Module, behaviors: Tensor, profiles: Tensor) -> Tensor:
    with torch.inference_mode():
        state = user_encoder(behaviors, profiles)
    if state.dtype != torch.float32 or state.ndim != 2 or len(state) != len(behaviors):
        raise ScorerError(
            f"the user encoder gives {state.dtype}{list(state.shape)} for {len(behaviors)} users; "
            f"expected float32[{len(behaviors)}, S]: flatten and concatenate what the scorer needs"
        )
    return torch.from_numpy(state.numpy().copy())


def _checked_scores(scorer: nn.Module, state: Tensor, candidates: Tensor) -> None:
    with torch.inference_mode():
        scores = scorer(state, candidates)
    if scores.dtype != torch.float32 or scores.shape != candidates.shape:
        raise ScorerError(
            f"the scorer gives {scores.dtype}{list(scores.shape)} for candidates {list(candidates.shape)}; "
            f"expected float32{list(candidates.shape)}"
        )


def _check_independence(bundle: Bundle, user_encoder: nn.Module, scorer: nn.Module) -> None:
    """A round scores an item for several users among whatever else it found, padding included: no score may tell."""
    behaviors, profiles = _example_users(bundle, 3)
    candidates = _example_candidates(bundle, 3, 4)
    padded = nn.functional.pad(candidates, (0, 1), value=PADDING_ITEM)
    try:
        with torch.inference_mode():
            together = scorer(user_encoder(behaviors, profiles), padded)[:, :-1]
            states = [user_encoder(behaviors[i : i + 1], profiles[i : i + 1]) for i in range(3)]
            rows = [[scorer(states[i], one)[0] for one in candidates[i : i + 1].split(1, dim=1)] for i in range(3)]
    except Exception as error:  # whatever the module raises
        raise ScorerError(
            f"the modules fail for one user and one candidate, or where a candidate is {PADDING_ITEM} (padding): "
            f"{_root_cause(error)}; clamp candidates to 0 before the look-up"
        ) from error
    alone = torch.stack([torch.cat(row) for row in rows])
    difference = float((together - alone).abs().max() / max(1.0, float(alone.max() - alone.min())))
    if difference > TOLERANCE:  # NaN is left to the parity check, which names the shape
        raise ScorerError(
            f"the score of a candidate changes by {difference:.2e} with the other candidates and users of the call; "
            f"expected at most {TOLERANCE:.0e}: a score must depend on the user and the item alone"
        )


def _example_users(bundle: Bundle, users: int) -> tuple[Tensor, Tensor]:
    """Random histories of every length, an empty one among them, and random profiles."""
    rng = np.random.default_rng(users)
    length = bundle.sequence_length
    behaviors = rng.integers(bundle.item_count, size=(users, length), dtype=np.int32)
    kept = np.linspace(length, 0, users).astype(int) if users > 1 else np.array([length])
    behaviors[np.arange(length) < length - kept[:, None]] = -1
    sizes = [len(field["values"]) + 1 for field in bundle.manifest["profile_fields"]] or [1]
    profiles = np.stack([rng.integers(size, size=users) for size in sizes], axis=1).astype(np.int32)
    return torch.from_numpy(behaviors), torch.from_numpy(profiles)


def _example_candidates(bundle: Bundle, users: int, width: int) -> Tensor:
    rng = np.random.default_rng(width)
    return torch.from_numpy(rng.integers(bundle.item_count, size=(users, width), dtype=np.int32))


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The exporter prints its stages and warns of its own deprecations: none of it is for the user."""
    disabled = logging.root.manager.disable
    logging.disable(logging.ERROR)
    void = io.StringIO()
    with warnings.catch_warnings(), contextlib.redirect_stdout(void), contextlib.redirect_stderr(void):
        warnings.simplefilter("ignore")
        try:
            yield
        finally:
            logging.disable(disabled)


def require_exported(bundle: Bundle) -> None:
    """Fails unless the bundle holds the ONNX files.

    Raises:
        BundleError: saying what to run.
    """
    missing = [name for name in (USER_ENCODER_FILE, SCORER_FILE) if name not in bundle.manifest["files"]]
    if missing:
        raise BundleError(f"{bundle.path} lacks {' and '.join(missing)}; run `nann export`")

"""The scorer in half precision: an ONNX file with float16 types, checked against the one in full precision.

TensorRT plans and the torch target compute in the types of the ONNX graph. Inputs and scores stay float32. The user
encoder stays in full precision: it runs once per request, and all scores depend on it.
"""

from __future__ import annotations

import warnings
from dataclasses import asdict, dataclass

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.transformers.float16 import convert_float_to_float16
from onnxruntime.transformers.onnx_model import OnnxModel

from nann.bundle import SCORER_FILE, SCORER_HALF_FILE, USER_ENCODER_FILE, Bundle
from nann.durable_files import new_file
from nann.errors import ScorerError
from nann.exact_search import exact_search
from nann.metrics import coverage
from nann.onnx_data import read_external_data
from nann.score_agreement import Agreement, typical_score
from nann.search_input import UserBatch

from ..scorers import OnnxScorer, OnnxUserEncoder
from .model_contract import example_candidates, example_users
from .onnx_export import PARITY_SHAPES, require_exported

HALF_LIMIT = 3e4
"""Larger numbers are clipped to this. Half precision ends at 65,504, and a mask of -1e9 must stay finite even after an
addition: a softmax over only -inf is NaN."""
HALF_TOLERANCE = 1e-1
"""Largest accepted error of a score (`Agreement`); the ranking is compared too."""
HALF_COVERAGE = 0.95
"""Smallest accepted share of the exact top K that is also in half precision's."""
_COMPARED_USERS = 8


@dataclass(frozen=True)
class HalfReport:
    """How much half precision differs from full.

    Attributes:
        scorer_bytes: size of the file.
        max_difference: largest error of a score (`Agreement`) at `PARITY_SHAPES`.
        coverage: share of full precision's exact top K that is also in half precision's.
        top_k: K.
    """

    scorer_bytes: int
    max_difference: float
    coverage: float
    top_k: int


def export_half(bundle: Bundle) -> HalfReport:
    """Adds the scorer in half precision to an exported bundle.

    Raises:
        BundleError: if the bundle was not exported.
        ScorerError: if scores or the exact top K differ too much from full precision; the bundle is then unchanged.
    """
    require_exported(bundle)
    with new_file(bundle.path / SCORER_HALF_FILE) as temporary:
        model = onnx.load(str(bundle.path / SCORER_FILE), load_external_data=False)
        read_external_data(model, bundle.path)
        onnx.save(to_half(model), str(temporary))
        full, half = OnnxScorer.of_bundle(bundle), OnnxScorer(temporary, rows=bundle.item_rows)
        report = _compare(bundle, full, half, temporary.stat().st_size)
    bundle.change(written=[SCORER_HALF_FILE]).note(half_precision=asdict(report))
    return report


def to_half(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same model with weights and arithmetic in float16, float32 inputs and outputs."""
    _clip_inputs(model.graph)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # one for each weight that is clipped or rounded to 0
        half = convert_float_to_float16(model, keep_io_types=True, max_finite_val=HALF_LIMIT)
    # The converter appends its casts at the end of the nodes.
    OnnxModel.graph_topological_sort(half.graph)
    onnx.checker.check_model(half)
    return half


def _clip_inputs(graph: onnx.GraphProto) -> None:
    names = [value.name for value in graph.input if value.type.tensor_type.elem_type == TensorProto.FLOAT]
    for node in graph.node:
        node.input[:] = [f"{name}_clipped" if name in names else name for name in node.input]
    for name in names:
        limits = {f"{name}_min": -HALF_LIMIT, f"{name}_max": HALF_LIMIT}
        graph.initializer.extend(numpy_helper.from_array(np.float32(value), limit) for limit, value in limits.items())
        graph.node.insert(0, helper.make_node("Clip", [name, *limits], [f"{name}_clipped"]))


def _compare(bundle: Bundle, full: OnnxScorer, half: OnnxScorer, size_bytes: int) -> HalfReport:
    encoder = OnnxUserEncoder(bundle.path / USER_ENCODER_FILE)
    pairs = {}
    for users, width in PARITY_SHAPES:
        states = encoder.encode(*(tensor.numpy() for tensor in example_users(bundle, users)))
        candidates = example_candidates(bundle, users, width).numpy()
        # A mask is -HALF_LIMIT in half precision, whatever it is in full.
        pairs[users, width] = [
            np.clip(scorer.score(states, candidates), -HALF_LIMIT, HALF_LIMIT) for scorer in (half, full)
        ]
    largest, typical = 0.0, typical_score(pairs[PARITY_SHAPES[-1]][1])
    for (users, width), (got, expected) in pairs.items():
        error = Agreement.of(got, expected, typical).error
        if not error <= HALF_TOLERANCE:
            raise ScorerError(
                f"at {users} users x {width} candidates half precision differs by {error:.2e} of a score; expected at "
                f"most {HALF_TOLERANCE:.0e}: the scorer needs full precision; export without --half"
            )
        largest = max(largest, error)
    inputs = (tensor.numpy() for tensor in example_users(bundle, _COMPARED_USERS))
    compared = UserBatch(encoder.encode(*inputs), None)
    top_k = bundle.search_params.top_k
    exact, found = (exact_search(scorer, compared, bundle.item_count, top_k).items for scorer in (full, half))
    covered = coverage(found, exact)
    if covered < HALF_COVERAGE:
        raise ScorerError(
            f"half precision keeps {covered:.1%} of the exact top {top_k}; expected at least {HALF_COVERAGE:.0%}: "
            "the scorer needs full precision; export without --half"
        )
    return HalfReport(size_bytes, largest, covered, top_k)

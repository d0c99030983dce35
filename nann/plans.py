"""TensorRT plans of a bundle, in a folder of their own: a plan fits one TensorRT version and one kind of GPU.

plans.json               what they were built from and for, sha256 and size of each file
user_encoder.plan, scorer.plan
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nann.bundle import Bundle
from nann.errors import BundleError, ConfigError
from nann.manifest import sha256_of
from nann.shape_grid import MAX_BATCH_SIZE, ShapeGrid
from nann.signature import (
    BEHAVIORS,
    CANDIDATE_ROWS,
    CANDIDATES,
    PROFILE_CODES,
    USER_ENCODER,
    USER_STATE,
    ModelSpec,
    TensorSpec,
)

PLANS_FILE = "plans.json"
PLANS_FORMAT_VERSION = 1
Shapes = Mapping[TensorSpec, tuple[int, ...]]
"""Shape of each input, without the batch dimension."""


def plan_file(model_name: str) -> str:
    """Name of a model's plan in the folder."""
    return f"{model_name}.plan"


@dataclass(frozen=True)
class Profile:
    """One optimization profile: shapes of the inputs from `smallest` to `largest`, B from 1 to `MAX_BATCH_SIZE`.

    It is tuned for the largest shape and batch, and its CUDA graphs have exactly the largest shape.
    """

    smallest: Shapes
    largest: Shapes


def input_shapes(bundle: Bundle, spec: ModelSpec, candidates: int) -> Shapes:
    """The shapes that a bundle's user encoder or scorer is called with, for this many candidates of a user.

    Raises:
        BundleError: if the bundle has no exported models yet.
    """
    shapes = {
        BEHAVIORS: (bundle.sequence_length,),
        PROFILE_CODES: (bundle.profile_width,),
        USER_STATE: (bundle.user_state_width,),
        CANDIDATES: (candidates,),
        CANDIDATE_ROWS: (candidates, bundle.item_row_width),
    }
    return {tensor: shapes[tensor] for tensor in spec.inputs}


def optimization_profiles(bundle: Bundle, spec: ModelSpec) -> list[Profile]:
    """The optimization profiles of `user_encoder` (one) or `scorer` (one per width of the bundle's padding grid)."""
    widths = [(0, 0)] if spec is USER_ENCODER else bundle.shape_grid.width_ranges
    return [Profile(*(input_shapes(bundle, spec, width) for width in ends)) for ends in widths]


def graph_batch_sizes(bundle: Bundle, spec: ModelSpec) -> tuple[int, ...]:
    """B of the CUDA graphs. Scorer calls are padded to the grid; the user encoder's batches are not padded."""
    return tuple(range(1, MAX_BATCH_SIZE + 1)) if spec is USER_ENCODER else bundle.shape_grid.batch_sizes


def check_profiles(profiles: Sequence[Profile]) -> None:
    """Checks that optimization profiles cover every width from the smallest to the largest: a call in a gap would fail.

    Raises:
        ConfigError: naming the gap.
    """
    for tensor in profiles[0].largest:
        end = profiles[0].smallest[tensor][0] - 1
        for profile in profiles:
            low, high = profile.smallest[tensor][0], profile.largest[tensor][0]
            if low > end + 1 or low > high:
                raise ConfigError(
                    f"optimization profiles leave {tensor.name} of width {end + 1} to {low - 1} without a profile; "
                    "expected each to begin one above the end of the previous one"
                )
            end = high


@dataclass(frozen=True)
class Plans:
    """A verified folder of plans. Open one with `Plans.open`.

    Attributes:
        path: the folder.
        manifest: plans.json.
    """

    path: Path
    manifest: Mapping[str, Any]

    @classmethod
    def open(cls, path: Path | str, bundle: Bundle) -> Plans:
        """Reads plans.json, and verifies the plans' hashes and that they were built from this bundle.

        Raises:
            BundleError: naming the file, what was found and what was expected.
        """
        path = Path(path)
        manifest = read_plans(path)
        grid = ShapeGrid.of_manifest(manifest)
        if grid != bundle.shape_grid:
            raise BundleError(
                f"the plans in {path} have widths {list(grid.widths)}; the bundle's padding grid has "
                f"{list(bundle.shape_grid.widths)}; run `nann build-engine` again"
            )
        for name in bundle.exported_models:
            entry = manifest["plans"].get(name)
            if entry is None:
                raise BundleError(f"{path / PLANS_FILE} lists no plan of {name}; run `nann build-engine` again")
            file = path / plan_file(name)
            if not is_unchanged(file, entry):
                raise BundleError(f"{file} is missing or was changed after it was built; run `nann build-engine` again")
            known = onnx_hash(bundle, entry["onnx_file"])
            if known != entry["onnx_sha256"]:
                raise BundleError(
                    f"{file} was built from another {entry['onnx_file']} "
                    f"({entry['onnx_sha256'][:12]}...; the bundle's is {str(known)[:12]}...); "
                    "run `nann build-engine` again"
                )
        return cls(path, manifest)


def onnx_hash(bundle: Bundle, onnx_file: str) -> str | None:
    """Hex sha256 of an ONNX file of a bundle, or over it and its external data; None if there is no such file."""
    files = sorted(bundle.manifest["files"].items())
    hashes = [entry["sha256"] for name, entry in files if name == onnx_file or name.startswith(f"{onnx_file}.")]
    if len(hashes) > 1:
        return hashlib.sha256("".join(hashes).encode()).hexdigest()
    return hashes[0] if hashes else None


def is_unchanged(file: Path, entry: Mapping[str, Any]) -> bool:
    """Whether a plan is the one of which plans.json says `entry`."""
    return file.is_file() and sha256_of(file) == entry["sha256"]


def read_plans(path: Path) -> Mapping[str, Any]:
    """Reads plans.json in a folder.

    Raises:
        BundleError: if it is missing or damaged, or of another format.
    """
    file = path / PLANS_FILE
    if not file.is_file():
        raise BundleError(f"{path} holds no TensorRT plans: it has no {PLANS_FILE}; run `nann build-engine`")
    try:
        manifest: Mapping[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        version = manifest["format_version"]
    except (ValueError, KeyError, TypeError) as error:
        raise BundleError(f"{file} can't be read: {error}; run `nann build-engine` again") from error
    if version != PLANS_FORMAT_VERSION:
        raise BundleError(f"{file} has format version {version}; this release reads {PLANS_FORMAT_VERSION}")
    return manifest

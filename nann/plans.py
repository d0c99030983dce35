"""TensorRT plans of a bundle, in a folder of their own: a plan fits one TensorRT version and one kind of GPU.

plans.json               what they were built from and for, sha256 and size of each file
user_encoder.plan, scorer.plan
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nann.bundle import Bundle, sha256_of
from nann.errors import BundleError, ConfigError
from nann.shape_grid import MAX_BATCH_SIZE, ShapeGrid
from nann.signature import (
    BEHAVIORS,
    CANDIDATES,
    PROFILE_CODES,
    SCORER,
    USER_ENCODER,
    USER_STATE,
    ModelSpec,
    TensorSpec,
)

PLANS_FILE = "plans.json"
PLANS_FORMAT_VERSION = 1
PLANNED_MODELS = (USER_ENCODER, SCORER)
"""The models that TensorRT runs, in the order in which they are built."""


def plan_file(model_name: str) -> str:
    """Name of a model's plan in the folder."""
    return f"{model_name}.plan"


@dataclass(frozen=True)
class Profile:
    """One optimization profile: widths of the inputs from `smallest` to `largest`, B from 1 to `MAX_BATCH_SIZE`.

    It is tuned for the largest width and batch, and its CUDA graphs have exactly the largest width.
    """

    smallest: Mapping[TensorSpec, int]
    largest: Mapping[TensorSpec, int]


def optimization_profiles(bundle: Bundle, spec: ModelSpec) -> list[Profile]:
    """The optimization profiles of `user_encoder` (one) or `scorer` (one per width of the bundle's padding grid)."""
    if spec is USER_ENCODER:
        widths = {BEHAVIORS: bundle.sequence_length, PROFILE_CODES: bundle.profile_width}
        return [Profile(widths, widths)]
    state = {USER_STATE: bundle.user_state_width}
    return [
        Profile({**state, CANDIDATES: low}, {**state, CANDIDATES: high}) for low, high in bundle.shape_grid.width_ranges
    ]


def graph_batch_sizes(bundle: Bundle, spec: ModelSpec) -> tuple[int, ...]:
    """B of the CUDA graphs. Scorer calls are padded to the grid; the user encoder's batches are not padded."""
    return bundle.shape_grid.batch_sizes if spec is SCORER else tuple(range(1, MAX_BATCH_SIZE + 1))


def check_profiles(profiles: Sequence[Profile]) -> None:
    """Checks that optimization profiles cover every width from the smallest to the largest: a call in a gap would fail.

    Raises:
        ConfigError: naming the gap.
    """
    for tensor in profiles[0].largest:
        end = profiles[0].smallest[tensor] - 1
        for profile in profiles:
            low, high = profile.smallest[tensor], profile.largest[tensor]
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
        manifest = _read(path)
        grid = ShapeGrid.of_manifest(manifest)
        if grid != bundle.shape_grid:
            raise BundleError(
                f"the plans in {path} have widths {list(grid.widths)}; the bundle's padding grid has "
                f"{list(bundle.shape_grid.widths)}; run `nann build-engine` again"
            )
        for spec in PLANNED_MODELS:
            entry = manifest["plans"].get(spec.name)
            if entry is None:
                raise BundleError(f"{path / PLANS_FILE} lists no plan of {spec.name}; run `nann build-engine` again")
            file = path / plan_file(spec.name)
            if not file.is_file() or sha256_of(file) != entry["sha256"]:
                raise BundleError(f"{file} is missing or was changed after it was built; run `nann build-engine` again")
            known = bundle.manifest["files"].get(entry["onnx_file"], {}).get("sha256")
            if known != entry["onnx_sha256"]:
                raise BundleError(
                    f"{file} was built from another {entry['onnx_file']} "
                    f"({entry['onnx_sha256'][:12]}...; the bundle's is {str(known)[:12]}...); "
                    "run `nann build-engine` again"
                )
        return cls(path, manifest)


def _read(path: Path) -> Mapping[str, Any]:
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

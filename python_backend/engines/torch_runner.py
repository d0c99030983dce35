"""Loads `user_encoder` or `scorer` of an installed bundle into torch, for the target `torch`. It needs no Triton."""

from __future__ import annotations

from pathlib import Path

import torch

from nann.bundle import SCORER_HALF_FILE, Bundle
from nann.manifest import verify_file
from nann.plans import input_shapes
from nann.signature import SCORER, USER_ENCODER, ModelSpec

from ..version_folder import MODEL_FILES, onnx_files
from .graph_runner import GraphRunner, Shapes
from .onnx_torch import OnnxTorchModule, torch_dtype


def load_runner(
    folder: Path, model_name: str, device: torch.device, *, cuda_graphs: bool = True, half: bool | None = None
) -> GraphRunner:
    """Verifies and loads the model in a version folder.

    Args:
        folder: the version folder.
        model_name: `user_encoder` or `scorer`.
        device: where to run it.
        cuda_graphs: whether to capture CUDA graphs on a GPU.
        half: whether to run the scorer in half precision; None: on a GPU, if the bundle has it.

    Raises:
        BundleError: if a file is missing or changed, or the model does not fit the signature or can't run in torch.
        ScorerError: if the model fails on zeros, or it can't be captured as a CUDA graph.
    """
    bundle = Bundle.open(folder, ())
    spec = bundle.exported_models[model_name]
    if half is None:
        half = device.type == "cuda" and model_name == SCORER.name and SCORER_HALF_FILE in bundle.manifest["files"]
    installed = onnx_files(bundle.manifest, SCORER_HALF_FILE if half else MODEL_FILES[model_name])
    for name, file in installed.items():
        verify_file(folder / file, bundle.manifest["files"][name])
    module = OnnxTorchModule(folder / next(iter(installed.values())), spec).to(device)
    shapes = model_shapes(bundle, spec)
    runner = GraphRunner(module, shapes if cuda_graphs else [])
    # A broken model fails at load, not at the first request.
    smallest = shapes[-1]
    runner.run({tensor.name: torch.zeros(smallest[tensor.name], dtype=torch_dtype(tensor)) for tensor in spec.inputs})
    return runner


def model_shapes(bundle: Bundle, spec: ModelSpec) -> list[Shapes]:
    """The input shapes of a model, the largest first.

    Raises:
        BundleError: if the manifest does not state the width of the user state.
    """
    grid = bundle.shape_grid
    points = [(users, 0) for users in grid.batch_sizes] if spec is USER_ENCODER else grid.points
    return [
        {tensor.name: (users, *shape) for tensor, shape in input_shapes(bundle, spec, width).items()}
        for users, width in reversed(points)
    ]

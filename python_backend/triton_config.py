"""What a bundle's padding grid adds to the hand-written Triton configurations of the target `tensorrt`.

A CUDA graph spec states the shape of every input, the user state's width among them, which only the bundle knows; so
this part is made at installation, from the one grid, and the rest stays written by hand. A configuration is text in
which fields may follow in any order: adding is appending.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

from nann.bundle import WARMUP_FILES, Bundle
from nann.shape_grid import MAX_BATCH_SIZE, ShapeGrid
from nann.signature import BEHAVIORS, CANDIDATES, PROFILE_CODES, SCORER, USER_ENCODER, USER_STATE, ModelSpec, TensorSpec

WARMUP_FOLDER = "warmup"
"""Triton's name for the folder with warm-up data, beside the version folders."""

Widths = Mapping[TensorSpec, int]


def tensorrt_addition(bundle: Bundle, spec: ModelSpec) -> str:
    """Instance group, CUDA graphs and warm-up of `user_encoder` or `scorer` on TensorRT, as text of `config.pbtxt`."""
    shapes = list(graph_shapes(bundle, spec))
    profiles = ", ".join(f'"{number}"' for number in range(len(profile_widths(bundle, spec))))
    specs = "\n".join(f"    {_graph_spec(users, widths)}" for users, widths in shapes)
    warmups = "\n".join(f"  {_warmup(bundle, users, widths)}," for users, widths in shapes).rstrip(",")
    return (
        "\n# Made at installation from the bundle's padding grid; changes here are lost with the next one.\n"
        f"instance_group [ {{ kind: KIND_GPU count: 1 profile: [ {profiles} ] }} ]\n\n"
        "# Exact shapes only: a graph that is run at another shape gives wrong numbers.\n"
        f"optimization {{\n  cuda {{\n    graphs: true\n{specs}\n  }}\n}}\n\n"
        f"model_warmup [\n{warmups}\n]\n"
    )


def profile_widths(bundle: Bundle, spec: ModelSpec) -> list[dict[TensorSpec, tuple[int, int]]]:
    """Of each optimization profile, the smallest and largest width of each input. B goes from 1 to `MAX_BATCH_SIZE`."""
    return [
        {tensor: (low if tensor == CANDIDATES else widths[tensor], widths[tensor]) for tensor in spec.inputs}
        for widths, low in _width_steps(bundle, spec)
    ]


def graph_shapes(bundle: Bundle, spec: ModelSpec) -> Iterator[tuple[int, Widths]]:
    """(B, width of each input) of each CUDA graph.

    The scorer's calls are padded to the grid. The user encoder's batches are not, so it has a graph for every B.
    """
    grid: ShapeGrid = bundle.shape_grid
    batch_sizes = grid.batch_sizes if spec is SCORER else tuple(range(1, MAX_BATCH_SIZE + 1))
    for widths, _ in _width_steps(bundle, spec):
        for users in batch_sizes:
            yield users, widths


def write_warmup(bundle: Bundle, spec: ModelSpec, folder: Path) -> None:
    """Writes the files that the warm-up of `tensorrt_addition` names: rows of one real request, as raw numbers.

    A bundle without one (`nann plan-shapes` adds it) is warmed up with zeros and needs no files.
    """
    if not has_warmup(bundle):
        return
    folder.mkdir(parents=True, exist_ok=True)
    for widths, _ in _width_steps(bundle, spec):
        for tensor, width in widths.items():
            row: npt.NDArray = np.load(bundle.path / WARMUP_FILES[tensor.name], allow_pickle=False)
            np.resize(row, width).astype(tensor.dtype).tofile(folder / _warmup_file(tensor, width))


def has_warmup(bundle: Bundle) -> bool:
    """Whether the bundle carries a real request to warm up with."""
    return all(name in bundle.manifest["files"] for name in WARMUP_FILES.values())


def _width_steps(bundle: Bundle, spec: ModelSpec) -> Iterator[tuple[Widths, int]]:
    """Widths of the inputs, and the smallest number of candidates that they serve."""
    if spec is USER_ENCODER:
        yield {BEHAVIORS: bundle.sequence_length, PROFILE_CODES: bundle.profile_width}, 0
        return
    for low, high in bundle.shape_grid.width_ranges:
        yield {USER_STATE: bundle.user_state_width, CANDIDATES: high}, low


def _graph_spec(users: int, widths: Widths) -> str:
    inputs = " ".join(
        f'input {{ key: "{tensor.name}" value {{ dim: [ {width} ] }} }}' for tensor, width in widths.items()
    )
    return f"graph_spec {{ batch_size: {users} {inputs} }}"


def _warmup(bundle: Bundle, users: int, widths: Widths) -> str:
    name = " x ".join(str(size) for size in (users, *widths.values()))
    inputs = " ".join(_warmup_input(bundle, tensor, width) for tensor, width in widths.items())
    # Triton repeats the one row that the inputs hold `batch_size` times.
    return f'{{ name: "{name}" batch_size: {users} {inputs} }}'


def _warmup_input(bundle: Bundle, tensor: TensorSpec, width: int) -> str:
    data = f'input_data_file: "{_warmup_file(tensor, width)}"' if has_warmup(bundle) else "zero_data: true"
    return f'inputs {{ key: "{tensor.name}" value {{ data_type: {tensor.config_dtype} dims: [ {width} ] {data} }} }}'


def _warmup_file(tensor: TensorSpec, width: int) -> str:
    return f"{tensor.name}.{width}"

"""What a bundle's padding grid adds to the hand-written Triton configurations of the target `tensorrt`.

A CUDA graph spec states the shape of every input, and only the bundle knows the width of the user state. So
installation makes this part from the grid, and the rest stays hand-written. Fields of a configuration may come in any
order, so the addition is appended to its text.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np

from nann.array_files import read_array
from nann.bundle import WARMUP_FILES, Bundle
from nann.plans import Shapes, graph_batch_sizes, optimization_profiles
from nann.signature import ModelSpec, TensorSpec

WARMUP_FOLDER = "warmup"
"""Triton's name for the folder with warm-up data, beside the version folders."""


def tensorrt_addition(bundle: Bundle, spec: ModelSpec) -> str:
    """Instance group, CUDA graphs and warm-up of `user_encoder` or `scorer` on TensorRT, as text of `config.pbtxt`."""
    profiles = optimization_profiles(bundle, spec)
    shapes = [(users, profile.largest) for profile in profiles for users in graph_batch_sizes(bundle, spec)]
    numbers = ", ".join(f'"{number}"' for number in range(len(profiles)))
    specs = "\n".join(f"    {_graph_spec(users, widths)}" for users, widths in shapes)
    warmups = "\n".join(f"  {_warmup(bundle, users, widths)}," for users, widths in shapes).rstrip(",")
    return (
        "\n# Made at installation from the bundle's padding grid; changes here are lost at the next one.\n"
        f"instance_group [ {{ kind: KIND_GPU count: 1 profile: [ {numbers} ] }} ]\n\n"
        "# Exact shapes only: a graph that is run at another shape gives wrong numbers.\n"
        f"optimization {{\n  cuda {{\n    graphs: true\n{specs}\n  }}\n}}\n\n"
        f"model_warmup [\n{warmups}\n]\n"
    )


def write_warmup(bundle: Bundle, spec: ModelSpec, folder: Path) -> None:
    """Writes the files that the warm-up of `tensorrt_addition` names: rows of one real request, as raw numbers.

    A bundle without such a request (`nann plan-shapes` adds it) is warmed up with zeros and needs no files. Files of an
    earlier bundle are removed.
    """
    shutil.rmtree(folder, ignore_errors=True)
    if not has_warmup(bundle):
        return
    folder.mkdir(parents=True)
    for profile in optimization_profiles(bundle, spec):
        for tensor, shape in profile.largest.items():
            with (bundle.path / WARMUP_FILES[tensor.name]).open("rb") as stream:
                row = read_array(stream)
            np.resize(row, shape).astype(tensor.dtype).tofile(folder / _warmup_file(tensor, shape))


def has_warmup(bundle: Bundle) -> bool:
    """Whether the bundle carries a real request to warm up with."""
    names = (WARMUP_FILES[tensor.name] for spec in bundle.exported_models.values() for tensor in spec.inputs)
    return all(name in bundle.manifest["files"] for name in names)


def _graph_spec(users: int, shapes: Shapes) -> str:
    inputs = " ".join(
        f'input {{ key: "{tensor.name}" value {{ dim: {list(shape)} }} }}' for tensor, shape in shapes.items()
    )
    return f"graph_spec {{ batch_size: {users} {inputs} }}"


def _warmup(bundle: Bundle, users: int, shapes: Shapes) -> str:
    name = " x ".join(str(size) for size in (users, *(size for shape in shapes.values() for size in shape)))
    inputs = " ".join(_warmup_input(bundle, tensor, shape) for tensor, shape in shapes.items())
    # The inputs hold one row; Triton repeats it `batch_size` times.
    return f'{{ name: "{name}" batch_size: {users} {inputs} }}'


def _warmup_input(bundle: Bundle, tensor: TensorSpec, shape: tuple[int, ...]) -> str:
    data = f'input_data_file: "{_warmup_file(tensor, shape)}"' if has_warmup(bundle) else "zero_data: true"
    return f'inputs {{ key: "{tensor.name}" value {{ data_type: {tensor.config_dtype} dims: {list(shape)} {data} }} }}'


def _warmup_file(tensor: TensorSpec, shape: tuple[int, ...]) -> str:
    return f"{tensor.name}.{shape[0]}"

"""Checks of a TensorRT network and of the engine built from it, which can be read only on a GPU of its kind."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from nann.errors import ScorerError
from nann.plans import Profile
from nann.shape_grid import MAX_BATCH_SIZE
from nann.signature import ModelSpec

_HALF_IN_ENGINE = re.compile(r"half|fp16|float16", re.IGNORECASE)


def check_network(trt: Any, network: Any, spec: ModelSpec, *, half: bool) -> dict[str, int]:
    """Checks a parsed network's inputs, outputs and precision; the engine computes in the types of its tensors.

    Returns:
        The number of layer outputs by type, `{"HALF": 14, "FLOAT": 2, ...}`.

    Raises:
        ScorerError: naming what came and what was expected.
    """
    tensors = [network.get_input(number) for number in range(network.num_inputs)]
    tensors += [network.get_output(number) for number in range(network.num_outputs)]
    _check_tensors(trt, {tensor.name: tensor.dtype for tensor in tensors}, spec, "the ONNX file")
    layers = [network.get_layer(number) for number in range(network.num_layers)]
    types = Counter(layer.get_output(number).dtype.name for layer in layers for number in range(layer.num_outputs))
    matrix_products = [layer for layer in layers if layer.type == trt.LayerType.MATRIX_MULTIPLY]
    products = Counter(layer.get_output(0).dtype.name for layer in matrix_products)
    if half and products["FLOAT"]:
        raise ScorerError(
            f"half precision was asked for, and {products['FLOAT']} of {products.total()} matrix products of "
            f"{spec.name} are in full; export the scorer with `nann export --half`"
        )
    return dict(types)


def check_engine(trt: Any, engine: Any, spec: ModelSpec, profiles: Sequence[Profile], *, half: bool) -> dict[str, int]:
    """Checks a built engine's inputs, outputs, optimization profiles and precision.

    Args:
        trt: the module.
        engine: TensorRT's `ICudaEngine`, built with detailed profiling verbosity.
        spec: names and dtypes.
        profiles: the requested optimization profiles, in order.
        half: whether some layer must compute in half precision.

    Returns:
        The number of layers, and of those that name half precision.

    Raises:
        ScorerError: naming what came and what was expected.
    """
    names = [engine.get_tensor_name(number) for number in range(engine.num_io_tensors)]
    _check_tensors(trt, {name: engine.get_tensor_dtype(name) for name in names}, spec, "the engine")
    if engine.num_optimization_profiles != len(profiles):
        raise ScorerError(
            f"the engine of {spec.name} has {engine.num_optimization_profiles} optimization profiles; "
            f"expected {len(profiles)}"
        )
    for number, profile in enumerate(profiles):
        for tensor in spec.inputs:
            low, high = (1, *profile.smallest[tensor]), (MAX_BATCH_SIZE, *profile.largest[tensor])
            shapes = tuple(tuple(shape) for shape in engine.get_tensor_profile_shape(tensor.name, number))
            if shapes != (low, high, high):
                raise ScorerError(
                    f"profile {number} of {tensor.name} in the engine of {spec.name} is {shapes}; "
                    f"expected {(low, high, high)}"
                )
    information = engine.create_engine_inspector().get_engine_information(trt.LayerInformationFormat.JSON)
    layers = [json.dumps(layer) for layer in json.loads(information).get("Layers", [])]
    in_half = sum(bool(_HALF_IN_ENGINE.search(layer)) for layer in layers)
    if half and not in_half:
        raise ScorerError(f"no layer of {spec.name} computes in half precision, which was asked for")
    return {"layers": len(layers), "layers_in_half": in_half}


def _check_tensors(trt: Any, found: dict[str, Any], spec: ModelSpec, where: str) -> None:
    types = {np.dtype(np.float32): trt.DataType.FLOAT, np.dtype(np.int32): trt.DataType.INT32}
    expected = {tensor.name: types[tensor.dtype] for tensor in (*spec.inputs, *spec.outputs)}
    if set(found) != set(expected):
        raise ScorerError(
            f"{where} of {spec.name} has the tensors {', '.join(sorted(found))}; "
            f"expected {', '.join(sorted(expected))}; run `nann export` again"
        )
    for name, dtype in expected.items():
        if found[name] != dtype:
            raise ScorerError(
                f"{name} in {where} of {spec.name} is {found[name].name}; expected {dtype.name}; "
                "run `nann export` again"
            )

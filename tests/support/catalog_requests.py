"""The model `catalog` without Triton, and requests to it."""

from __future__ import annotations

import json

import numpy as np

from support import triton_fakes
from support.changing_bundle import LIGHT_WIDTH, ROW_WIDTH


def catalog_of(repository, **parameters):
    from nann.python_backend.models.catalog import TritonPythonModel

    model = TritonPythonModel()
    model.initialize(triton_fakes.arguments_of(repository, "catalog", **parameters))
    return model


def ask(model, operation, ids=None, attributes=None, row=None, light=None, vector=None):
    """What the model answers, or the code and the message of its error."""
    tensors = {"operation": np.array([[operation.encode()]], object)}
    if ids is not None:
        tensors["item_ids"] = np.array([[str(each).encode() for each in ids]], object)
    if attributes is not None:
        texts = [each if isinstance(each, bytes) else json.dumps(each).encode() for each in attributes]
        tensors["attributes"] = np.array([texts], object)
    for name, given in (("row", row), ("light", light), ("vector", vector)):
        if given is not None:
            tensors[name] = np.array([given], np.float32)
    (response,) = model.execute([triton_fakes.Request(tensors)])
    if response.has_error():
        return response.error().code(), response.error().message()
    return json.loads(response.arrays()["answer"].item())


def vectors(count):
    return {"row": np.ones((count, ROW_WIDTH)), "light": np.ones((count, LIGHT_WIDTH))}

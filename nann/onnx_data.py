"""Reads the large tensors of an ONNX model from the file beside it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nann.errors import BundleError

_EXTERNAL = 1
"""`TensorProto.DataLocation.EXTERNAL`."""


def read_external_data(model: Any, folder: Path) -> None:
    """Reads external initializers into a model loaded without them: `onnx.load(..., load_external_data=False)`.

    onnx's own reader refuses a file with several hard links. A bundle's files have them, since a model repository links
    to them; their content is verified by hash instead.

    Args:
        model: an `onnx.ModelProto`, changed in place.
        folder: of the model's file.

    Raises:
        BundleError: if the file is missing, too short, or not in the folder itself.
    """
    for tensor in model.graph.initializer:
        if tensor.data_location != _EXTERNAL:
            continue
        entries = {entry.key: entry.value for entry in tensor.external_data}
        name, offset, length = entries["location"], int(entries.get("offset", 0)), int(entries["length"])
        if Path(name).name != name or not (folder / name).is_file():
            raise BundleError(f"tensor {tensor.name} is in {name!r}; expected a file beside the model in {folder}")
        with (folder / name).open("rb") as stream:
            stream.seek(offset)
            data = stream.read(length)
        if len(data) != length:
            raise BundleError(f"{folder / name} ends within tensor {tensor.name}; expected {length} bytes at {offset}")
        tensor.raw_data = data
        tensor.ClearField("external_data")
        tensor.ClearField("data_location")

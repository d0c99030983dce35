"""The item encoder of a bundle under onnxruntime: places new items by their attributes."""

from __future__ import annotations

from importlib.util import find_spec

from nann.bundle import ITEM_ENCODER_FILE, Bundle
from nann.errors import BundleError
from nann.item_encoder import ItemEncoder, run_session


def item_encoder(bundle: Bundle) -> ItemEncoder | None:
    """That of a bundle whose scorer takes item rows; None if it has none, or onnxruntime is not installed.

    Raises:
        BundleError: if onnxruntime can't load it.
    """
    if not bundle.item_row_width or ITEM_ENCODER_FILE not in bundle.manifest["files"] or not find_spec("onnxruntime"):
        return None
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    path = bundle.path / ITEM_ENCODER_FILE
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's exceptions have no common base
        raise BundleError(f"{path} can't be loaded by onnxruntime: {error}; run `nann export` again") from error
    return ItemEncoder(bundle, run_session(session))

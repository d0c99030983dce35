"""Offline side, in PyTorch: data, the scorer's training, evaluation, the HNSW index, the ONNX export.

`__all__` is the public API (docs/python_api.md). Importing the package alone does not load torch, which the image that
builds TensorRT plans does not have.
"""

from typing import TYPE_CHECKING

from nann.lazy_names import lazy_names

if TYPE_CHECKING:
    from .config import IndexConfig, SearchConfig
    from .export.half_precision import export_half
    from .export.onnx_export import export_to_bundle
    from .scorers import GatheringScorer, OnnxScorer, OnnxUserEncoder, TorchScorer, encode_users_torch
    from .search.index import create_bundle
else:
    __getattr__ = lazy_names(
        __name__,
        {
            ".config": ("IndexConfig", "SearchConfig"),
            ".export.half_precision": ("export_half",),
            ".export.onnx_export": ("export_to_bundle",),
            ".scorers": ("GatheringScorer", "OnnxScorer", "OnnxUserEncoder", "TorchScorer", "encode_users_torch"),
            ".search.index": ("create_bundle",),
        },
    )

__all__ = [
    "GatheringScorer",
    "IndexConfig",
    "OnnxScorer",
    "OnnxUserEncoder",
    "SearchConfig",
    "TorchScorer",
    "create_bundle",
    "encode_users_torch",
    "export_half",
    "export_to_bundle",
]

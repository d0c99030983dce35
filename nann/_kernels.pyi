from collections.abc import Sequence

from nann.kernels import Float32Array, Int32Array
from nann.kernels_numpy import count as count
from nann.kernels_numpy import expand as expand
from nann.kernels_numpy import expand_through as expand_through
from nann.kernels_numpy import gather_rows as gather_rows
from nann.kernels_numpy import light_scan as light_scan
from nann.kernels_numpy import light_walk as light_walk
from nann.kernels_numpy import mark as mark
from nann.kernels_numpy import merge_top as merge_top

def has_bf16() -> bool: ...

class _Scorer:
    def score(
        self,
        states: Float32Array,
        candidates: Int32Array,
        base: Float32Array,
        delta: Float32Array,
        first: int,
        threads: int,
    ) -> Float32Array: ...

class NetworkScorer(_Scorer):
    def __init__(
        self,
        hidden: int,
        attention: int,
        length: int,
        layers: Sequence[tuple[Float32Array, Float32Array]],
        slopes: Sequence[float],
        output: Float32Array,
        output_bias: float,
    ) -> None: ...

class SimilarityScorer(_Scorer):
    def __init__(self, width: int, heads: int, attended: int, repeats: int, digits: int, evidences: int) -> None: ...

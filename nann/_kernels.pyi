import numpy as np
import numpy.typing as npt

def mark(visited: npt.NDArray[np.uint64], items: npt.NDArray[np.int32]) -> None: ...
def expand(
    indptr: npt.NDArray[np.int32],
    neighbors: npt.NDArray[np.int32],
    visited: npt.NDArray[np.uint64],
    frontier: npt.NDArray[np.int32],
    threads: int,
) -> npt.NDArray[np.int32]: ...
def merge_top(
    items: npt.NDArray[np.int32],
    scores: npt.NDArray[np.float32],
    new_items: npt.NDArray[np.int32],
    new_scores: npt.NDArray[np.float32],
    ef: npt.NDArray[np.int32],
    threads: int,
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float32], npt.NDArray[np.bool_]]: ...
def light_walk(
    indptr: npt.NDArray[np.int32],
    neighbors: npt.NDArray[np.int32],
    entry_points: npt.NDArray[np.int32],
    vectors: npt.NDArray[np.float32],
    users: npt.NDArray[np.float32],
    width: int,
    ef: npt.NDArray[np.int32],
    steps: npt.NDArray[np.int32],
    threads: int,
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float32], npt.NDArray[np.int32]]: ...

"""Runs a torch module at a few fixed shapes: one CUDA graph per shape on a GPU, plain calls on the CPU.

A scorer is a few dozen small kernels. To launch them one by one takes longer than to compute them. A CUDA graph replays
all of them with one launch, on buffers that never move.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor

from nann.errors import ScorerError

from .onnx_torch import OnnxTorchModule, torch_dtype

_RUNS_BEFORE_CAPTURE = 3  # as torch recommends: the first runs pick algorithms and allocate workspaces

Shapes = Mapping[str, tuple[int, ...]]
"""Shape of each input by name, batch dimension first."""


@dataclass(frozen=True)
class _Captured:
    graph: torch.cuda.CUDAGraph
    inputs: Mapping[str, Tensor]
    output: Tensor


class GraphRunner:
    """Runs one model.

    Args:
        module: already on its device.
        shapes: which shapes to capture, the largest first; not used on the CPU.
    """

    def __init__(self, module: OnnxTorchModule, shapes: Sequence[Shapes]) -> None:
        self._module = module
        self._dtypes = {tensor.name: torch_dtype(tensor) for tensor in module.spec.inputs}
        self._captured: dict[tuple[tuple[int, ...], ...], _Captured] = {}
        self._pool = torch.cuda.graph_pool_handle() if module.device.type == "cuda" else None
        self._memory: dict[str, Tensor] = {}
        if module.device.type == "cuda":
            with torch.cuda.device(module.device):
                # Shapes run one at a time, so all graphs read an input from the same memory: item rows take 100 MB.
                for name in module.inputs:
                    size = max((prod(one[name]) for one in shapes), default=0)
                    self._memory[name] = torch.zeros(size, dtype=self._dtypes[name], device=module.device)
                for one in shapes:
                    self._captured[self._key(one)] = self._capture(one)

    @property
    def device(self) -> torch.device:
        """The device that computes."""
        return self._module.device

    @property
    def graph_count(self) -> int:
        """Number of CUDA graphs; 0 on the CPU."""
        return len(self._captured)

    @torch.inference_mode()
    def run(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Runs the model on inputs of any device; a shape without a CUDA graph runs kernel by kernel.

        Args:
            inputs: by name, batch dimension first; inputs that the model does not read are ignored.

        Returns:
            The output on `device`. The next run overwrites it.

        Raises:
            ScorerError: naming the model, if it fails.
        """
        read = {name: inputs[name] for name in self._module.inputs}
        captured = self._captured.get(self._key({name: tuple(value.shape) for name, value in read.items()}))
        if captured is None:
            return self._module({name: value.to(self.device) for name, value in read.items()})
        for name, value in read.items():
            captured.inputs[name].copy_(value, non_blocking=True)
        captured.graph.replay()
        return captured.output

    @torch.inference_mode()
    def _capture(self, shapes: Shapes) -> _Captured:
        inputs = {name: memory[: prod(shapes[name])].view(shapes[name]) for name, memory in self._memory.items()}
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(_RUNS_BEFORE_CAPTURE):
                self._module(inputs)
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        try:
            # Shapes run one at a time, so all graphs can share one pool of intermediate memory.
            with torch.cuda.graph(graph, pool=self._pool):
                output = self._module(inputs)
        except RuntimeError as error:
            raise ScorerError(
                f"no CUDA graph can be captured of {self._module.spec.name} at {dict(shapes)}: {error}; "
                "set cuda_graphs to false in its configuration for the target torch"
            ) from error
        return _Captured(graph, inputs, output)

    def _key(self, shapes: Shapes) -> tuple[tuple[int, ...], ...]:
        return tuple(tuple(shapes[name]) for name in self._module.inputs)

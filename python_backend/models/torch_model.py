"""The models `user_encoder` and `scorer` of the target `torch`: the bundle's ONNX files in torch, on the GPU.

The scorer runs in half precision if the bundle has it so. Each shape of the padding grid has a CUDA graph. Without a
GPU the same code runs on the CPU, in full precision and without CUDA graphs.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import triton_python_backend_utils as pb_utils
from torch import Tensor

from nann.bundle import Bundle
from nann.signature import USER_ENCODER

from ..engines.device_tensors import read_torch, torch_tensor
from ..engines.torch_runner import load_runner
from ..settings import config_flag
from ..tensors import check_not_empty, error_response


def pad_users(inputs: Mapping[str, Tensor], users: int) -> dict[str, Tensor]:
    """Repeats the last row of each input until there are `users` rows."""
    rows = _users(inputs)
    if rows == users:
        return dict(inputs)
    return {
        name: torch.cat([value, value[-1:].expand(users - rows, *value.shape[1:])]) for name, value in inputs.items()
    }


class TritonPythonModel:
    """Triton's view of one model in torch."""

    def initialize(self, args: Mapping[str, str]) -> None:
        """Verifies, loads and captures the model in the version folder."""
        on_gpu = args["model_instance_kind"] == "GPU" and torch.cuda.is_available()
        device = torch.device(f"cuda:{args['model_instance_device_id']}" if on_gpu else "cpu")
        if not on_gpu:
            torch.set_num_threads(1)  # one process per model: more threads would compete for the cores
        folder = Path(args["model_repository"]) / args["model_version"]
        config = json.loads(args["model_config"])
        bundle = Bundle.open(folder, ())
        self._spec, self._grid = bundle.exported_models[args["model_name"]], bundle.shape_grid
        self._runner = load_runner(folder, args["model_name"], device, cuda_graphs=config_flag(config, "cuda_graphs"))
        pb_utils.Logger.log_info(f"{self._spec.name}: torch on {device}, {self._runner.graph_count} CUDA graphs")

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """Answers the requests in one run if their shapes agree except for the batch size, otherwise one by one."""
        try:
            batches = [{spec.name: read_torch(request, spec) for spec in self._spec.inputs} for request in requests]
            for batch in batches:
                for spec in self._spec.inputs:
                    check_not_empty(spec, batch[spec.name].shape)
            return self._together(batches) if self._fit_together(batches) else [self._alone(batch) for batch in batches]
        except Exception as error:  # a Python model must never raise out of execute()
            return [error_response(error) for _ in requests]

    def _fit_together(self, batches: Sequence[Mapping[str, Tensor]]) -> bool:
        widths = {tuple(value.shape[1:] for value in batch.values()) for batch in batches}
        return len(widths) == 1 and sum(map(_users, batches)) <= self._grid.batch_sizes[-1]

    def _together(self, batches: Sequence[Mapping[str, Tensor]]) -> list[Any]:
        users = [_users(batch) for batch in batches]
        joined = {
            name: torch.cat([batch[name].to(self._runner.device) for batch in batches])
            if len(batches) > 1
            else batches[0][name]
            for name in batches[0]
        }
        output = self._runner.run(pad_users(joined, self._grid.batch_size(sum(users))))
        return [self._response(part) for part in output[: sum(users)].split(users)]

    def _alone(self, batch: Mapping[str, Tensor]) -> Any:
        return self._response(self._runner.run(batch))

    def _response(self, output: Tensor) -> Any:
        spec = self._spec.outputs[0]
        # The user state stays on the device and must outlive the next run; scores go to the search, on the CPU.
        kept = output.clone() if self._spec is USER_ENCODER else output.cpu()
        return pb_utils.InferenceResponse(output_tensors=[torch_tensor(spec, kept)])


def _users(batch: Mapping[str, Tensor]) -> int:
    return len(next(iter(batch.values())))

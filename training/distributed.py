"""Training under `torchrun`: the same loop in each process, on a different slice of the batches."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist


@dataclass(frozen=True)
class ProcessInfo:
    """This process: its rank, how many there are in the run, and its device."""

    rank: int
    world_size: int
    device: torch.device

    @property
    def is_main(self) -> bool:
        """Whether this is the one process that logs and writes files."""
        return self.rank == 0

    @property
    def is_distributed(self) -> bool:
        """Whether the run has several processes."""
        return self.world_size > 1

    def told_by_main(self, value: bool) -> bool:
        """Broadcasts the main process's value; every process must call it."""
        if not self.is_distributed:
            return value
        told = torch.tensor(int(value), device=self.device)
        dist.broadcast(told, src=0)
        return bool(told)


def process_rank() -> int:
    """This process's rank under torchrun, 0 the main one; 0 without it."""
    return int(os.environ.get("RANK", "0"))


@contextmanager
def process_group() -> Iterator[ProcessInfo]:
    """Joins torchrun's processes if there are any, by NCCL if every process has a GPU of its own, else by gloo."""
    world_size = int(os.environ.get("WORLD_SIZE", "1"))
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    on_gpu = torch.cuda.device_count() > local_rank
    device = torch.device("cuda", local_rank) if on_gpu else torch.device("cpu")
    if on_gpu:
        torch.cuda.set_device(device)
    if world_size > 1:
        dist.init_process_group("nccl" if on_gpu else "gloo")
    try:
        yield ProcessInfo(process_rank(), world_size, device)
    finally:
        if world_size > 1:
            dist.destroy_process_group()

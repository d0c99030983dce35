"""`nann train`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from .support import DEFAULT_CHECKPOINT, JsonOption, console, print_json


def train(
    data: Annotated[Path, typer.Option(help="Prepared data set, from `nann prepare`.")],
    out: Annotated[Path, typer.Option(help="Folder for checkpoints and TensorBoard logs.")] = DEFAULT_CHECKPOINT.parent,
    config: Annotated[
        str,
        typer.Option(
            help="auto: chosen from the data set. Or a YAML file, or the name of one in training/configs/ (without "
            ".yaml), as for the paper's network."
        ),
    ] = "auto",
    resume: Annotated[bool, typer.Option("--resume", help="Continue from OUT/checkpoint.pt.")] = False,
    steps: Annotated[int | None, typer.Option(min=1, help="Override the number of steps.")] = None,
    seed: Annotated[int | None, typer.Option(help="Override the random seed.")] = None,
    checkpoint_every: Annotated[int, typer.Option(min=1, help="Steps between checkpoints.")] = 1000,
    json: JsonOption = False,
) -> None:
    """Train a scorer: NCE plus the adversarial auxiliary loss.

    On several devices: `torchrun --nproc-per-node 2 -m nann train --data ... --config ...`.

    OUT/checkpoint.pt is the last step, OUT/best.pt the step with the best validation recall. The section `validation`
    of the configuration says when to validate and whether to stop early.

    Show the losses: `tensorboard --logdir build/train`.
    """
    from ..training.auto_config import AUTO, auto_config
    from ..training.config import resolve_config
    from ..training.data.prepared import PreparedData
    from ..training.distributed import process_rank
    from ..training.train import train as run_training

    prepared = PreparedData.load(data)
    if config == AUTO:
        choice = auto_config(prepared)
        if not process_rank():
            console.print("\n".join(f"- {reason}" for reason in choice.reasons), highlight=False, soft_wrap=True)
        settings = choice.config.override(steps=steps, seed=seed)
    else:
        settings = resolve_config(config, steps=steps, seed=seed)
    report = run_training(prepared, settings, out, resume=resume, checkpoint_every_steps=checkpoint_every)
    if process_rank():  # torchrun started several processes, and the main one reports
        return
    console.print(
        f"{report.steps:,} steps, {report.examples:,} examples in {report.seconds:.0f} s "
        f"({report.step_ms:.0f} ms per step, {report.examples_per_s:,.0f} examples/s, at most "
        f"{report.peak_memory_bytes / 2**30:.1f} GiB); checkpoint: {report.checkpoint}"
    )
    if report.best is not None:
        stopped, best = "stopped early; " if report.stopped_early else "", report.best
        console.print(
            f"{stopped}best validation recall {100 * best.recall:.2f}% at step {best.step:,}; `nann index` and `nann "
            f"export` take the last step unless told otherwise: --checkpoint {report.best_checkpoint}"
        )
    if json:
        paths = {"checkpoint": report.checkpoint, "best_checkpoint": report.best_checkpoint}
        print_json({**asdict(report), **{name: path and str(path) for name, path in paths.items()}})

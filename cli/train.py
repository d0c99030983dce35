"""`nann train`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .support import DEFAULT_CHECKPOINT, JsonOption, console, print_json

if TYPE_CHECKING:
    from ..training.checkpoint import Checkpoint
    from ..training.config import TrainingConfig
    from ..training.data.prepared import PreparedData
    from ..training.train import TrainingReport


def train(
    data: Annotated[Path, typer.Option(help="Prepared data set, from `nann prepare`.")],
    out: Annotated[Path, typer.Option(help="Folder for checkpoints and TensorBoard logs.")] = DEFAULT_CHECKPOINT.parent,
    config: Annotated[
        str,
        typer.Option(
            help="auto: chosen from the data set; with --resume the run's own, with --from the checkpoint's. Or a YAML "
            "file, or the name of one in training/configs/ (without .yaml), as for the paper's network."
        ),
    ] = "auto",
    resume: Annotated[bool, typer.Option("--resume", help="Continue from OUT/checkpoint.pt.")] = False,
    start_from: Annotated[
        Path | None,
        typer.Option(
            "--from",
            help="Begin with the weights of this checkpoint, of the same data set before `nann prepare log --append` "
            "added to it: new items, categories and values start anew.",
        ),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the run in OUT.")] = False,
    changed: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Override a setting of the configuration, also of auto's: model.id_dropout=0.1; may be repeated.",
        ),
    ] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Override the number of steps.")] = None,
    seed: Annotated[int | None, typer.Option(help="Override the random seed.")] = None,
    checkpoint_every: Annotated[int, typer.Option(min=1, help="Steps between checkpoints.")] = 1000,
    checkpoint_seconds: Annotated[float, typer.Option(min=0, help="Seconds between checkpoints, at most.")] = 180,
    json: JsonOption = False,
) -> None:
    """Train a scorer: NCE plus the adversarial auxiliary loss.

    On several devices: `torchrun --nproc-per-node 2 -m nann train --data ... --config ...`.

    OUT/checkpoint.pt is the last step, OUT/best.pt the step with the best validation recall. The section `validation`
    of the configuration says when to validate and whether to stop early. Ctrl-C saves, and --resume goes on. With
    --resume the sections `search`, `index` and `validation` may be others than before, since no weight depends on them.

    After `nann prepare log --append`: nann train --data DATA --from build/train/checkpoint.pt --overwrite --steps 500

    Show the losses: `tensorboard --logdir build/train`.
    """
    from ..training.before_training import check_run
    from ..training.checkpoint import Checkpoint
    from ..training.data.prepared import PreparedData
    from ..training.distributed import process_rank
    from ..training.train import train as run_training
    from ..training.warm_start import WarmStart

    check_run(out, resume=resume, overwrite=overwrite)
    prepared = PreparedData.load(data)
    first = None if start_from is None or resume else Checkpoint.load(start_from)
    base = _configuration(config, prepared, out, resume=resume, first=first)
    settings = base.with_settings(changed or ()).override(steps=steps, seed=seed)
    warm_start = None
    if start_from is not None and first is not None:
        warm_start = WarmStart.of(start_from, first, prepared, settings)
        if not process_rank():
            console.print(warm_start.summary, highlight=False, soft_wrap=True, markup=False)
    try:
        report = run_training(
            prepared,
            settings,
            out,
            resume=resume,
            overwrite=overwrite,
            warm_start=warm_start,
            checkpoint_every_steps=checkpoint_every,
            checkpoint_every_s=checkpoint_seconds,
        )
    except KeyboardInterrupt as interruption:
        if not process_rank():
            console.print(str(interruption) or "interrupted", soft_wrap=True, markup=False, highlight=False)
        raise typer.Exit(130) from interruption
    if process_rank():  # torchrun started several processes, and the main one reports
        return
    _say(report)
    if json:
        paths = {"checkpoint": report.checkpoint, "best_checkpoint": report.best_checkpoint}
        known = None if warm_start is None else warm_start.known
        print_json({**asdict(report), **{name: path and str(path) for name, path in paths.items()}, "known": known})


def _say(report: TrainingReport) -> None:
    console.print(
        f"{report.steps:,} steps, {report.examples:,} examples in {report.seconds:.0f} s "
        f"({report.step_ms:.0f} ms per step, {report.examples_per_s:,.0f} examples/s, at most "
        f"{report.peak_memory_bytes / 2**30:.1f} GiB); checkpoint: {report.checkpoint}"
    )
    if report.best is not None:
        stopped, best = "stopped early; " if report.stopped_early else "", report.best
        console.print(
            f"{stopped}best validation recall {100 * best.recall:.2f}% at step {best.step:,}; `nann index` and `nann "
            f"export` take the last step, or what `nann index --checkpoint {report.best_checkpoint}` names"
        )


def _configuration(
    config: str, data: PreparedData, out: Path, *, resume: bool, first: Checkpoint | None
) -> TrainingConfig:
    """The configuration that --config asks for."""
    from ..training.auto_config import AUTO, auto_config
    from ..training.checkpoint import CHECKPOINT_FILE, Checkpoint
    from ..training.config import resolve_config
    from ..training.distributed import process_rank

    if config != AUTO:
        return resolve_config(config)
    if resume:
        return Checkpoint.load(out / CHECKPOINT_FILE).config
    if first is not None:
        return first.config
    choice = auto_config(data)
    fitted = choice.config.fitted(data.item_count)
    reasons = [f"- {reason}" for reason in choice.reasons]
    if fitted.search != choice.config.search:
        reasons.append(f"- the search retrieves {fitted.search.top_k} items: there are no more")
    if not process_rank():
        console.print("\n".join(reasons), highlight=False, soft_wrap=True)
    return fitted

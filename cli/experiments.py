"""`nann experiments`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .prepare_output import DATA_FOLDER
from .support import JsonOption, as_typed, output, parse_integers, print_json, say

DEFAULT_DATA = DATA_FOLDER / "complete_journey"


def experiments(
    data: Annotated[
        Path | None, typer.Option(help=f"Prepared data set. Default: {DEFAULT_DATA}, prepared if it is missing.")
    ] = None,
    size: Annotated[
        str,
        typer.Option(help="quick (on two cores 20 minutes, and 40 for worth) or full (meant for a GPU)."),
    ] = "quick",
    only: Annotated[str | None, typer.Option(help='Studies to run: "table3,figure5". Default: all.')] = None,
    out: Annotated[Path, typer.Option(help="Folder of the report, the plots and experiments.json.")] = Path(
        "docs/results"
    ),
    cache: Annotated[Path, typer.Option(help="Folder for models and measurements.")] = Path("build/experiments"),
    config: Annotated[str | None, typer.Option(help="Training configuration. Default: the size's.")] = None,
    seeds: Annotated[int | None, typer.Option(min=1, help="How many random seeds. Default: the size's.")] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Training steps per model. Default: the size's.")] = None,
    users: Annotated[int | None, typer.Option(min=1, help="Measure with only this many test users.")] = None,
    growth: Annotated[
        str | None, typer.Option(help='Items of the synthetic corpora: "10000,1000000". Default: the size\'s.')
    ] = None,
    ablations: Annotated[
        float | None,
        typer.Option(help="worth: also train with each means left out, for this share of the steps, as in 0.5."),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Run the paper's experiments, and compare the search with the usual retrieval methods under the same scorer.

    Studies: table3, figure3 to figure7, readings (of the auxiliary loss), tuned (searches), baselines, growth (of a
    synthetic corpus), seeded (the entry strategy seeds), equal (items with equal vectors, on synthetic vectors alone),
    worth (does `nann train --config auto` pay on this data set?), filters (searches under filters, on the model of
    `auto` and on a million planted vectors, at most 200 and 50 users), fresh (items that training never saw, placed by
    what describes them).

    worth takes the configuration `auto` and at most 2,000 test users, unless --users says otherwise. It needs the
    package `implicit` (`pip install "nann[baselines]"`). The results of other data sets stay in the report, by the name
    that `nann prepare` gave each; fresh keeps them too. It trains `auto` for 15% of its steps, or --steps, with and
    without id dropout, and needs test users with new items among their answers, as `nann prepare --protocol time-split`
    gives. filters compares with the vector databases that are installed
    (`pip install "nann[databases]"`).

    Writes a report with tables and plots, and experiments.json. Models and measurements are kept: run the same command
    again to go on after an interruption. After a change of the training code remove the cache folder.
    """
    from ..training.data.prepared import PreparedData
    from ..training.studies.execute import run_studies
    from ..training.studies.report import REPORT
    from ..training.studies.runs import Runs
    from ..training.studies.settings import study_settings
    from .prepare import complete_journey

    studies = REPORT.chosen(only)
    settings = study_settings(
        size,
        config=config,
        seeds=seeds,
        steps=steps,
        users=users,
        growth=parse_integers("--growth", growth),
        ablations=ablations,
    )
    if data is None:
        data = DEFAULT_DATA
        if not (data / "manifest.json").is_file():
            complete_journey(out=data)
    runs = Runs(PreparedData.load(data), cache, settings, say)
    command = as_typed(
        "nann experiments",
        size=size,
        config=config,
        only=only,
        seeds=seeds,
        steps=steps,
        users=users,
        growth=growth,
        ablations=ablations,
    )
    body = run_studies(studies, runs, settings, out, command=command, say=say)
    output.print(f"written to {out / REPORT.text_file} and {out / REPORT.results_file}")
    if json:
        print_json({key: value for key, value in body.items() if key != "studies"} | {"studies": list(body["studies"])})

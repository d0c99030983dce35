"""`nann experiments`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .prepare import DATA_FOLDER
from .support import JsonOption, as_typed, output, parse_integers, print_json, say

DEFAULT_DATA = DATA_FOLDER / "complete_journey"


def experiments(
    data: Annotated[
        Path | None, typer.Option(help=f"Prepared data set. Default: {DEFAULT_DATA}, prepared if it is not there.")
    ] = None,
    size: Annotated[str, typer.Option(help="quick (20 minutes on two cores) or full (meant for a GPU).")] = "quick",
    only: Annotated[str | None, typer.Option(help='Some studies: "table3,figure5". Default: all.')] = None,
    out: Annotated[Path, typer.Option(help="Folder of the report, the plots and experiments.json.")] = Path(
        "docs/results"
    ),
    cache: Annotated[Path, typer.Option(help="Where models and measurements are kept.")] = Path("build/experiments"),
    config: Annotated[str | None, typer.Option(help="Training configuration. Default: the size's.")] = None,
    seeds: Annotated[int | None, typer.Option(min=1, help="How many seeds. Default: the size's.")] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Training steps a model. Default: the size's.")] = None,
    users: Annotated[int | None, typer.Option(min=1, help="Measure with this many test users only.")] = None,
    growth: Annotated[
        str | None, typer.Option(help='Items of the synthetic corpora: "10000,1000000". Default: the size\'s.')
    ] = None,
    json: JsonOption = False,
) -> None:
    """Run the paper's experiments, and what people use today beside them, with one scorer as judge.

    Studies: table3, figure3 to figure7, readings (of the auxiliary loss), tuned, baselines, growth (of a synthetic
    corpus).

    Writes a report with tables and plots, and experiments.json. Models are trained once a configuration and data set
    and all measurements are kept: run the same command again to go on after an interruption. After a change of the
    training code remove the cache folder.
    """
    from ..training.data.prepared import PreparedData
    from ..training.studies.execute import run_studies
    from ..training.studies.report import REPORT
    from ..training.studies.runs import Runs
    from ..training.studies.settings import study_settings

    studies = REPORT.chosen(only)
    settings = study_settings(
        size, config=config, seeds=seeds, steps=steps, users=users, growth=parse_integers("--growth", growth)
    )
    if data is None:
        data = _complete_journey()

    runs = Runs(PreparedData.load(data), cache, settings, say)
    command = as_typed(
        "nann experiments", size=size, config=config, only=only, seeds=seeds, steps=steps, users=users, growth=growth
    )
    body = run_studies(studies, runs, settings, out, command=command, say=say)
    output.print(f"written to {out / REPORT.text_file} and {out / REPORT.results_file}")
    if json:
        print_json({key: value for key, value in body.items() if key != "studies"} | {"studies": list(body["studies"])})


def _complete_journey() -> Path:
    from .prepare import complete_journey

    if not (DEFAULT_DATA / "manifest.json").is_file():
        complete_journey(out=DEFAULT_DATA)
    return DEFAULT_DATA

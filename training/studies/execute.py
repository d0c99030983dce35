"""Runs studies and writes experiments.json, the plots and the Markdown report."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..reports.machine import provenance
from ..reports.runner import Measuring, run_parts
from ..reports.store import Json
from .report import REPORT
from .runs import Runs, Say
from .settings import StudySettings
from .study import Study

CACHE_FOLDER = "results"
_PACKAGES = ("nann", "torch", "numpy", "hnswlib")


def run_studies(
    studies: Sequence[Study],
    runs: Runs,
    settings: StudySettings,
    out: Path,
    *,
    command: str,
    say: Say = lambda line: None,
) -> Json:
    """Runs studies with `run_parts`; results computed before are read from the cache.

    Results of other studies in the experiments.json of `out` stay. `command` is the command as typed, for the
    provenance of the results.
    """
    runs.plan(config for study in studies for config in study.configs(settings))
    users = len(runs.queries.users)

    def inputs(study: Study) -> Json:
        return {
            "study": study.name,
            "data": runs.fingerprint,
            "users": users,
            "models": [runs.key(config) for config in study.configs(settings)],
            "inputs": study.inputs(settings),
            **study.data_inputs(runs.data),
        }

    made = provenance(
        command,
        _PACKAGES,
        size=settings.size,
        seeds=list(settings.seeds),
        users=users,
        configuration=settings.base.model_dump(mode="json", exclude={"search", "seed"}),
    )
    measuring = Measuring[Study](
        lambda study: study.run(runs, settings),
        inputs,
        runs.folder / CACHE_FOLDER,
        provenance=made,
        about={"data": str(runs.data.manifest["name"])},
    )
    return run_parts(REPORT, studies, out, measuring, say=say)

"""Runs studies and writes what they found: experiments.json, plots, the Markdown report."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from nann.durable_files import write_json

from ..reports.choose import chosen
from ..reports.store import Json, cached, read_object
from .plotting import require_matplotlib
from .provenance import provenance
from .registry import STUDIES
from .report import report
from .runs import Runs
from .settings import StudySettings
from .study import Study

RESULTS_FILE = "experiments.json"
REPORT_FILE = "experiments.md"
CACHE_FOLDER = "results"


def choose_studies(only: str | None) -> list[Study]:
    """The studies named in "table3,figure5"; None = all.

    Raises:
        ConfigError: if one of the names is none.
    """
    return chosen(only, STUDIES)


def run_studies(
    studies: Sequence[Study],
    runs: Runs,
    settings: StudySettings,
    out: Path,
    *,
    command: str,
    say: Callable[[str], None] = lambda line: None,
) -> Json:
    """Runs the studies; what was computed before is read. All is written after each, so nothing is lost on the way.

    Args:
        studies: in the order of the report.
        runs: the models.
        settings: of the studies.
        out: folder of the results. Other studies' results in its experiments.json stay.
        command: as typed, for the results' provenance.
        say: takes progress lines.

    Returns:
        The body of experiments.json.

    Raises:
        ConfigError: if matplotlib is missing, or experiments.json is another program's.
    """
    require_matplotlib()
    body = read_object(out / RESULTS_FILE)
    out.mkdir(parents=True, exist_ok=True)
    runs.plan(config for study in studies for config in study.configs(settings))
    for number, study in enumerate(studies, start=1):
        say(f"study {number} of {len(studies)}: {study.title}")
        stored = _result(study, runs, settings, command)
        data_name = str(runs.data.manifest["name"])
        body.update(study.headline(stored["result"], data_name))
        body["studies"] = {**body.get("studies", {}), study.name: {"data": data_name, **stored}}
        for name, plot in study.plots.items():
            plot(stored["result"], out / name)
        write_json(out / RESULTS_FILE, body)
        (out / REPORT_FILE).write_text(report(body), encoding="utf-8")
    return body


def _result(study: Study, runs: Runs, settings: StudySettings, command: str) -> Json:
    """`{provenance, result}`: computed, or as it was when it was computed."""
    users = len(runs.queries.users)
    inputs = {
        "study": study.name,
        "data": runs.fingerprint,
        "users": users,
        "models": [runs.key(config) for config in study.configs(settings)],
        "inputs": study.inputs(settings),
    }

    def compute() -> Json:
        result = study.run(runs, settings)
        return {"provenance": provenance(command, settings, users), "result": result}

    return cached(runs.folder / CACHE_FOLDER, inputs, compute)

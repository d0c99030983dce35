"""The command `nann`: from an interaction log to a Triton ensemble that answers."""

from __future__ import annotations

import sys
from typing import Annotated

import typer
from rich.markup import escape

import nann
from nann.errors import NannError

from .baselines import baselines
from .batch import batch
from .bench import bench
from .build_engine import build_engine
from .demo import demo
from .deploy import deploy, rollback
from .evaluate import evaluate
from .events import events
from .experiments import experiments
from .explore import explore
from .export import export
from .extras import advice
from .filters import app as filters_app
from .index import index
from .items import app as items_app
from .plan_shapes import plan_shapes
from .prepare import app as prepare_app
from .query import query
from .refresh import refresh
from .serve import serve
from .support import console
from .train import train
from .tune import tune

app = typer.Typer(
    name="nann",
    help=(
        "Retrieve with your deep ranking model itself: graph search under a neural scorer, served by Triton.\n\n"
        "From a log to an answer: prepare -> train -> index -> export -> evaluate -> tune -> serve -> query. "
        "`nann demo` runs these steps on Complete Journey."
    ),
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)


def _print_version(wanted: bool) -> None:
    if wanted:
        sys.stdout.write(f"nann {nann.__version__}\n")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """The options of `nann` itself."""


app.add_typer(prepare_app, name="prepare")
app.add_typer(filters_app, name="filters")
app.add_typer(items_app, name="items")
for command in (
    train,
    index,
    export,
    evaluate,
    baselines,
    tune,
    plan_shapes,
    build_engine,
    serve,
    deploy,
    rollback,
    refresh,
    query,
    explore,
    batch,
    events,
    demo,
    experiments,
    bench,
):
    app.command()(command)


def main() -> None:
    """Runs the command line. A user's mistake or a missing package ends with one line and exit code 2."""
    try:
        app()
    except NannError as error:
        console.print(f"[bold red]error:[/] {escape(str(error))}", soft_wrap=True)
        sys.exit(2)
    except ModuleNotFoundError as error:
        line = advice(error, sys.argv[1])
        if line is None:
            raise
        console.print(line, soft_wrap=True, markup=False, highlight=False)
        sys.exit(2)
    except OSError as error:  # a full disk, a folder that may not be written
        where = f"{error.filename}: " if error.filename else ""
        console.print(f"[bold red]error:[/] {escape(where + (error.strerror or str(error)))}", soft_wrap=True)
        sys.exit(2)
    except KeyboardInterrupt:
        console.print("interrupted")
        sys.exit(130)


if __name__ == "__main__":
    main()

"""`nann`: from an interaction log to a Triton ensemble that answers."""

from __future__ import annotations

import sys

import typer
from rich.markup import escape

from cli.bench import bench
from cli.build_engine import build_engine
from cli.demo import demo
from cli.deploy import deploy, rollback
from cli.evaluate import evaluate
from cli.experiments import experiments
from cli.export import export
from cli.index import index
from cli.plan_shapes import plan_shapes
from cli.prepare import app as prepare_app
from cli.query import query
from cli.serve import serve
from cli.support import console
from cli.train import train
from cli.tune import tune
from nann.errors import NannError

app = typer.Typer(
    name="nann",
    help=(
        "Retrieve with your deep ranking model itself: a graph walk under a neural scorer, served by Triton.\n\n"
        "The way from a log to an answer: prepare -> train -> index -> export -> evaluate -> tune -> serve -> query. "
        "`nann demo` goes it once on Complete Journey."
    ),
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)
app.add_typer(prepare_app, name="prepare")
for command in (
    train,
    index,
    export,
    evaluate,
    tune,
    plan_shapes,
    build_engine,
    serve,
    deploy,
    rollback,
    query,
    demo,
    experiments,
    bench,
):
    app.command()(command)


def main() -> None:
    """Runs the command line; a mistake of the user's ends with one line and exit code 2, never with a traceback."""
    try:
        app()
    except NannError as error:
        console.print(f"[bold red]error:[/] {escape(str(error))}", soft_wrap=True)
        sys.exit(2)
    except KeyboardInterrupt:
        console.print("interrupted")
        sys.exit(130)


if __name__ == "__main__":
    main()

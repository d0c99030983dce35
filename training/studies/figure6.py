"""Figure 6: how much a small random step from an item vector changes the score."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from ..config import TrainingConfig
from ..reports.plots import BLUE, GREEN, ORANGE, figure
from ..reports.store import Json
from ..reports.text import percent, table
from .runs import Runs, TrainedRun
from .settings import StudySettings
from .study import Study

_SEED = 0
_BLOCK = 16
_BINS = 60

Float64Array = npt.NDArray[np.float64]


@torch.inference_mode()
def score_changes(model: TrainedRun, top_k: int, epsilon: float) -> tuple[Float64Array, Float64Array]:
    """|s_u(e_v) - s_u(e_v + Delta)| and s_u(e_v) over each user's exact top K.

    Delta = eps * uniform(-1, 1), the same for every model by a fixed random seed. All is computed in double precision,
    since rounding errors of single precision could exceed the smallest changes.

    Returns:
        `float64[Q, K]` each.
    """
    network = copy.deepcopy(model.model).double()
    items = torch.from_numpy(np.ascontiguousarray(model.users.cut(top_k).exact)).long()
    rng = np.random.default_rng(_SEED)
    changes, scores = [], []
    for start in range(0, len(items), _BLOCK):
        block = slice(start, start + _BLOCK)
        queries = model.queries
        user = network.user_context(
            torch.from_numpy(queries.behaviors[block]), torch.from_numpy(queries.profiles[block])
        )
        vectors = network.item_vectors(items[block])  # [B, K, d]
        delta = torch.from_numpy(epsilon * rng.uniform(-1, 1, vectors.shape))
        clean = network.score(user, network.item_features(vectors, items[block]))
        moved = network.score(user, network.item_features(vectors + delta, items[block]))
        changes.append((clean - moved).abs().numpy())
        scores.append(clean.numpy())
    return np.concatenate(changes), np.concatenate(scores)


def summary(changes: Float64Array, scores: Float64Array) -> dict[str, float]:
    """Median and 99th percentile of the changes, the spread of a user's scores, and the median relative to it."""
    score_spread = float(scores.std(axis=1).mean())
    median = float(np.median(changes))
    return {
        "median": median,
        "p99": float(np.quantile(changes, 0.99)),
        "score_spread": score_spread,
        "median_relative": median / score_spread if score_spread else 0.0,
    }


def models(settings: StudySettings) -> dict[str, TrainingConfig]:
    """The three models of the paper, by their names in its legend."""
    return {
        "attention + aux": settings.config(),
        "attention": settings.config(auxiliary=False),
        "no attention": settings.config("no_attention", auxiliary=False),
    }


def _inputs(settings: StudySettings) -> Json:
    return {"epsilon": settings.epsilon, "top_k": settings.search.top_k, "seed": _SEED, "bins": _BINS}


def run(runs: Runs, settings: StudySettings) -> Json:
    """`bin_edges` of |change|, equal on a log scale; for each model the `shares` of pairs per bin and its `summary`."""
    top_k = settings.search.top_k
    measured = {
        name: score_changes(runs.get(config), top_k, settings.epsilon) for name, config in models(settings).items()
    }
    positive = np.concatenate([changes[changes > 0] for changes, _ in measured.values()])
    # Without this cut the few smallest changes would stretch the axis over empty decades.
    low, high = np.quantile(positive, [0.001, 1.0])
    edges = np.geomspace(low, high * (1 + 1e-9), _BINS + 1)
    result: Json = {"epsilon": settings.epsilon, "top_k": top_k, "bin_edges": edges.tolist(), "models": {}}
    for name, (changes, scores) in measured.items():
        counts = np.histogram(changes.clip(min=low), edges)[0]
        result["models"][name] = {"shares": (counts / changes.size).tolist(), **summary(changes, scores)}
    return result


def plot(result: Json, path: Path) -> None:
    """Plots one outline per model."""
    edges = result["bin_edges"]
    with figure(path, "How far a small step around an item vector moves the score") as (axes,):
        for (name, model), color in zip(result["models"].items(), (BLUE, ORANGE, GREEN), strict=True):
            shares = [100 * share for share in model["shares"]]
            axes.stairs(shares, edges, color=color, linewidth=1.8, label=name)
            axes.stairs(shares, edges, color=color, alpha=0.15, fill=True)
        axes.set_xscale("log")
        step = rf"$\Delta$ = {result['epsilon']:g} $\cdot$ uniform(-1, 1)"
        axes.set_xlabel(r"$|s_u(e_v) - s_u(e_v + \Delta)|$ [units of the score], " + step)
        axes.set_ylabel(f"share of the pairs (user, top {result['top_k']} item) [%]")
        axes.legend(loc="upper left")


def markdown(result: Json) -> str:
    """A sentence and the summaries."""
    columns = ("median", "p99", "score_spread")
    rows = [
        [name, *(f"{model[key]:.2e}" for key in columns), percent(model["median_relative"], 3)]
        for name, model in result["models"].items()
    ]
    medians = [result["models"][name]["median_relative"] for name in ("attention + aux", "attention")]
    ratio = medians[1] / medians[0] if medians[0] else float("inf")
    sentence = (
        f"Relative to the spread of a user's top scores, a step of eps {result['epsilon']:g} moves the score of "
        f"attention without the auxiliary loss {ratio:.2f} times as far as with it (medians)."
    )
    header = ["model", "median change", "99th percentile", "spread of the top scores", "median / spread"]
    return f"{sentence}\n\n{table(header, rows)}"


STUDY = Study(
    "figure6",
    "Figure 6: flatness around item vectors",
    run,
    markdown,
    {"figure6_flatness.png": plot},
    configs=lambda settings: list(models(settings).values()),
    inputs=_inputs,
)

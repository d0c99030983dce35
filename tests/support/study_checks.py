"""Each study's tables and plots against the numbers in its result."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure

from nann.training.reports.text import percent
from nann.training.studies import figures3_4
from nann.training.studies.curves import frontier
from nann.training.studies.fresh_text import LABELS as PLACED
from nann.training.studies.measures.other_retrievers import LABELS as RETRIEVERS
from nann.training.studies.measures.seeded_entry import LABELS as ENTRIES
from nann.training.studies.readings import READINGS
from nann.training.studies.study import Study
from nann.training.studies.table3 import METRICS

from .reports import curve, drawn, level, tables

Tables = list[list[dict[str, str]]]
Figures = dict[str, Figure]


def check_study(study: Study, result: Any, folder: Path) -> None:
    """Compares every cell and curve that shows a number with that number."""
    found = tables(study.markdown(result))
    figures = {name: drawn(plot, result, folder / name) for name, plot in study.plots.items()}
    _CHECKS[study.name](result, found, figures)


def percents(point: dict[str, float], *keys: str) -> list[str]:
    """Fractions as cells."""
    return [f"{100 * point[key]:.2f}%" for key in keys]


def points_of(points: list[dict[str, float]], x: str, y: str, scale: float = 1.0) -> list[tuple[float, float]]:
    """The points of a curve of `y` in percent over `x`."""
    return [pytest.approx((scale * point[x], 100 * point[y])) for point in points]


def columns(rows: list[dict[str, str]], *names: str) -> list[list[str]]:
    """These columns of a table, row by row."""
    return [[row[name] for name in names] for row in rows]


def _table3(result: Any, found: Tables, figures: Figures) -> None:
    (rows,) = found
    cells = [cell for row in result["cells"].values() for cell in row.values()]
    assert len(rows) == len(cells) == 6
    names = ("recall-all", "recall-retrieval", "recall-Δ", "coverage", "items scored")
    for row, cell in zip(columns(rows, *names), cells, strict=True):
        assert [one.split(" ± ")[0] for one in row] == percents(cell["mean"], *METRICS)
        spreads = [cell["spread"][metric] for metric in METRICS if cell["spread"][metric] is not None]
        assert [one.split(" ± ")[1] for one in row if "±" in one] == [f"{100 * value:.2f}" for value in spreads]


def _figures3_4(result: Any, found: Tables, figures: Figures) -> None:
    (rows,) = found
    methods = {method.name: method for each in figures3_4.METHODS.values() for method in each}
    shown = {
        name: frontier(points, "coverage") if methods[name].search == "beam" else points
        for name, points in result["curves"].items()
    }
    expected = [
        [name, *percents(point, "share_scored", "recall_retrieval", "coverage")]
        for name, points in shown.items()
        for point in points
    ]
    assert columns(rows, "method", "items scored", "recall", "coverage") == expected
    recalls, coverages = (figure.axes[0] for figure in figures.values())
    for name, points in shown.items():
        assert curve(coverages, name) == points_of(points, "share_scored", "coverage", 100)
    assert level(coverages, "exhaustive scoring") == 100
    for name, value in result["exhaustive"].items():
        assert level(recalls, f"exhaustive, {name}") == pytest.approx(100 * value)
    labels = [axes.get_ylabel() for axes in (recalls, coverages)]
    assert labels == [f"recall@{result['top_k']} [%]", f"coverage@{result['top_k']} [%]"]
    assert coverages.get_xlabel() == "items scored, share of the corpus [%]"
    assert coverages.get_xscale() == "log"


def _figure5(result: Any, found: Tables, figures: Figures) -> None:
    (rows,) = found
    names = ("recall", "coverage", "share_scored")
    expected = [[str(point["round"]), *percents(point, *names)] for point in result["rounds"]]
    assert columns(rows, "round", "recall", "coverage", "items scored") == expected
    recalls, coverages = figures["figure5_rounds.png"].axes
    assert curve(recalls, "beam-retrieval") == points_of(result["rounds"], "round", "recall")
    assert curve(coverages, "beam-retrieval") == points_of(result["rounds"], "round", "coverage")
    assert level(recalls, "exhaustive scoring") == pytest.approx(100 * result["recall_all"])
    assert recalls.get_ylabel() == f"recall@{result['search']['top_k']} [%]"
    assert coverages.get_xlabel() == "round of the ground layer"


def _figure6(result: Any, found: Tables, figures: Figures) -> None:
    (rows,) = found
    for row, (name, model) in zip(rows, result["models"].items(), strict=True):
        assert list(row.values()) == [
            name,
            *(f"{model[key]:.2e}" for key in ("median", "p99", "score_spread")),
            f"{100 * model['median_relative']:.3f}%",
        ]
    (axes,) = figures["figure6_flatness.png"].axes
    outlines = {patch.get_label(): patch.get_data() for patch in axes.patches if not patch.get_fill()}
    for name, model in result["models"].items():
        assert list(outlines[name].values) == pytest.approx([100 * share for share in model["shares"]])
        assert list(outlines[name].edges) == result["bin_edges"]


def _figure7(result: Any, found: Tables, figures: Figures) -> None:
    by_epsilon, by_k = found
    names = ("recall_all", "recall_retrieval", "coverage")
    expected = [[f"{point['epsilon']:g}", *percents(point, *names, "share_scored")] for point in result["epsilon"]]
    assert [list(row.values()) for row in by_epsilon] == expected
    expected = [[str(point["top_k"]), *percents(point, *names)] for point in result["top_k"]]
    assert [list(row.values()) for row in by_k] == expected
    recalls, coverages = figures["figure7_epsilon.png"].axes
    places = [{**point, "place": place} for place, point in enumerate(result["epsilon"])]
    assert curve(recalls, "recall-retrieval") == points_of(places, "place", "recall_retrieval")
    assert curve(coverages, "coverage") == points_of(places, "place", "coverage")
    assert [tick.get_text() for tick in coverages.get_xticklabels()] == [row["eps"] for row in by_epsilon]
    (axes,) = figures["figure7_top_k.png"].axes
    assert curve(axes, "NANN") == points_of(result["top_k"], "top_k", "coverage")


def _readings(result: Any, found: Tables, figures: Figures) -> None:
    (rows,) = found
    assert [row["auxiliary loss"] for row in rows] == list(READINGS.values())
    means = [result["readings"][reading]["mean"] for reading in READINGS]
    for row, mean in zip(columns(rows, "recall-retrieval", "coverage"), means, strict=True):
        assert [cell.split(" ± ")[0] for cell in row] == percents(mean, "recall_retrieval", "coverage")
    for axes, metric in zip(figures["auxiliary_readings.png"].axes, ("recall_retrieval", "coverage"), strict=True):
        assert [text.get_text() for text in axes.texts] == [f"{100 * mean[metric]:.2f}" for mean in means]
        assert [float(marks.lines[0].get_ydata()[0]) for marks in axes.containers] == pytest.approx(
            [100 * mean[metric] for mean in means]
        )


def _tuned(result: Any, found: Tables, figures: Figures) -> None:
    (rows,) = found
    for row, point in zip(rows, result["points"], strict=True):
        test = percents(point["test"], "coverage", "recall_delta", "share_scored")
        expected = [*percents(point, "wanted"), *percents(point["validation"], "coverage"), *test]
        assert [value for value in row.values() if value.endswith("%")] == expected
    (axes,) = figures["tuned.png"].axes
    for split in ("test", "validation"):
        points = [point[split] for point in result["points"]]
        assert curve(axes, f"{split} users") == points_of(points, "share_scored", "coverage", 100)


def _baselines(result: Any, found: Tables, figures: Figures) -> None:
    (rows,) = found
    everything, *others = (list(row.values()) for row in rows)
    assert everything == ["every item scored", f"{result['items']:,}", *percents(result, "recall_all"), "100.00%"]
    assert others == [
        [RETRIEVERS.get(name, name), f"{point['evaluations']:,.0f}", *percents(point, "recall", "coverage")]
        for name, point in result["baselines"].items()
    ]
    recalls, coverages = figures["baselines.png"].axes
    for name, points in result["curves"].items():
        assert curve(recalls, RETRIEVERS[name]) == points_of(points, "evaluations", "recall")
        assert curve(coverages, RETRIEVERS[name]) == points_of(points, "evaluations", "coverage")
    assert level(recalls, "every item scored") == pytest.approx(100 * result["recall_all"])


def _growth(result: Any, found: Tables, figures: Figures) -> None:
    (rows,) = found
    for row, size in zip(rows, result["sizes"], strict=True):
        assert row["items (synthetic)"] == f"{size['items']:,}"
        assert row["scored per user"] == f"{size['items_scored']:,.0f}"
        assert row["ef"] == ", ".join(map(str, size["search"]["ef"]))
        shown = [row["share scored"], row[f"coverage@{result['top_k']}"], row["recall-Delta"]]
        assert shown == percents(size, "share_scored", "coverage", "recall_delta")
    share, count = figures["growth.png"].axes
    (shares,), (counts,) = share.lines, count.lines
    assert list(shares.get_xdata()) == list(counts.get_xdata()) == [size["items"] for size in result["sizes"]]
    assert list(shares.get_ydata()) == [100 * size["share_scored"] for size in result["sizes"]]
    assert list(counts.get_ydata()) == [size["items_scored"] for size in result["sizes"]]


def _seeded(result: Any, found: Tables, figures: Figures) -> None:
    comparisons = [result["data"], *result["synthetic"]]
    assert len(found) == 2 * len(comparisons)
    for one, at, points in zip(comparisons, found[::2], found[1::2], strict=True):
        for row, values in zip(at, one["at"].values(), strict=True):
            known = [f"{values[name]:,.0f}" for name in ENTRIES if values[name] is not None]
            assert [row[label] for label in ENTRIES.values() if row[label][0].isdigit()] == known
        expected = [percents(point, "coverage", "recall") for name in ENTRIES for point in one["curves"][name]]
        assert columns(points, "coverage", "recall") == expected
    coverages, recalls = figures["seeded.png"].axes
    for name, points in result["data"]["curves"].items():
        assert curve(coverages, ENTRIES[name]) == points_of(points, "evaluations", "coverage")
        assert curve(recalls, ENTRIES[name]) == points_of(points, "evaluations", "recall")


def _worth(result: Any, found: Tables, figures: Figures) -> None:
    tables_left = iter(found)
    for one in result.values():
        methods, classes = next(tables_left), next(tables_left)
        names = ("recall_20", "recall_200", "ndcg_20")
        expected = []
        for name in ("deep", "two_sided"):
            seeds = one[name]["by_seed"]
            expected += [percents(each, *names) for each in ([one[name], *seeds] if len(seeds) > 1 else [one[name]])]
        expected += [percents(each, *names) for each in one["baselines"].values()]
        shown = columns(methods, "recall@20", "recall@200", "NDCG@20")
        assert [[cell.split(" ± ")[0] for cell in row] for row in shown] == expected
        *shares, above = ([cell for header, cell in row.items() if header != "method"] for row in classes)
        assert shares == [[percent(share) for share in each] for each in one["by_frequency"]["methods"].values()]
        known = [each for each in one["by_frequency"]["deep_above_als"] if each is not None]
        assert [cell.split(" ± ")[0] for cell in above if cell[0] in "+-"] == [
            f"{100 * each['difference']:+.2f}" for each in known
        ]
        if one["ablations"] is not None:
            rows = columns(next(tables_left), "recall@20", "recall@200", "NDCG@20")
            assert rows == [percents(each, *names) for each in one["ablations"]["forms"].values()]
    assert next(tables_left, None) is None


def _equal(result: Any, found: Tables, figures: Figures) -> None:
    (rows,) = found
    for row, measured in zip(rows, result["rows"], strict=True):
        assert row["items"] == measured["corpus"]
        for graph, words in (("every", "HNSW over every item"), ("bundle", "a bundle")):
            numbers = measured[graph]
            assert row[f"{words}: coverage"] == f"{100 * numbers['coverage']:.1f}%"
            assert row[f"{words}: scored"] == f"{100 * numbers['share_scored']:.1f}%"
            assert row[f"{words}: unreachable"] == f"{numbers['unreachable_items']:,}"


def _filters(result: Any, found: Tables, figures: Figures) -> None:
    compared = result["databases"]["rows"]
    parts = [part for corpus in result["corpora"] for part in (corpus["entries"], corpus["attributes"]) if part]
    top_k = result["top_k"]
    for rows, entries in zip(found, [*parts, compared], strict=True):
        for row, entry in zip(rows, entries, strict=True):
            ours = entry.get("ours", entry)
            assert row.get(f"coverage@{top_k}", row.get("ours")) == percents(ours, "coverage")[0]
            assert row["evaluations"] == f"{ours['evaluations']:,.0f}"
            for name in result["databases"]["versions"]:
                assert entry is ours or row[name] == percents(entry[name], "coverage")[0]
    coverages = figures["filters.png"].axes[0]
    for corpus in result["corpora"]:
        points = [each for each in corpus["entries"] if each["correlation"] == "negative"]
        assert curve(coverages, f"{corpus['corpus']}, negative") == points_of(points, "selectivity", "coverage", 100)


def _fresh(result: Any, found: Tables, figures: Figures) -> None:
    tables_left, kinds = iter(found), ("recall_new", "recall_old")
    for one in result.values():
        methods, rows, places = one["methods"], next(tables_left), next(tables_left)
        for name, label in PLACED.items():
            row = next(row for row in rows if row["new items are placed by"] == label)
            known = [percent(methods[name].get(key)) for key in ("recall", *kinds, "recall_alone", "listed")]
            assert [cell.split(" ± ")[0] for cell in list(row.values())[1:]] == known
        boosted = [each for measured in methods.values() for each in measured.get("boosted", [])]
        names = ("share of the lists", "new items", "other items", "all answers")
        assert columns(places, *names) == [percents(each, "listed", *kinds, "recall") for each in boosted]
    assert next(tables_left, None) is None


_CHECKS: dict[str, Callable[[Any, Tables, Figures], None]] = {
    "table3": _table3,
    "figure3": _figures3_4,
    "figure4": _figures3_4,
    "figure5": _figure5,
    "figure6": _figure6,
    "figure7": _figure7,
    "readings": _readings,
    "tuned": _tuned,
    "baselines": _baselines,
    "growth": _growth,
    "seeded": _seeded,
    "equal": _equal,
    "worth": _worth,
    "filters": _filters,
    "fresh": _fresh,
}

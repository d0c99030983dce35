"""The committed perf.json: the code writes the committed text from it; tables and plots show its numbers."""

from __future__ import annotations

import pytest
from support.benchmark_checks import check_benchmark
from support.reports import committed, tables

from nann.perf.benchmarks import before
from nann.perf.headlines import HEADLINES, value_at
from nann.perf.report import BENCHMARKS, REPORT


@pytest.fixture(scope="module")
def body():
    return committed(REPORT)


@pytest.mark.parametrize("benchmark", BENCHMARKS, ids=lambda benchmark: benchmark.name)
def test_tables_and_plots_show_the_numbers(body, benchmark, tmp_path):
    if benchmark.name == before.NAME and before.NAME not in body["benchmarks"]:
        pytest.skip("it was not measured: it needs another installation")
    check_benchmark(benchmark, body["benchmarks"][benchmark.name]["result"], tmp_path)


def test_the_figures_at_the_top_are_those_of_the_results_and_of_the_first_table(body):
    rows = {row[""]: row["measured"] for row in tables(REPORT.markdown(body))[0]}
    known = {headline.key: headline.words for headline in HEADLINES}
    for benchmark, entry in REPORT.entries(body):
        found = benchmark.headline(entry["result"])
        for key in known:
            if (value := value_at(found, key)) is not None:
                assert value_at(body, key) == value
                assert rows[known[key]] == f"{value:,.2f}"


def test_a_figure_that_was_not_measured_has_a_dash():
    rows = tables(REPORT.markdown({"start_s": 4.25}))[0]
    measured = {row[""]: row["measured"] for row in rows}
    assert measured["from process start to ready at 1.3 million items [s]"] == "4.25"
    assert list(measured.values()).count("–") == len(HEADLINES) - 1  # noqa: RUF001


def test_the_line_below_a_benchmark_says_where_its_result_comes_from(body):
    made = body["benchmarks"]["served"]["provenance"]
    line = (
        f"<sub>`{made['command']}`; real {made['corpora']['real']['items']:,} items ({made['corpora']['real']['id']}), "
        f"table1 {made['corpora']['table1']['items']:,} items"
    )
    text = REPORT.markdown(body)
    assert line in text
    assert f"{made['date']}, {made['took_s']} s</sub>" in text

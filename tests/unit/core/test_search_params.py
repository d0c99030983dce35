import dataclasses
from pathlib import Path

import numpy as np
import pytest

from nann.errors import RequestError
from nann.filters import where
from nann.search_params import REQUEST_PARAMETERS, SearchOptions, SearchParams, SeedParams


@pytest.mark.parametrize(
    "params",
    [
        SearchParams(1, (1,), (0,)),
        SearchParams(5, (1, 1, 5), (0, 0, 0)),  # upper layers may be narrower than top_k
        SearchParams(5, (100, 5), (3, 1)),
    ],
)
def test_the_smallest_that_is_allowed(params):
    assert len(params.ef) == len(params.rounds)


@pytest.mark.parametrize(
    ("top_k", "ef", "rounds", "message"),
    [
        (0, (5,), (1,), "top_k is 0; expected at least 1"),
        (-3, (5,), (1,), "top_k is -3; expected at least 1"),
        (5, (5, 5), (1,), "ef has 2 values and rounds 1; expected one per layer"),
        (5, (), (), r"ef is \[\]; expected at least 1 per layer"),
        (5, (0, 5), (1, 1), r"ef is \[0, 5\]; expected at least 1 per layer"),
        (5, (5, 5), (1, -1), r"rounds is \[1, -1\]; expected 0 or more per layer"),
        (2.7, (5,), (1,), "top_k is 2.7; expected a whole number"),
        (1, (5, 2.5), (1, 1), "ef is 2.5; expected a whole number"),
        (1, (5,), ("1",), "rounds is '1'; expected a whole number"),
        (6, (9, 5), (1, 1), "ef of the ground layer is 5 and top_k 6; expected ef >= top_k: raise the last value"),
    ],
)
def test_impossible_parameters_are_refused(top_k, ef, rounds, message):
    with pytest.raises(RequestError, match=message):
        SearchParams(top_k, ef, rounds)


def test_whole_numbers_of_numpy_are_whole_numbers():
    assert SearchParams(np.int64(2), (np.int32(5),), (1,)) == SearchParams(2, (5,), (1,))


@pytest.mark.parametrize(
    ("seeds", "message"),
    [
        ((0, 5), "seeds is 0; expected at least 1"),
        ((1.5, 5), "seeds is 1.5; expected a whole number"),
        ((6, 5), "seed_ef is 5 and seeds 6; expected seed_ef >= seeds"),
    ],
)
def test_impossible_seeds_are_refused(seeds, message):
    with pytest.raises(RequestError, match=message):
        SeedParams(*seeds)


def test_with_seeds_there_is_one_layer():
    params = SearchParams(5, (7,), (1,), SeedParams(10, 10))
    assert (params.entry, params.layer_count(2)) == ("seeds", 1)
    layers = SearchParams(5, (7, 7, 7), (1, 1, 1))
    assert (layers.entry, layers.layer_count(2)) == ("layers", 3)
    with pytest.raises(RequestError, match=r"ef is \[7, 7\]; expected one value with seeds: the search is"):
        SearchParams(5, (7, 7), (1, 1), SeedParams(10, 10))


def test_parameters_are_values():
    params = SearchParams(5, (5,), (1,))
    assert {params: 1}[SearchParams(5, (5,), (1,))] == 1
    with pytest.raises(dataclasses.FrozenInstanceError):
        params.top_k = 6


def test_options_replace_the_defaults():
    params = SearchParams(5, (3, 9), (1, 2))
    assert params.asked(SearchOptions()) == params
    assert params.asked(SearchOptions(top_k=4, ef=(1, 4), rounds=(0, 0))) == SearchParams(4, (1, 4), (0, 0))
    assert params.asked(SearchOptions(top_k=20)) == SearchParams(20, (3, 20), (1, 2))
    seeded = SearchParams(5, (9,), (2,), SeedParams(6, 8))
    assert seeded.asked(SearchOptions(seeds=7)).seeds == SeedParams(7, 8)
    assert seeded.asked(SearchOptions(seeds=30)).seeds == SeedParams(30, 30)
    assert seeded.asked(SearchOptions(seed_ef=6)).seeds == SeedParams(6, 6)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"top_k": 10, "ef": (3, 9)}, "ef of the ground layer is 9 and top_k 10"),
        ({"seeds": 3}, 'seeds came without entry "seeds"; expected both, or neither'),
        ({"seed_ef": 3}, 'seed_ef came without entry "seeds"'),
        ({"rounds": (1,)}, "ef has 2 values and rounds 1"),
    ],
)
def test_options_that_do_not_fit_the_defaults_are_refused(asked, message):
    with pytest.raises(RequestError, match=message):
        SearchParams(5, (3, 9), (1, 2)).asked(SearchOptions(**asked))


def test_options_are_kept_in_one_form():
    options = SearchOptions(top_k=np.int64(5), ef="1, 2,3", rounds=[np.int32(4), 5, 6], seeds="50")
    assert options == SearchOptions(top_k=5, ef=(1, 2, 3), rounds=(4, 5, 6), seeds=50)
    assert type(options.top_k) is type(options.rounds[0]) is int
    assert SearchOptions(ef=60) == SearchOptions(ef=np.array([60])) == SearchOptions(ef=(60,))
    assert SearchOptions().to_parameters() == {}
    assert options.to_parameters() == {"top_k": 5, "ef": "1,2,3", "rounds": "4,5,6", "seeds": 50}
    built = SearchOptions(filter=(where("price") < 20) & where("available").is_true())
    assert built.filter == "available = true and price < 20"
    assert built.to_parameters() == {"filter": built.filter}
    for value, kept in ((True, True), (np.bool_(False), False), ("true", True), ("False", False)):
        assert SearchOptions(exclude_history=value).to_parameters() == {"exclude_history": kept}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"top_k": 0}, "top_k: 0 is out of bounds; expected 1 to 2147483647"),
        ({"top_k": 2.5}, "top_k is 2.5; expected a whole number, 1 to 2147483647"),
        ({"deadline_ms": 10**13}, "deadline_ms: 10000000000000 is out of bounds; expected 1 to 1000000000000"),
        ({"ef": (1, -2)}, "ef: -2 is out of bounds; expected 1 to 2147483647"),
        ({"top_k": 10**20}, "top_k: 100000000000000000000 is out of bounds; expected 1 to 2147483647"),
        ({"deadline_ms": float("nan")}, "deadline_ms is nan; expected a whole number"),
        ({"ef": "x"}, "ef is 'x'; expected whole numbers separated by commas"),
        ({"ef": b"x"}, "ef is b'x'; expected whole numbers"),
        ({"ef": np.array(2.5)}, r"ef is array\(2.5\); expected whole numbers"),
        ({"ef": ()}, r"ef is \(\); expected whole numbers separated by commas, one for each layer, entry layer first"),
        ({"rounds": "1,x"}, "rounds is '1,x'; expected whole numbers separated by commas"),
        ({"ef": {"2": 20}}, "ef is {'2': 20}; expected whole numbers"),
        ({"entry": "top"}, 'entry is \'top\'; expected "layers" or "seeds"'),
        ({"exclude_history": 1}, "exclude_history is 1; expected true or false"),
        ({"exclude_history": "yes"}, "exclude_history is 'yes'; expected true or false"),
        ({"filter": 5}, "filter is 5; expected text"),
        ({"filter_name": " "}, "filter_name is ' '; expected text"),
        ({"filter": "available\0 and stock > 0"}, "expected text without NUL"),
        ({"on_deadline": ["error"]}, r'on_deadline is \[\'error\'\]; expected "error" or "partial"'),
    ],
)
def test_impossible_options_are_refused(options, message):
    with pytest.raises(RequestError, match=message):
        SearchOptions(**options)


def test_the_documented_table_has_each_parameter():
    """Changing any of these breaks every client."""
    rows = []
    for name, parameter in REQUEST_PARAMETERS.items():
        high = f"`{parameter.high}`" if isinstance(parameter.high, str) else f"{parameter.high:,}"
        words = ("true", "false") if parameter.flag else ("text",) if parameter.text else parameter.words
        takes = " or ".join(words) or f"{parameter.low} to {high}" + ", per layer" * parameter.per_layer
        default = f"the {parameter.default}'s" if parameter.default else "none"
        rows.append(f"| `{name}` | {takes} | {default} | {parameter.about} |")
    documented = (Path(__file__).parents[3] / "docs" / "operations.md").read_text()
    table = "\n".join(["| parameter | takes | default | what |", "|---|---|---|---|", *rows])
    assert f"\n{table}\n\n" in documented, f"docs/operations.md lacks this table:\n{table}"

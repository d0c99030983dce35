import json

import pytest

from nann.errors import BundleError, RequestError
from nann.search_params import SearchOptions, SearchParams, SeedParams
from nann.search_requests import ARRIVED, SearchBounds, TimeLimit, arrived_ns, own_parameters, parse_search

DEFAULTS = SearchParams(20, (10, 30, 50), (1, 2, 3))
BOUNDS = SearchBounds(max_top_k=200, max_ef=400, max_rounds=9)


SEEDED = SearchParams(20, (40,), (3,), SeedParams(60, 120))


def parse_seeded(**parameters: object) -> SearchParams:
    return parse_search(own_parameters(json.dumps(parameters)), DEFAULTS, {"seeds": SEEDED}, BOUNDS)[1]


def parse(item_count: int = 1000, **parameters: object) -> SearchParams:
    return parse_search(own_parameters(json.dumps(parameters)), DEFAULTS, {}, BOUNDS.of_corpus(item_count))[1]


@pytest.mark.parametrize("text", ["", "{}"])
def test_no_parameters_means_the_bundles(text):
    assert parse_search(own_parameters(text), DEFAULTS, {}, BOUNDS) == (SearchOptions(), DEFAULTS)


def test_everything_can_be_asked_for():
    assert parse(top_k=5, ef="7,8,9", rounds="0,1,2") == SearchParams(5, (7, 8, 9), (0, 1, 2))
    assert parse(top_k="5", ef=" 7, 8 ,9") == SearchParams(5, (7, 8, 9), DEFAULTS.rounds)


def test_a_plain_number_will_do_for_a_single_layer():
    _, params = parse_search({"ef": 60, "rounds": 2}, SearchParams(20, (50,), (3,)), {}, BOUNDS)
    assert params == SearchParams(20, (60,), (2,))


def test_top_k_alone_raises_the_ground_ef():
    assert parse(top_k=120).ef == (10, 30, 120)
    assert parse(top_k=7).ef == DEFAULTS.ef


def test_a_small_corpus_lowers_the_default_top_k_only():
    assert parse(item_count=12).top_k == 12
    with pytest.raises(RequestError, match="top_k: 13 is out of bounds; expected 1 to 12"):
        parse(item_count=12, top_k=13)


def test_tritons_own_parameters_are_left_alone():
    own = {"priority": 1, "timeout": 5, "binary_data_output": True, "triton_x": 1, "sequence_id": 3, "headers": "x"}
    assert parse(**own) == DEFAULTS


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        (
            {"topk": 5},
            "unknown request parameter 'topk'; did you mean 'top_k'[?] known are top_k, ef, rounds, entry, ",
        ),
        ({"top_k": 0}, "top_k: 0 is out of bounds; expected 1 to 200"),
        ({"top_k": 201}, "top_k: 201 is out of bounds; expected 1 to 200"),
        ({"top_k": -1}, "top_k: -1 is out of bounds"),
        ({"top_k": "many"}, "top_k is 'many'; expected a whole number, 1 to 200"),
        ({"top_k": "--5"}, "top_k is '--5'; expected a whole number"),
        ({"top_k": 2.5}, "top_k is 2.5; expected a whole number"),
        ({"top_k": True}, "top_k is True; expected a whole number"),
        ({"ef": "10,401,50"}, "ef: 401 is out of bounds; expected 1 to 400"),
        ({"ef": "10,0,50"}, "ef: 0 is out of bounds"),
        ({"ef": "10,20"}, "ef is '10,20'; expected 3 whole numbers separated by commas, one for each layer"),
        ({"ef": "10,20,"}, "ef is '10,20,'; expected 3 whole numbers"),
        ({"ef": ""}, "ef is ''; expected 3 whole numbers"),
        ({"ef": 100}, "ef is 100; expected 3 whole numbers"),
        ({"ef": True}, "ef is True; expected 3 whole numbers"),
        ({"ef": [1, 2.5, 3]}, "ef is .1, 2.5, 3.; expected 3 whole numbers"),
        ({"rounds": "1,2,10"}, "rounds: 10 is out of bounds; expected 0 to 9"),
        ({"rounds": "1,x,1"}, "rounds is '1,x,1'; expected 3 whole numbers"),
        ({"ef": "10,20,19"}, "ef of the ground layer is 19 and top_k 20"),
    ],
)
def test_bad_parameters(parameters, message):
    with pytest.raises(RequestError, match=message):
        parse(**parameters)


@pytest.mark.parametrize(
    ("params", "bound"),
    [
        (SearchParams(201, (300,), (1,)), "max_top_k is 200"),
        (SearchParams(20, (500,), (1,)), "max_ef is 400"),
        (SearchParams(20, (50,), (10,)), "max_rounds is 9"),
    ],
)
def test_a_bundle_may_not_recommend_more_than_the_server_allows(params, bound):
    BOUNDS.check_defaults(DEFAULTS, 1000)
    with pytest.raises(BundleError, match=bound):
        BOUNDS.check_defaults(params, 1000)


def test_entry_by_seeds_has_defaults_of_its_own():
    assert parse_seeded() == DEFAULTS
    assert parse_seeded(entry="layers") == DEFAULTS
    assert parse_seeded(entry="seeds") == SEEDED
    asked = parse_seeded(entry="seeds", seeds=70, seed_ef="90", ef=50, rounds="2", top_k=5)
    assert asked == SearchParams(5, (50,), (2,), SeedParams(70, 90))
    # The reverse: entry "seeds" by default, "layers" if the request sets it.
    swapped = {"layers": DEFAULTS}
    assert parse_search({}, SEEDED, swapped, BOUNDS)[1] == SEEDED
    assert parse_search({"entry": "layers"}, SEEDED, swapped, BOUNDS)[1] == DEFAULTS
    assert parse_search({"seeds": 10}, SEEDED, swapped, BOUNDS)[1].seeds == SeedParams(10, 120)


def test_more_seeds_raise_the_light_walks_ef():
    assert parse_seeded(entry="seeds", seeds=300).seeds == SeedParams(300, 300)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"entry": "top"}, 'entry is \'top\'; expected "layers" or "seeds"'),
        ({"entry": 1}, 'entry is 1; expected "layers" or "seeds"'),
        ({"seeds": 5}, 'seeds came without entry "seeds"; expected both, or neither'),
        ({"entry": None}, 'entry is None; expected "layers" or "seeds"'),
        ({"entry": "layers", "seed_ef": 5}, 'seed_ef came without entry "seeds"'),
        ({"entry": "seeds", "seeds": 401}, "seeds: 401 is out of bounds; expected 1 to 400"),
        ({"entry": "seeds", "seeds": 0}, "seeds: 0 is out of bounds"),
        ({"entry": "seeds", "seeds": "x"}, "seeds is 'x'; expected a whole number, 1 to 400"),
        ({"entry": "seeds", "seed_ef": 401}, "seed_ef: 401 is out of bounds"),
        ({"entry": "seeds", "seed_ef": 59}, "seed_ef is 59 and seeds 60; expected seed_ef >= seeds"),
        (
            {"entry": "seeds", "ef": "10,30,50"},
            "ef is '10,30,50'; expected one whole number, since this search walks the ground layer alone",
        ),
    ],
)
def test_bad_seeds(parameters, message):
    with pytest.raises(RequestError, match=message):
        parse_seeded(**parameters)


def test_seeds_are_within_the_bounds_too():
    BOUNDS.check_defaults(SEEDED, 1000)
    with pytest.raises(BundleError, match="max_ef is 400"):
        BOUNDS.check_defaults(SearchParams(20, (40,), (3,), SeedParams(60, 500)), 1000)


def test_no_more_items_than_the_largest_ef_can_be_asked_for():
    with pytest.raises(RequestError, match="top_k: 51 is out of bounds; expected 1 to 50"):
        parse_search({"top_k": 51}, SearchParams(5, (30,), (1,)), {}, SearchBounds(200, 50, 9).of_corpus(1000))


@pytest.mark.parametrize(
    ("parameters", "limit"),
    [
        ({}, TimeLimit(800, "partial")),
        ({"deadline_ms": 50}, TimeLimit(50, "partial")),
        ({"deadline_ms": "50", "on_deadline": "error"}, TimeLimit(50, "error")),
        ({"deadline_ms": 60_000}, TimeLimit(800, "partial")),  # the server's own deadline is the longest
    ],
)
def test_time_limits(parameters, limit):
    assert TimeLimit(800, "partial").asked(SearchOptions.read(parameters)) == limit


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"deadline_ms": 0}, "deadline_ms: 0 is out of bounds; expected 1 to"),
        ({"deadline_ms": -1}, "deadline_ms: -1 is out of bounds"),
        ({"deadline_ms": 0.5}, "deadline_ms is 0.5; expected a whole number"),
        ({"deadline_ms": None}, "deadline_ms is None; expected a whole number"),
        ({"on_deadline": "wait"}, 'on_deadline is \'wait\'; expected "error" or "partial"'),
        ({"on_deadline": 1}, "on_deadline is 1; expected"),
    ],
)
def test_bad_time_limits(parameters, message):
    with pytest.raises(RequestError, match=message):
        parse(**parameters)


def test_without_bounds_and_with_names_of_other_things():
    options, params = parse_search({"top_k": 5000, "behavior_item_ids": [1]}, DEFAULTS, {})
    assert (options, params) == (SearchOptions(top_k=5000), SearchParams(5000, (10, 30, 5000), (1, 2, 3)))


def test_all_items_may_be_scored_where_they_are_few():
    assert parse(entry="all") == SearchParams(20, (20,), (0,), every_item=True)
    assert parse(entry="all", top_k=30) == SearchParams(30, (30,), (0,), every_item=True)
    with pytest.raises(RequestError, match=r'entry is "all", ef .*; expected one ef, no rounds and no seeds'):
        parse(entry="all", rounds=2)
    BOUNDS.check_all(400)
    with pytest.raises(RequestError, match='entry "all" would score all 401 items; expected a corpus of at most 400'):
        BOUNDS.check_all(401)


def test_an_entry_that_the_bundle_can_not_serve():
    with pytest.raises(
        RequestError, match='entry is \'seeds\'; expected "layers" or "all": this bundle\'s model has no'
    ):
        parse(entry="seeds")


def test_when_a_request_came():
    assert arrived_ns("") is None
    assert arrived_ns('{"top_k": 3}') is None
    assert arrived_ns(f'{{"{ARRIVED}": 1, "top_k": 3, "{ARRIVED}": 77}}') == 77
    assert arrived_ns(f'{{"{ARRIVED}": "x"}}') is None
    assert own_parameters(f'{{"{ARRIVED}": 77, "top_k": 3}}') == {"top_k": 3}

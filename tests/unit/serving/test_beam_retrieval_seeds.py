"""Searches of the model `beam_retrieval` that enter by seeds."""

import numpy as np
import pytest
from support import tiny_bundle, triton_fakes
from support.tiny_requests import ask, ask_light, nearest, nothing

from nann.errors import BundleError


def test_requests_of_one_batch_may_enter_by_layers_and_by_seeds(seeded_model):
    requests = [ask_light(12), ask_light(22, entry="seeds"), ask_light(7, entry="seeds", seeds=1, rounds=5, top_k=5)]
    together = seeded_model.execute(requests)
    for response, place, count in zip(together, (12, 22, 7), (3, 3, 5), strict=True):
        np.testing.assert_array_equal(response.arrays()["item_ids"], [nearest(place, count)])
    layers, seeds, _ = (int(response.arrays()["items_scored"][0, 0]) for response in together)
    assert seeds < layers  # four seeds and what is beside them
    alone = [seeded_model.execute([request])[0].arrays() for request in requests]
    for one, other in zip(together, alone, strict=True):
        for name, array in one.arrays().items():
            np.testing.assert_array_equal(array, other[name], err_msg=name)


def test_the_walk_repairs_seeds_that_lie_beside(seeded_model):
    request = ask_light(15, light_place=11, entry="seeds", seeds=2, rounds=9)
    np.testing.assert_array_equal(seeded_model.execute([request])[0].arrays()["item_ids"], [nearest(15, 3)])


def test_a_search_by_seeds_also_starts_from_the_users_own_items(seeded_model):
    far = {"light_place": 28, "entry": "seeds", "seeds": 1, "rounds": 0, "top_k": 1}
    alone, with_own = (seeded_model.execute([ask_light(4, own=own, **far)])[0].arrays() for own in ((), (4, 5, 4)))
    assert alone["item_ids"] != nearest(4, 1)
    np.testing.assert_array_equal(with_own["item_ids"], [nearest(4, 1)])
    assert with_own["items_scored"] == alone["items_scored"] + 2  # each once


def test_behaviours_of_another_bundle_are_refused(seeded_model):
    bad, good = seeded_model.execute([ask_light(4, own=(tiny_bundle.ITEMS,)), ask_light(4)])
    assert (bad.error().code(), good.has_error()) == ("INVALID_ARG", False)
    assert f"expected -1 to {tiny_bundle.ITEMS - 1}" in bad.error().message()


def test_a_light_part_that_is_no_number_fails_its_request_alone(seeded_model):
    bad, good = seeded_model.execute([ask_light(3, light_place=float("nan"), entry="seeds"), ask_light(3)])
    assert (bad.error().code(), good.has_error()) == ("INTERNAL", False)
    assert "light part of user_state holds NaN" in bad.error().message()
    tensors = {"user_state": np.zeros((1, 1), np.float32), "behaviors": nothing(1)}
    narrow = triton_fakes.Request(tensors, '{"entry": "seeds"}')
    assert "user_state has shape [1, 1]; expected [B, 2 or more]" in seeded_model.execute([narrow])[0].error().message()


def test_without_a_light_score_seeds_are_refused(model):
    (response,) = model.execute([ask(3, entry="seeds")])
    assert (
        'entry is \'seeds\'; expected "layers" or "all": this bundle\'s model has no light'
        in response.error().message()
    )


def test_a_bundle_that_recommends_seeds_without_a_light_score_does_not_load(tmp_path):
    from nann.python_backend.search.retriever import Retriever
    from nann.search_requests import SearchBounds, TimeLimit

    bundle = tiny_bundle.make_bundle(tmp_path / "bundle", search_by_entry={"seeds": tiny_bundle.SEEDED})
    with pytest.raises(BundleError, match=r"recommends entry 'seeds' and has no light_vectors\.npy"):
        Retriever(bundle, SearchBounds(20, 25, 30), TimeLimit(1000))

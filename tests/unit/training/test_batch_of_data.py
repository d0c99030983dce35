"""`nann batch` for the users of a prepared data set."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from support.cli_commands import nann
from support.reference import OfflineEnsemble

from nann.bundle import Bundle
from nann.errors import DataError
from nann.search_params import SearchOptions
from nann.training.batch import histories as histories_module
from nann.training.batch.answers import BundleAnswers, SearchedBundle
from nann.training.batch.histories import Histories

pytestmark = pytest.mark.heavy


def test_users_of_a_prepared_data_set_with_their_profiles(data_folder, data, exported_bundle, tmp_path):
    given = ("batch", "--data", data_folder, "--bundle", exported_bundle)
    assert nann(*given, "--out", tmp_path / "out").code == 0
    assert nann(*given, "--out", tmp_path / "without", "--no-profiles").code == 0
    answers, without = (pl.read_parquet(tmp_path / name / "answers") for name in ("out", "without"))
    assert answers["user"].to_list() == data.user_ids.to_list()
    offline = OfflineEnsemble(Bundle.open(exported_bundle))
    for user in range(0, data.user_count, 10):
        ids = data.item_ids[data.behavior_items[data.user_first[user] : data.user_end[user]]].tolist()
        for found, codes in ((answers, data.user_profiles[user].tolist()), (without, None)):
            expected, scores, _ = offline.retrieve(ids, profile=codes)
            np.testing.assert_allclose(found["scores"][user].to_list(), scores, rtol=1e-4, atol=1e-5)
            assert len(set(found["item_ids"][user]) & set(expected.tolist())) >= len(expected) - 1, "but for ties"
    assert not answers["scores"].equals(without["scores"])


def test_profiles_of_another_data_set_are_refused(data, exported_bundle):
    other = replace(Histories.of_data(data), profile_fields=({"name": "shoe size", "values": ["42"]},))
    with pytest.raises(
        DataError, match=r"are not those that .* was made with; use its own data set, or .*--no-profiles"
    ):
        BundleAnswers(SearchedBundle(exported_bundle, SearchOptions())).answer(other)


def test_the_newest_items_of_a_long_history(data, monkeypatch):
    monkeypatch.setattr(histories_module, "MOST_ITEMS", 3)
    found = Histories.of_data(data)
    for user, items in enumerate(found.lists()):
        rows = slice(max(data.user_first[user], data.user_end[user] - 3), data.user_end[user])
        assert items.tolist() == data.item_ids[data.behavior_items[rows]].tolist()

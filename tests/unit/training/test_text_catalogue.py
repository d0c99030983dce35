"""From a log with text ids to an exported bundle: all is as with numbers, but for the ids."""

from __future__ import annotations

import json
import shutil

import numpy as np
import polars as pl
import pytest

from nann.bundle import ITEM_IDS_FILE, Bundle
from nann.bundle_check import check_servable
from nann.errors import DataError
from nann.item_ids import TEXT
from nann.training.checkpoint import Checkpoint
from nann.training.config import ProfileConfig
from nann.training.data.prepared import PreparedData
from nann.training.search.evaluate import evaluate_bundle
from nann.training.search.pipeline import export_checkpoint, index_checkpoint
from nann.training.search.shape_plan import read_requests
from nann.training.train import train

pytestmark = pytest.mark.heavy


@pytest.fixture(scope="module")
def text_data(data_folder, tmp_path_factory) -> PreparedData:
    folder = shutil.copytree(data_folder, tmp_path_factory.mktemp("texts") / "data")
    items = pl.read_parquet(folder / "items.parquet")
    number = pl.col("item_id").cast(pl.String).str.zfill(6)
    items.with_columns(pl.format("sku-{}é", number).alias("item_id")).write_parquet(folder / "items.parquet")
    return PreparedData.load(folder)


@pytest.fixture(scope="module")
def text_bundle(text_data, config, tmp_path_factory) -> Bundle:
    folder = tmp_path_factory.mktemp("text_bundle")
    profiled = config.model_copy(update={"model": config.model.model_copy(update={"profile": ProfileConfig()})})
    checkpoint = Checkpoint.load(train(text_data, profiled, folder / "train").checkpoint)
    export_checkpoint(checkpoint, text_data, index_checkpoint(checkpoint, text_data, folder / "bundle", threads=1))
    return Bundle.open(folder / "bundle")


def test_only_the_ids_differ(text_bundle, exported_bundle, text_data):
    check_servable(text_bundle)
    files, expected = text_bundle.manifest["files"], Bundle.open(exported_bundle).manifest["files"]
    assert {name for name in files if files[name] != expected.get(name)} == {ITEM_IDS_FILE}
    assert files.keys() == expected.keys()
    np.testing.assert_array_equal(text_bundle.item_ids, text_data.item_ids)


def test_evaluations_are_equal(text_bundle, exported_bundle, text_data, data):
    found, wanted = (
        evaluate_bundle(bundle, of, users=10)
        for bundle, of in ((text_bundle, text_data), (Bundle.open(exported_bundle), data))
    )
    assert found == wanted
    with pytest.raises(DataError, match=r"are not the .* items of the data set"):
        evaluate_bundle(text_bundle, data, users=10)


def test_requests_to_replay(text_bundle, exported_bundle, tmp_path):
    numbers = Bundle.open(exported_bundle)

    def logged(bundle: Bundle) -> object:
        ids = bundle.id_kind.plain(bundle.item_ids)
        bodies = [
            {"behavior_item_ids": ids[:3], "user_profile": [1, 1]},
            {"behavior_item_ids": []},
            {"behavior_item_ids": ids[5:20], "exclude_item_ids": ids[30:33], "allow_item_ids": ids[25:60]},
            {"behavior_item_ids": ids[:2], "exclude_history": True, "exclude_item_ids": []},
        ]
        (tmp_path / "log").write_text("\n".join(map(json.dumps, bodies)), encoding="utf-8")
        return read_requests(tmp_path / "log", bundle)

    found, wanted = logged(text_bundle), logged(numbers)
    np.testing.assert_array_equal(found.behaviors, wanted.behaviors)
    for ours, theirs in zip(found.blocked, wanted.blocked, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    (tmp_path / "log").write_text('{"behavior_item_ids": [1]}')
    with pytest.raises(DataError, match=r"log, line 1: item ids are \[1\]; expected a list of texts"):
        read_requests(tmp_path / "log", text_bundle)


def test_a_bundle_of_texts_is_of_its_data_set(text_bundle, text_data):
    assert (text_bundle.id_kind, text_data.id_kind) == (TEXT, TEXT)
    queries = text_data.queries("test", text_bundle.sequence_length)
    np.testing.assert_array_equal(text_bundle.features.behaviors(queries.external_ids)[0], queries.behaviors)

"""The exported item encoder against the model's own tables, from the attributes as a table of items gives them."""

from __future__ import annotations

import shutil
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from support.tiny_log import ITEMS, write_log

from nann.bundle import ITEM_ENCODER_FILE, ITEM_FIELDS_FILE, Bundle
from nann.errors import BundleError, RequestError, ScorerError
from nann.item_encoder import ItemEncoder
from nann.training.checkpoint import Checkpoint
from nann.training.config import KernelConfig, StartConfig
from nann.training.data.custom_log import LogColumns, read_log
from nann.training.data.item_table import ItemTable
from nann.training.data.prepare import prepare
from nann.training.data.prepared import PreparedData
from nann.training.data.protocol import Protocol
from nann.training.export import item_encoder as module
from nann.training.export.item_encoder import item_codes, onnx_encoder
from nann.training.export.onnx_export import export_to_bundle
from nann.training.export.serving_modules import row_modules, serving_modules
from nann.training.search.pipeline import export_checkpoint, index_checkpoint
from nann.training.train import train

pytestmark = pytest.mark.heavy

UNSEEN = np.array([3, 17, 40], np.int32)
FORMS = {
    "attention": {"architecture": "attention"},
    "two_sided": {"architecture": "two_sided"},
    "heads": {"architecture": "kernel", "kernel": KernelConfig(heads=2, attended=5)},
    "repeats": {"architecture": "kernel", "kernel": KernelConfig(heads=0, repeats=True)},
}


@pytest.fixture(scope="module")
def described(tmp_path_factory):
    """A log whose items have every kind of attribute; three of them were never trained on."""
    folder = tmp_path_factory.mktemp("described")
    rng = np.random.default_rng(5)
    words = [[f"w{word}" for word in rng.choice(9, rng.integers(4), replace=False)] for _ in range(ITEMS)]
    pl.DataFrame(
        {
            "item": range(1, ITEMS + 1),
            "brand": [f"b{number % 40}" if number % 7 else None for number in range(ITEMS)],
            "words": ["|".join(each) for each in words],
            "price": [
                None if number % 11 == 0 else float(price) for number, price in enumerate(rng.normal(size=ITEMS))
            ],
            "size": rng.integers(5, size=ITEMS),
            "sku": [f"sku {number}" for number in range(ITEMS)],
        }
    ).write_csv(folder / "items.csv")
    columns, table = (
        LogColumns("user", "item", "time", category="category"),
        ItemTable(folder / "items.csv", numbers=("price",)),
    )
    log = write_log(folder / "log.csv")
    protocol = Protocol(validation_users=10, test_users=20)
    prepare(lambda scratch: read_log([log], columns, scratch, items=table), folder / "data", protocol)
    data = PreparedData.load(folder / "data")
    counts = data.train_counts.copy()
    counts[UNSEEN] = 0
    return replace(data, train_counts=counts)


@pytest.fixture(scope="module", params=FORMS)
def exported(request, described, config, tmp_path_factory):
    """The model and its exported bundle."""
    folder = tmp_path_factory.mktemp(request.param)
    model = config.model.model_copy(update={"id_dropout": 0.3, **FORMS[request.param]})
    start = StartConfig(steps=5, batch_size=32, negatives=15) if request.param == "heads" else None
    settings = config.model_copy(update={"model": model, "start": start})
    checkpoint = Checkpoint.load(train(described, settings, folder / "train").checkpoint)
    bundle = index_checkpoint(checkpoint, described, folder / "bundle", threads=1)
    export_checkpoint(checkpoint, described, bundle)
    return checkpoint.restore(described), Bundle.open(bundle.path)


def encoder_of(bundle):
    return ItemEncoder(bundle, onnx_encoder(bundle.path / ITEM_ENCODER_FILE))


def as_given(data, items):
    """The items as a user describes them."""
    rows = data.attributes[items.tolist()].to_dicts()
    return [
        {**row, "category": data.category_labels[data.item_categories[item]]}
        for row, item in zip(rows, items, strict=True)
    ]


def test_attributes_have_the_codes_of_training(described, exported):
    _, bundle = exported
    items = np.arange(described.item_count, dtype=np.int32)
    coded, expected = encoder_of(bundle).codes.encode(as_given(described, items)), item_codes(described, items)
    assert [sorted(set(row) - {-1}) for row in coded.codes.tolist()] == [
        sorted(set(row) - {-1}) for row in expected.tolist()
    ]


def test_unseen_items_are_where_the_bundle_has_them(described, exported):
    model, bundle = exported
    placed = encoder_of(bundle).encode(as_given(described, UNSEEN))
    rows = row_modules(model)[2][UNSEEN]
    assert placed.rows.shape == rows.shape
    own = serving_modules(model)[1].items.shape[1]  # behind them digits of the item's index, which a new item has not
    np.testing.assert_allclose(placed.rows[:, :own], rows[:, :own], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(placed.vectors, bundle.item_vectors[UNSEEN], rtol=1e-4, atol=1e-5)
    if bundle.light_vectors is None:
        assert placed.light is None
    else:
        np.testing.assert_allclose(placed.light, bundle.light_vectors[UNSEEN], rtol=1e-4, atol=1e-5)


def test_items_that_training_saw_are_elsewhere(described, exported):
    _, bundle = exported
    placed = encoder_of(bundle).encode(as_given(described, np.array([4, 5])))
    assert np.abs(placed.vectors - bundle.item_vectors[[4, 5]]).max() > 1e-3


def test_an_item_of_unknown_values_has_a_place_too(exported):
    _, bundle = exported
    placed = encoder_of(bundle).encode([{}, {"brand": "never seen", "words": "never|w1"}])
    assert np.isfinite(placed.rows).all()
    assert placed.unknown_values == 2


def test_an_export_that_differs_is_refused(described, exported):
    model, bundle = exported
    run = onnx_encoder(bundle.path / ITEM_ENCODER_FILE)

    def wrong(codes):
        outputs = run(codes)
        return {**outputs, "item_vector": outputs["item_vector"] + 0.1}

    items = np.arange(9, dtype=np.int32)
    checked = module.ItemEncoderModule(model)
    module._check(checked, run, item_codes(described, items), items)
    with pytest.raises(ScorerError, match="item_vector of the exported item encoder differs from torch by"):
        module._check(checked, wrong, item_codes(described, items), items)


def test_modules_of_ones_own_take_the_encoder_away(exported, tmp_path):
    model, bundle = exported
    copied = Bundle.open(shutil.copytree(bundle.path, tmp_path / "bundle"))
    export_to_bundle(copied, *serving_modules(model))
    changed = Bundle.open(copied.path)
    assert not {ITEM_ENCODER_FILE, ITEM_FIELDS_FILE} & set(changed.manifest["files"])
    assert not (changed.path / ITEM_ENCODER_FILE).exists()


def test_a_bundle_without_id_dropout_has_none(exported_bundle):
    with pytest.raises(
        BundleError, match=r"has no item_encoder.onnx, so new items can't be placed .*: train with model.id_dropout"
    ):
        ItemEncoder(Bundle.open(exported_bundle), lambda codes: {})


def test_bad_attributes_are_refused(exported):
    with pytest.raises(RequestError, match="item 1 of 1: its 'price' is 'dear'; expected a finite number"):
        encoder_of(exported[1]).encode([{"price": "dear"}])
    with pytest.raises(RequestError, match="item 1 of 1: it has an attribute 'colour'; expected some of brand, catego"):
        encoder_of(exported[1]).encode([{"colour": "red"}])

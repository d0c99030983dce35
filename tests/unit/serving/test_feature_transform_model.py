import numpy as np
import pytest
from support import tiny_bundle, triton_fakes

from nann.item_ids import TEXT

HISTORY = {"max_stored_length": "6", "history_timeout_ms": "1000"}


@pytest.fixture
def model(model_args):
    from nann.python_backend.models.feature_transform import TritonPythonModel

    model = TritonPythonModel()
    model.initialize(model_args("feature_transform", max_request_length="9", max_list_length="3", **HISTORY))
    return model


def ask(ids, **tensors):
    return triton_fakes.Request({"behavior_item_ids": np.array(ids, np.int64), **tensors})


def test_ids_become_indices_and_unknown_ones_are_counted(model):
    ids = tiny_bundle.item_ids()
    (response,) = model.execute([ask([[5, ids[3], 0, ids[4]], [0, 0, -1, 0]])])
    arrays = response.arrays()
    np.testing.assert_array_equal(arrays["behaviors"], [[-1, -1, 3, 4], [-1] * 4])
    np.testing.assert_array_equal(arrays["unknown_items"], [[1], [0]])
    np.testing.assert_array_equal(arrays["profile_codes"], [[0], [0]])
    model.finalize()
    assert triton_fakes.Metric.values["nann_unknown_items_total"] == 1


def test_requests_of_different_length_and_one_bad_one(model):
    good, long, empty, float_ids = model.execute(
        [
            ask([[100]]),
            ask([[100] * 10]),
            ask(np.zeros((1, 0))),
            triton_fakes.Request({"behavior_item_ids": np.ones((1, 2))}),
        ]
    )
    assert not good.has_error()
    assert "behavior_item_ids has 10 ids per user; expected at most 9" in long.error().message()
    np.testing.assert_array_equal(empty.arrays()["behaviors"], [[-1] * 4])
    assert "behavior_item_ids has dtype float64" in float_ids.error().message()
    assert {response.error().code() for response in (long, float_ids)} == {"INVALID_ARG"}


def test_a_profile_where_the_model_knows_none_is_refused(model):
    (response,) = model.execute([ask([[100]], user_profile=np.array([[3, 4]]))])
    assert "user_profile came, and the model knows no user profile" in response.error().message()


def test_the_key_of_a_request_goes_with_its_features(model):
    behaviors = np.array([[1], [2]], np.int64)
    keys = [triton_fakes.Request({"behavior_item_ids": behaviors}, text) for text in ('{"request_key":-7}', "{}", "")]
    assert [answer.arrays()["origin"][:, 1].tolist() for answer in model.execute(keys)] == [[-7, -7], [0, 0], [0, 0]]
    for bad in ('"x"', "1.5", "true", str(2**63)):
        (refused,) = model.execute([triton_fakes.Request({"behavior_item_ids": behaviors}, f'{{"request_key":{bad}}}')])
        assert "request_key is" in refused.error().message()
        assert "expected a 64-bit signed number" in refused.error().message()


def origin_of(model, ids, parameters="{}", **lists):
    """The lists in the tensor `origin` of a request."""
    tensors = {name: np.array(rows, np.int64) for name, rows in lists.items()}
    request = triton_fakes.Request({"behavior_item_ids": np.array(ids, np.int64), **tensors}, parameters)
    return model.execute([request])[0].arrays()["origin"][:, 3:].tolist()


def test_lists_go_on_as_item_indices(model):
    ids = tiny_bundle.item_ids()
    two = [[ids[3]], [ids[4]]]
    assert origin_of(model, two) == [[], []]
    assert origin_of(model, two, exclude_item_ids=[[ids[5], 7], [0, ids[6]]]) == [[-1, 5, ~7], [-1, -1, 6]]
    assert origin_of(model, two, allow_item_ids=[[ids[5], 7], [0, ids[6]]]) == [[2, 5, ~7], [2, -1, 6]]
    both = {"exclude_item_ids": [[ids[1]], [ids[2]]], "allow_item_ids": np.zeros((2, 0))}
    assert origin_of(model, two, **both) == [[0, 1], [0, 2]]
    model.finalize()
    values = triton_fakes.Metric.values
    assert (values["nann_listed_items_total"], values["nann_unknown_listed_items_total"]) == (8, 2)


def test_excluding_the_history_excludes_what_the_model_does_not_read(model):
    """tiny_bundle's model reads 4 items; what it reads, beam_retrieval excludes by itself."""
    ids = tiny_bundle.item_ids()[:6]
    asked = '{"exclude_history": true}'
    assert origin_of(model, [ids], asked) == [[-1, 0, 1, 2, 3, 4, 5]]
    assert origin_of(model, [ids], asked, exclude_item_ids=[[ids[0]]]) == [[-1, 0, 0, 1, 2, 3, 4, 5]]
    assert origin_of(model, [ids], '{"exclude_history": false}') == [[]]
    assert origin_of(model, [ids[:4]], asked) == [[]]


def test_lists_that_are_none(model):
    long = triton_fakes.Request({"behavior_item_ids": np.array([[1]]), "allow_item_ids": np.zeros((1, 4), np.int64)})
    floats = triton_fakes.Request({"behavior_item_ids": np.array([[1]]), "exclude_item_ids": np.zeros((1, 1))})
    answers = [response.error() for response in model.execute([long, floats])]
    assert "allow_item_ids has 4 ids per user; expected at most 3: name a set of items with" in answers[0].message()
    assert "exclude_item_ids has dtype float64; expected INT64" in answers[1].message()
    assert {error.code() for error in answers} == {"INVALID_ARG"}


@pytest.fixture
def text_model(tmp_path):
    from nann.python_backend.models.feature_transform import TritonPythonModel
    from nann.python_backend.repository.install import install_bundle

    install_bundle(tiny_bundle.make_bundle(tmp_path / "bundle", texts=True).path, tmp_path / "repository")
    parameters = {"max_request_length": "9", "max_list_length": "3", **HISTORY}
    model = TritonPythonModel()
    model.initialize(triton_fakes.arguments_of(tmp_path / "repository", "feature_transform", **parameters))
    yield model
    model.finalize()


def test_text_ids_become_indices_and_unknown_ones_are_counted(text_model):
    ids = [text.encode() for text in tiny_bundle.text_ids()]
    tensors = {
        "behavior_item_ids": np.array([[b"gone", ids[3], b"", ids[4]], [b""] * 4], object),
        "exclude_item_ids": np.array([[ids[7], b"gone"], [ids[8], b""]], object),
    }
    numbers = triton_fakes.Request({"behavior_item_ids": np.array([[100]])})
    answered, refused = text_model.execute([triton_fakes.Request(tensors), numbers])
    arrays = answered.arrays()
    np.testing.assert_array_equal(arrays["behaviors"], [[-1, -1, 3, 4], [-1] * 4])
    np.testing.assert_array_equal(arrays["unknown_items"], [[1], [0]])
    np.testing.assert_array_equal(arrays["origin"][:, -2:], [[7, ~TEXT.keys(np.array([b"gone"], object))[0]], [8, -1]])
    assert "behavior_item_ids has dtype int64; expected BYTES" in refused.error().message()
    text_model.finalize()
    counted = {
        name: triton_fakes.Metric.values[f"nann_{name}_total"]
        for name in ("behavior_items", "unknown_items", "listed_items", "unknown_listed_items")
    }
    assert list(counted.values()) == [3, 1, 3, 1]

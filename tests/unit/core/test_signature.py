import numpy as np

from nann import signature
from nann.signature import MODELS, TensorSpec


def test_names_of_dtypes():
    spec = TensorSpec("x", np.dtype(np.int64), (-1,))
    assert (spec.triton_dtype, spec.config_dtype) == ("INT64", "TYPE_INT64")
    assert signature.SCORES.triton_dtype == "FP32"
    assert signature.CANDIDATES.triton_dtype == "INT32"


def test_the_public_contract():
    """Changing any of these breaks every client."""
    tensors = (*signature.ENSEMBLE.inputs, *signature.ENSEMBLE.outputs)
    assert signature.ENSEMBLE.name == "nann"
    assert [(spec.name, spec.triton_dtype, spec.shape) for spec in tensors] == [
        ("behavior_item_ids", "INT64", (-1,)),
        ("user_profile", "INT64", (-1,)),
        ("exclude_item_ids", "INT64", (-1,)),
        ("allow_item_ids", "INT64", (-1,)),
        ("user_id", "BYTES", (1,)),
        ("item_ids", "INT64", (-1,)),
        ("scores", "FP32", (-1,)),
        ("unknown_items", "INT32", (1,)),
        ("items_scored", "INT32", (1,)),
        ("items_matching", "INT64", (1,)),
        ("status", "INT32", (1,)),
        ("request_key", "INT64", (1,)),
        ("stored_items", "INT32", (1,)),
    ]
    assert signature.ON_DEADLINE == ("error", "partial")
    statuses = (signature.STATUS_COMPLETE, signature.STATUS_PARTIAL, signature.STATUS_DEGRADED)
    assert (*statuses, signature.STATUS_NO_HISTORY, len(signature.STATUS_NAMES)) == (0, 1, 2, 3, 4)
    assert signature.ENTRIES == ("layers", "seeds", "all")
    paddings = (signature.PADDING_ITEM, signature.PADDING_IDS, signature.PADDING_SCORE)
    assert paddings == (-1, (0, -1), np.finfo(np.float32).min)


def test_a_tensor_has_one_name_wherever_it_passes():
    specs = {}
    for model in MODELS:
        for spec in (*model.inputs, *model.outputs):
            assert specs.setdefault(spec.name, spec) is spec


def test_every_input_comes_from_somewhere():
    made = {spec for model in MODELS for spec in model.outputs} | set(signature.ENSEMBLE.inputs)
    # The scorer's candidates come from the walk, inside beam_retrieval.
    needed = {spec for model in MODELS for spec in model.inputs} - {signature.CANDIDATES}
    assert needed <= made

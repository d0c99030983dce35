"""Every model and tensor of the served pipeline: name, dtype and shape, written once.

The hand-written `config.pbtxt` files, the ONNX export, the Python backend and the clients all use these; a test
compares each config with this file. Shapes leave out the batch dimension, which always comes first; -1 is a
dimension that varies between requests or between bundles.

    nann (ensemble)
      behavior_item_ids and/or user_id [, user_profile] [, exclude_item_ids] [, allow_item_ids]
                                          -> feature_transform -> behaviors, profile_codes, unknown_items, origin,
                                                                  stored_items
      behaviors, profile_codes            -> user_encoder      -> user_state
      user_state, behaviors [, origin]    -> beam_retrieval    -> item_ids, scores, items_scored, items_matching,
                                             |                    status, request_key
                                             | per round: one BLS call for the whole batch
                                             +-> scorer: user_state, candidates or candidate_rows
                                                         -> candidate_scores

    On a CPU one model does it all, or all but the scorer (`ONE_STEP`):
      nann's inputs                       -> beam_retrieval    -> nann's outputs

    catalog (operators alone): operation [, allow_item_ids] [, item_ids, attributes, row, light] -> answer
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

PADDING_ITEM = -1
"""Item index (int32) of a padded position. External ids 0 and -1 are padding in requests."""
PADDING_IDS = (0, -1)
"""External ids (int64) that mean "no item here" in `behavior_item_ids`."""
PADDING_SCORE = float(np.finfo(np.float32).min)
"""Score that goes with a padded result: the least finite float32, about -3.4e38, since JSON has no infinity. Whether a
place is padded, its item says."""


@dataclass(frozen=True)
class TensorSpec:
    """One tensor: `shape` leaves out the batch dimension; -1 is a dimension that varies.

    A tensor of item ids is int64, or object where a bundle's ids are text (`nann.item_ids.IdKind.spec`). Both compare
    as equal.
    """

    name: str
    dtype: np.dtype[Any] = field(compare=False)
    shape: tuple[int, ...]

    @property
    def triton_dtype(self) -> str:
        """The KServe V2 name of the dtype, as in `INT64`."""
        return _TRITON_DTYPES[self.dtype]

    @property
    def config_dtype(self) -> str:
        """The name of the dtype in `config.pbtxt`, as in `TYPE_INT64`."""
        return "TYPE_STRING" if self.dtype == object else f"TYPE_{self.triton_dtype}"


_TRITON_DTYPES = {
    np.dtype(np.int32): "INT32",
    np.dtype(np.int64): "INT64",
    np.dtype(np.float16): "FP16",
    np.dtype(np.float32): "FP32",
    np.dtype(object): "BYTES",
}


def _spec(name: str, dtype: type, *shape: int) -> TensorSpec:
    return TensorSpec(name, np.dtype(dtype), shape)


# Public: what a client sends and gets.
BEHAVIOR_ITEM_IDS = _spec("behavior_item_ids", np.int64, -1)
"""External item ids, oldest first; 0 and -1 are padding; unknown ids are dropped and counted."""
USER_ID = _spec("user_id", np.object_, 1)
"""Whose stored history comes before `behavior_item_ids`: text, numbers as their decimal digits; "" = nobody's. At least
one of both tensors comes."""
USER_PROFILE = _spec("user_profile", np.int64, -1)
"""Optional. One code per user profile field of the data set, 0 = unknown."""
EXCLUDE_ITEM_IDS = _spec("exclude_item_ids", np.int64, -1)
"""Optional. External ids that may not be returned; 0 and -1 are padding; unknown ids are ignored."""
ALLOW_ITEM_IDS = _spec("allow_item_ids", np.int64, -1)
"""Optional. External ids: no other item may be returned; 0 and -1 are padding; unknown ids are ignored. A user without
a known id among them gets nothing."""
ITEM_IDS = _spec("item_ids", np.int64, -1)
"""External ids of the retrieved items, best first, padded with -1."""
SCORES = _spec("scores", np.float32, -1)
"""Their scores, all finite, padded with `PADDING_SCORE`."""
UNKNOWN_ITEMS = _spec("unknown_items", np.int32, 1)
"""How many of the request's and of the stored ids the bundle does not know."""
ITEMS_SCORED = _spec("items_scored", np.int32, 1)
"""How many candidates the scorer evaluated for the user."""
ITEMS_MATCHING = _spec("items_matching", np.int64, 1)
"""How many items the request's conditions let the user have; all that are not deleted where it has no conditions."""
STATUS = _spec("status", np.int32, 1)
"""The kind of answer: `STATUS_COMPLETE`, `STATUS_PARTIAL`, `STATUS_DEGRADED` or `STATUS_NO_HISTORY`."""
REQUEST_KEY = _spec("request_key", np.int64, 1)
"""The number that the request gave as its parameter `request_key`, for each user; 0 if it gave none. A client that
compares them knows that the answer is the one to its request."""
STORED_ITEMS = _spec("stored_items", np.int32, 1)
"""How many of the behaviours that the model read come from the store; -1: the store could not be asked."""
HISTORY_UNREAD = -1
"""Value of `STORED_ITEMS` of a user whose history could not be read."""
STATUS_COMPLETE = 0
"""The search took all of its rounds."""
STATUS_PARTIAL = 1
"""The deadline came before the last round; the items are the best of those scored by then."""
STATUS_DEGRADED = 2
"""The scorer failed; items and scores come from a cheap ranking (`nann.cheap_ranking`)."""
STATUS_NO_HISTORY = 3
"""The search took all of its rounds, without the user's stored history, which could not be read."""
STATUS_NAMES = ("complete", "partial", "degraded", "no_history")
"""Name by status."""

# Inside the ensemble.
BEHAVIORS = _spec("behaviors", np.int32, -1)
"""Item indices, oldest first, left-padded with -1 to the bundle's sequence length."""
PROFILE_CODES = _spec("profile_codes", np.int32, -1)
"""User profile codes, one per field, 0 = unknown; a single column of 0 if the data set has no user profile."""
USER_STATE = _spec("user_state", np.float32, -1)
"""What the scorer needs to know about the user; only user_encoder and scorer know the layout. If the bundle has a
light score, the last d numbers are the user's vector for it, d being the width of its item table: `nann.light_walk`."""
ORIGIN = _spec("origin", np.int64, -1)
"""Optional. What beam_retrieval must know of a request beside its features, in one tensor, since each costs time:
its arrival, its `REQUEST_KEY`, and the items that its lists name; `python_backend/origin.py` has the columns."""
HEARTBEAT_MARK = _spec("heartbeat", np.int32, 1)
"""Optional. In the one step no client can send it: the ensemble does not pass it on."""
CANDIDATES = _spec("candidates", np.int32, -1)
"""Item indices to score, -1 = padding."""
CANDIDATE_ROWS = _spec("candidate_rows", np.float32, -1, -1)
"""Instead of `CANDIDATES`, for a scorer without an item table: a row of R numbers for each candidate, zeros for
padding (`nann.item_rows`)."""
CANDIDATE_SCORES = _spec("candidate_scores", np.float32, -1)
"""One score per candidate; scores at padded positions are ignored."""

# Operators alone.
OPERATION = _spec("operation", np.object_, 1)
"""What `CATALOG` is to do, one of the following; the request's parameters say the rest."""
FILTER_ITEM_IDS = _spec("allow_item_ids", np.object_, -1)
"""External ids of the items that a filter allows, as people type them: the catalog serves bundles of both kinds."""
SET_FILTER, REMOVE_FILTER, LIST_FILTERS = "set_filter", "remove_filter", "list_filters"
UPSERT_ITEMS, DELETE_ITEMS, CATALOG_STATUS = "upsert_items", "delete_items", "catalog_status"
CHANGED_ITEM_IDS = _spec("item_ids", np.object_, -1)
"""External ids of the items that are set or deleted, as people type them."""
ATTRIBUTES = _spec("attributes", np.object_, -1)
"""Optional. For each of `item_ids` a JSON object with the attributes that change."""
ITEM_ROW = _spec("row", np.float32, -1, -1)
"""Optional. What the scorer needs of each of `item_ids`: a row of `candidate_rows`."""
ITEM_LIGHT = _spec("light", np.float32, -1, -1)
"""Optional. The vector of each of `item_ids` for the light score, beside `row` where the bundle has one."""
ITEM_VECTOR = _spec("vector", np.float32, -1, -1)
"""Optional. e_v of each of `item_ids`, beside `row`: its place in the graph of the next bundle (`nann refresh`)."""
ANSWER = _spec("answer", np.object_, 1)
"""What `CATALOG` did, as a JSON object."""

# Of the item encoder, which is not served but placed beside the others in a bundle.
ITEM_CODES = _spec("item_codes", np.int32, -1)
"""What describes an item, as the codes that the model was trained with (`nann.item_codes`), padded with -1."""
ENCODED_ROW = _spec("item_row", np.float32, -1)
"""What the scorer reads of an item."""
ENCODED_VECTOR = _spec("item_vector", np.float32, -1)
"""e_v, on which the graph is built."""
ENCODED_LIGHT = _spec("item_light", np.float32, -1)
"""The item's vector for the light score; only if the model has one."""


Tensors = Mapping[TensorSpec, npt.NDArray[Any]]
"""Arrays with the batch dimension first, by their spec."""


@dataclass(frozen=True)
class ModelSpec:
    """One served model: its name in the repository and its tensors."""

    name: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]


_ASKED = (BEHAVIOR_ITEM_IDS, USER_PROFILE, EXCLUDE_ITEM_IDS, ALLOW_ITEM_IDS, USER_ID)
ENSEMBLE = ModelSpec(
    "nann", _ASKED, (ITEM_IDS, SCORES, UNKNOWN_ITEMS, ITEMS_SCORED, ITEMS_MATCHING, STATUS, REQUEST_KEY, STORED_ITEMS)
)
FEATURE_TRANSFORM = ModelSpec(
    "feature_transform", _ASKED, (BEHAVIORS, PROFILE_CODES, UNKNOWN_ITEMS, ORIGIN, STORED_ITEMS)
)
USER_ENCODER = ModelSpec("user_encoder", (BEHAVIORS, PROFILE_CODES), (USER_STATE,))
BEAM_RETRIEVAL = ModelSpec(
    "beam_retrieval",
    (USER_STATE, BEHAVIORS, ORIGIN),
    (ITEM_IDS, SCORES, ITEMS_SCORED, ITEMS_MATCHING, STATUS, REQUEST_KEY),
)
ONE_STEP = ModelSpec(BEAM_RETRIEVAL.name, (*_ASKED, HEARTBEAT_MARK), ENSEMBLE.outputs)
"""beam_retrieval as the only step of the ensemble: it makes the features and runs the user encoder itself."""
SCORER = ModelSpec("scorer", (USER_STATE, CANDIDATES), (CANDIDATE_SCORES,))
"""The scorer with an item table among its weights."""
ROW_SCORER = ModelSpec(SCORER.name, (USER_STATE, CANDIDATE_ROWS), (CANDIDATE_SCORES,))
"""The scorer of a bundle with item rows. It is the same model of the server: a bundle has one of the two forms."""
CATALOG = ModelSpec(
    "catalog", (OPERATION, FILTER_ITEM_IDS, CHANGED_ITEM_IDS, ATTRIBUTES, ITEM_ROW, ITEM_LIGHT, ITEM_VECTOR), (ANSWER,)
)
"""Changes what is served, for operators with the admin key. It belongs to a repository, and has one version."""
ITEM_ENCODER = ModelSpec("item_encoder", (ITEM_CODES,), (ENCODED_ROW, ENCODED_VECTOR, ENCODED_LIGHT))

MODELS = (ENSEMBLE, FEATURE_TRANSFORM, USER_ENCODER, BEAM_RETRIEVAL, SCORER)
"""Those that answer together: each version of a repository has all of them."""
PROCESSES = (FEATURE_TRANSFORM, USER_ENCODER, BEAM_RETRIEVAL, SCORER, CATALOG)
"""Those that compute something, and so may have processes of their own."""

ITEM_ID_TENSORS = (BEHAVIOR_ITEM_IDS, EXCLUDE_ITEM_IDS, ALLOW_ITEM_IDS, ITEM_IDS)
"""INT64, or BYTES where the bundle's item ids are text."""

BUNDLE_SETTING = "bundle"
"""Parameter in the served ensemble's configuration: the bundle_id of the bundle that answers."""
IDENTITY_SETTING = "bundle_identity"
"""Another: its identity, which differs where the same files have another recommended search."""
ID_KIND_SETTING = "item_id_kind"
"""Another: the kind of its item ids, by its name in `nann.item_ids`."""

DEADLINE_MESSAGE = "the search did not end within its deadline"
"""How the server's message to a late request begins. Over HTTP its status is 400, as for a bad request."""

# Values of the request parameters on_deadline and entry (`nann.search_params.SearchOptions`).
ON_DEADLINE_ERROR = "error"
ON_DEADLINE_PARTIAL = "partial"
"""The best items so far, with `STATUS_PARTIAL`."""
ON_DEADLINE = (ON_DEADLINE_ERROR, ON_DEADLINE_PARTIAL)

ENTRY_LAYERS = "layers"
"""The paper's way: start at all items of the entry layer and descend layer by layer to the ground."""
ENTRY_SEEDS = "seeds"
"""Our way: search only the ground layer, starting at seeds (entry points that a light walk finds) and own items."""
ENTRY_ALL = "all"
"""No walk: score all items, or all that a request's conditions leave. For a small corpus."""
ENTRIES = (ENTRY_LAYERS, ENTRY_SEEDS, ENTRY_ALL)

HEARTBEAT_ID = "nann-heartbeat"
"""Id of the requests by which `nann serve` sees that a process answers. beam_retrieval makes no search for them."""
RESTARTS = "restarts"
"""Parameter of such a request: how many processes were restarted since the last one, as a JSON object by model."""

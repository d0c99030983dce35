"""A bundle of format version 1 is served with the answers that were recorded when it was made."""

import shutil

import numpy as np
import pytest
from support import golden
from support.own_server import own_server

from nann.clients import RetrievalClient

pytestmark = pytest.mark.triton


def test_it_is_served_with_the_answers_of_then(tmp_path):
    bundle = shutil.copytree(golden.BUNDLE, tmp_path / "bundle")
    with own_server(bundle, tmp_path) as server, RetrievalClient(server.grpc_url, timeout_s=20) as client:
        for asked in golden.answers():
            profile, entry = asked["user_profile"], asked["entry"]
            result = client.retrieve(asked["behavior_item_ids"], user_profile=profile, entry=entry)
            assert result.item_ids[0].tolist() == asked["item_ids"]
            np.testing.assert_allclose(result.scores[0], asked["scores"], atol=golden.TOLERANCE)
            assert result.items_scored[0] == asked["items_scored"]

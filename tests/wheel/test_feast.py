"""The store of histories in Feast, in an environment of its own: its packages would hold ours back."""

from __future__ import annotations

import pytest

pytestmark = [pytest.mark.wheel, pytest.mark.timeout(900)]

REPOSITORY = """
import tempfile
from datetime import datetime, timedelta, timezone
from pathlib import Path
import pandas as pd
from feast import Entity, FeatureStore, FeatureView, Field, FileSource, ValueType
from feast.types import Array, Int64, String

folder = Path(tempfile.mkdtemp())
(folder / "feature_store.yaml").write_text('''
project: shop
provider: local
registry: registry.db
online_store: {type: sqlite, path: online.db}
offline_store: {type: file}
entity_key_serialization_version: 2
''')
store = FeatureStore(repo_path=str(folder))
user = Entity(name="user", join_keys=["user_id"], value_type=ValueType.STRING)

def view(name, **features):
    now = [datetime.now(timezone.utc)] * 2
    frame = pd.DataFrame({"user_id": ["17", "u-1"], **{key: values for key, (_, values) in features.items()}})
    frame["event_timestamp"] = now
    frame.to_parquet(folder / f"{name}.parquet")
    kinds = {"user_id": String, **{key: kind for key, (kind, _) in features.items()}}
    schema = [Field(name=key, dtype=kind) for key, kind in kinds.items()]
    source = FileSource(path=str(folder / f"{name}.parquet"), timestamp_field="event_timestamp")
    made = FeatureView(name=name, entities=[user], ttl=timedelta(0), schema=schema, source=source)
    store.apply([user, made])
    store.write_to_online_store(name, frame)

numbers, texts = [[5, 6, 7], [8]], [["a", "b"], ["c"]]
view("user_history", item_ids=(Array(Int64), numbers), profile=(Array(Int64), [[1, 2], [0, 3]]))
view("texts", item_ids=(Array(String), texts))
view("others", clicks=(Array(String), texts))
"""
CHECKS = """
from nann.errors import ConfigError, HistoryError
from nann.python_backend.histories.opening import open_histories

def refused(act):
    try:
        act()
    except (ConfigError, HistoryError) as error:
        return str(error)

def found(address, limit):
    histories = open_histories(address, 1.0, limit)
    return [one and one.item_ids.tolist() for one in histories.read([b"u-1", b"17", b"nobody"])]

histories = open_histories(f"feast:{folder}", 1.0, 2)
assert found(f"feast:{folder}", 2) == [[b"8"], [b"6", b"7"], None]
assert found(f"feast:{folder}#texts", 9) == [[b"c"], [b"a", b"b"], None]
assert [one.profile.tolist() for one in histories.read([b"17", b"u-1"])] == [[1, 2], [0, 3]]
assert open_histories(f"feast:{folder}#texts", 1.0).read([b"17"])[0].profile is None
assert histories.read([]) == []
assert "is no Feast repository" in refused(lambda: open_histories(f"feast:{folder}/x", 1.0))
assert "has no view 'none' to read" in refused(lambda: open_histories(f"feast:{folder}#none", 1.0))
assert "expected a feature 'item_ids'" in refused(lambda: open_histories(f"feast:{folder}#others", 1.0))
assert "is not written here" in refused(lambda: histories.append(type("Events", (), {"users": [b"17"]})()))
histories.close()
(folder / "online.db").write_text("no database")
assert "Feast can't be asked for histories" in refused(lambda: open_histories(f"feast:{folder}", 1.0).read([b"17"]))
print("all checked")
"""


def test_histories_in_feasts_sqlite_store(feast):
    assert feast.python(REPOSITORY + CHECKS).splitlines()[-1] == "all checked"

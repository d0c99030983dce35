"""`kill -9` of any process at random moments beside changes of items and searches: nothing acknowledged is ever lost.

NANN_KILLS sets how many kills the slow form makes, NANN_SEED which ones: each run prints its own.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import threading
import time
from collections import Counter, defaultdict
from dataclasses import dataclass

import numpy as np
import pytest
from support.background import Background
from support.live_bundle import item_ids, make_bundle
from support.own_server import edited
from support.serve_process import Serve, serving
from support.waiting import wait_until

from nann.clients import RetrievalClient
from nann.errors import NannError
from nann.python_backend.repository.install import install_bundle
from nann.python_backend.server.control import ModelControl
from nann.python_backend.server.processes import DEAD, child_processes, process_state, served_model
from nann.signature import ATTRIBUTES, BEAM_RETRIEVAL, CHANGED_ITEM_IDS, ITEM_LIGHT, ITEM_ROW, PROCESSES

pytestmark = pytest.mark.triton

KEY = "aKeyForThisTest"
KILLS = int(os.environ.get("NANN_KILLS", "50"))
ALL = item_ids().tolist()
SIZE = 3
"""Items of a batch: they change together, or not at all."""
UNANSWERED = 10
"""So many batches may be without an answer at a time."""
GONE, AS_IN_THE_BUNDLE = "gone", "as in the bundle"
SERVER, COMMAND = "tritonserver", "nann serve"
TARGETS = ("catalog", "beam_retrieval", SERVER, "feature_transform", "scorer", COMMAND, "user_encoder")
TOGETHER = (*(spec.name for spec in PROCESSES), BEAM_RETRIEVAL.name)


@dataclass
class Group:
    """Items that change together.

    Attributes:
        ids: of them.
        state: what the last acknowledged change made of them: `GONE`, `AS_IN_THE_BUNDLE`, or their price.
        asked: what a change without an answer would have made of them; None: there is none.
    """

    ids: list[int]
    state: object
    asked: object = None


class Changing(Background):
    """A thread that adds, changes and deletes items of one group after the other, until the context ends."""

    def __init__(self, bundle, seed: int) -> None:
        self.url = ""
        self.acknowledged = 0
        self.gone: dict[int, float] = {}
        self.groups = [Group(ALL[at : at + SIZE], AS_IN_THE_BUNDLE) for at in range(300, 300 + 50 * SIZE, SIZE)]
        self.groups += [Group(list(range(at, at + SIZE)), GONE) for at in range(1, 1 + 30 * SIZE, SIZE)]
        self._items = SIZE * len(self.groups)
        self._vectors = bundle.item_rows.base[:SIZE], bundle.light_vectors[:SIZE]
        self._random = random.Random(seed)
        self.lock = threading.Lock()
        super().__init__()

    def more(self, count: int) -> None:
        """Waits for so many more acknowledgements."""
        enough = self.acknowledged + count
        wait_until(lambda: self.acknowledged >= enough)

    def work(self, _number: int) -> None:
        number = 0
        while not self.ended.is_set():
            time.sleep(0.002)
            with self.lock:
                if not self.url:
                    continue
                open_ones = [each for each in self.groups if each.asked is not None]
                if len(open_ones) < UNANSWERED:
                    group = self._random.choice(
                        [each for each in self.groups if each.asked is None and self._may(each)]
                    )
                    number += 1
                    delete = group.state != GONE and 2 * len(self.gone) < self._items and self._random.random() < 0.1
                    group.asked = GONE if delete else float(number)
                else:
                    group = self._random.choice(open_ones)  # sent again: to do it twice is to do it once
                try:
                    self._send(group)
                except NannError:  # done, or not
                    time.sleep(0.02)
                else:
                    self._acknowledge(group)

    def _may(self, group: Group) -> bool:
        """What was there and is deleted stays so, that searches can be looked at."""
        return not set(group.ids) & set(self.gone)

    def _acknowledge(self, group: Group) -> None:
        group.state, group.asked = group.asked, None
        self.acknowledged += 1
        if group.state == GONE:
            self.gone.update(dict.fromkeys(group.ids, time.monotonic()))

    def _send(self, group: Group) -> None:
        control = ModelControl(self.url, KEY)
        tensors = {CHANGED_ITEM_IDS: np.array([[str(each) for each in group.ids]], object)}
        if group.asked == GONE:
            control.catalog("delete_items", tensors)
            return
        tensors[ATTRIBUTES] = np.array([[json.dumps({"price": group.asked})] * SIZE], object)
        if group.state == GONE:
            rows, light = self._vectors
            tensors |= {ITEM_ROW: rows[None], ITEM_LIGHT: light[None]}
        control.catalog("upsert_items", tensors)


class Searching(Background):
    """Threads that search all the time; `answers` has for each answer when its request began, and its ids."""

    def __init__(self, threads: int = 2) -> None:
        self.url = ""
        self.answers: list[tuple[float, set[int]]] = []
        super().__init__(threads)

    def more(self, count: int) -> None:
        """Waits for so many more answers."""
        enough = len(self.answers) + count
        wait_until(lambda: len(self.answers) >= enough)

    def work(self, number: int) -> None:
        rng = np.random.default_rng(number)
        wait_until(lambda: self.url or self.ended.is_set())
        while not self.ended.is_set():
            url = self.url
            with RetrievalClient(url, timeout_s=30) as client:
                while not self.ended.is_set() and url == self.url:
                    history = [ALL[index] for index in rng.integers(250, 800, 5)]
                    begun = time.monotonic()
                    try:
                        found = client.retrieve(history, entry=("layers", "seeds")[int(rng.integers(2))])
                    except NannError:
                        time.sleep(0.02)
                    else:
                        self.answers.append((begun, set(found.item_ids[0].tolist())))


def matching(client: RetrievalClient, ids: list[int], text: str | None = None) -> int:
    """How many of these items may be shown; waits for an answer."""

    def asked() -> list[int] | None:
        with contextlib.suppress(NannError):
            result = client.retrieve(ALL[-5:], allow_item_ids=ids, **({} if text is None else {"filter": text}))
            return result.items_matching.tolist()
        return None

    (count,) = wait_until(asked)
    return count


def is_so(client: RetrievalClient, group: Group, state: object) -> bool:
    """Whether all items of a group are in a state; fails if some are and others are not."""
    found = matching(client, group.ids, f"price = {state}" if isinstance(state, float) else None)
    assert found in (0, SIZE), f"{found} of {SIZE} items of {group}"
    return (found == 0) == (state == GONE)


def check(client: RetrievalClient, changing: Changing) -> None:
    """Every acknowledged change is there, and each other one as a whole or not at all."""
    with changing.lock:
        for group in changing.groups:
            if group.asked is not None and is_so(client, group, group.asked):
                changing._acknowledge(group)  # it is there, so it must stay
            group.asked = None
            assert is_so(client, group, group.state), group


def kill(serve: Serve, target: str, chosen: random.Random) -> None:
    """Kills one process of a server."""
    if target == COMMAND:
        serve.process.kill()
        return
    triton = serve.triton
    living = [pid for pid, state in child_processes(triton).items() if state != DEAD]
    pids = [triton] if target == SERVER else [pid for pid in living if (served_model(pid) or ("",))[0] == target]
    pid = chosen.choice(pids)
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: process_state(pid) in ("", DEAD))


def all_processes_live(serve: Serve) -> bool:
    """Whether each model has all of its processes; of two that were loaded anew the old one may need a while to end."""
    living = [served_model(pid) for pid, state in child_processes(serve.triton).items() if state != DEAD]
    there = Counter(served[0] for served in living if served is not None)
    return not Counter(TOGETHER) - there and serve.is_ready()


def kill_until_it_ends(serve, client, targets, beside, chosen, recovered) -> tuple[str, float] | None:
    """Kills one process after the other, and checks; returns the kill that ended the server, None: all are done."""
    changing, searching = beside
    while targets:
        time.sleep(chosen.random())
        target, killed_s = targets.pop(0), time.monotonic()
        kill(serve, target, chosen)
        if target in (SERVER, COMMAND):
            serve.process.wait(timeout=60)
            return target, killed_s
        wait_until(lambda: all_processes_live(serve), lambda: serve.words)
        changing.more(1)
        searching.more(1)
        recovered[target].append(time.monotonic() - killed_s)
        check(client, changing)
    return None


@pytest.mark.parametrize(
    "kills", [5, pytest.param(KILLS, marks=[pytest.mark.slow, pytest.mark.timeout(60 + 60 * KILLS)])]
)
def test_nothing_that_was_acknowledged_is_lost(tmp_path, monkeypatch, kills):
    monkeypatch.setenv("NANN_ADMIN_KEY", KEY)
    seed = int(os.environ.get("NANN_SEED", random.SystemRandom().randrange(1 << 30)))
    print(f"\nNANN_SEED={seed}")
    chosen, recovered = random.Random(seed), defaultdict(list)
    bundle = make_bundle(tmp_path / "bundle", item_rows=True)
    install_bundle(bundle.path, tmp_path / "repository")
    with edited(tmp_path / "repository" / BEAM_RETRIEVAL.name / "config.pbtxt") as config:
        config.instance_group[0].count = 2
    targets = [*TARGETS, *(chosen.choice(TARGETS) for _ in range(kills - len(TARGETS)))][:kills]
    ended = None
    with Changing(bundle, seed) as changing, Searching() as searching:
        while targets or ended:
            with serving(bundle.path, tmp_path) as serve, RetrievalClient(serve.grpc_url, timeout_s=20) as client:
                changing.url, searching.url = serve.http_url, serve.grpc_url
                changing.more(1)
                searching.more(1)
                if ended:
                    recovered[ended[0]].append(time.monotonic() - ended[1])
                check(client, changing)
                ended = kill_until_it_ends(serve, client, targets, (changing, searching), chosen, recovered)
    for target, times_s in recovered.items():
        print(f"{target:18} {len(times_s):2} kills, all is well after {min(times_s):.1f} to {max(times_s):.1f} s")
    print(
        f"{changing.acknowledged:,} batches acknowledged, {len(changing.gone)} items deleted for good, "
        f"{len(searching.answers):,} answers"
    )
    assert sum(map(len, recovered.values())) == kills
    assert [
        ids for begun, ids in searching.answers if any(begun > changing.gone.get(each, begun) for each in ids)
    ] == []

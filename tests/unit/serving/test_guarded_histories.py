"""What guards a store of histories: one that fails is left alone, and tried again."""

import threading

from support.waiting import wait_until

from nann.errors import DataError, HistoryError
from nann.python_backend.histories.guarded import GuardedHistories


class Switched:
    """A store that fails while it is off."""

    def __init__(self):
        self.on, self.asked, self.closed = True, 0, False

    def read(self, user_ids):
        self.asked += 1
        if not self.on:
            raise HistoryError("off")
        return [None] * len(user_ids)

    def close(self):
        self.closed = True


def test_a_store_that_fails_is_left_alone_and_tried_again():
    store, said, counted = Switched(), [], []
    guarded = GuardedHistories(lambda: store, said.append, lambda how, _: counted.append(how), failures=2, retry_s=0.02)
    assert guarded.read([b"a"]) == [None]
    store.on = False
    assert [guarded.read([b"a"]), guarded.is_open] == [None, False]
    assert [guarded.read([b"a"]), guarded.is_open] == [None, True]
    assert guarded.read([b"a"]) is None
    assert counted == ["read", "failed", "failed", "skipped"]
    wait_until(lambda: store.asked > 6, lambda: store.asked)
    assert guarded.is_open
    store.on = True
    wait_until(lambda: not guarded.is_open, lambda: said)
    assert guarded.read([b"a"]) == [None]
    assert said == [
        "the store of histories fails, and requests are answered without stored histories: off",
        "the store of histories answers again",
    ]
    guarded.close()
    assert store.closed
    assert not [thread for thread in threading.enumerate() if thread.name == "histories"]


def test_a_failure_now_and_then_opens_nothing():
    store = Switched()
    guarded = GuardedHistories(lambda: store, lambda line: None, failures=2)
    for store.on in (False, True, False, True):
        guarded.read([b"a"])
    assert not guarded.is_open
    guarded.close()


def test_a_store_that_can_not_be_opened_is_opened_later():
    tries, said = [], []

    def open_store():
        tries.append(1)
        if len(tries) < 3:
            raise DataError("not there yet")
        return Switched()

    guarded = GuardedHistories(open_store, said.append, retry_s=0.02)
    assert guarded.read([b"a"]) is None
    wait_until(lambda: not guarded.is_open, lambda: said)
    assert guarded.read([b"a"]) == [None]
    guarded.close()

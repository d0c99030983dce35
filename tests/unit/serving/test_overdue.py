"""A process whose batch takes far too long ends itself; one that was paused with everything does not."""

import time

import pytest
from support.waiting import wait_until

from nann.python_backend.watch.overdue import Overdue


@pytest.fixture
def watched():
    """Says what it would have said, and counts how often it would have ended."""
    said, ended = [], []
    overdue = Overdue(0.2, said.append, lambda: ended.append(1), period_s=0.02)
    yield overdue, said, ended
    overdue.close()


def test_a_batch_that_hangs_ends_the_process_once(watched):
    overdue, said, ended = watched
    with overdue.batch():
        wait_until(lambda: ended)
    assert ended == [1]
    (words,) = said
    assert words.startswith("a batch has taken 0.")
    assert words.endswith("s, and may take 0.2: this process hangs, and ends")


def test_many_short_batches_and_idle_time_are_no_hang(watched):
    overdue, said, ended = watched
    for _ in range(20):
        with overdue.batch():
            time.sleep(0.02)
    time.sleep(0.3)
    with pytest.raises(ValueError, match="of the batch"), overdue.batch():
        raise ValueError("of the batch")
    time.sleep(0.3)
    assert (said, ended) == ([], [])


def test_a_pause_of_everything_is_no_hang():
    overdue = Overdue(60.0, period_s=1.0)
    assert overdue.took_s(time.monotonic()) == 0
    with overdue.batch():
        began = time.monotonic()
        took_s = [overdue.took_s(began + after) for after in (1, 2, 50, 51, 52)]
    assert took_s == pytest.approx([1, 2, 2, 3, 4], abs=0.1)
    assert overdue.took_s(began + 53) == 0
    with overdue.batch():
        assert overdue.took_s(time.monotonic()) < 1, "of the next batch nothing was a pause"
    overdue.close()

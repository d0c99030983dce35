"""The policy of retries and addresses, with a clock that the tests move."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nann.clients._addresses import FIRST_WAIT_S, LONGEST_WAIT_S, Addresses, Attempts, parse_addresses
from nann.errors import ConfigError, ServerOverloaded, ServerUnavailable

GONE = ServerUnavailable("gone")


class Clock:
    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock():
    return Clock()


def addresses_of(count, clock, chance=lambda: 1.0):
    return Addresses(count, clock, chance)


@pytest.mark.parametrize(
    "url", ["a:1,b:2", " a:1 , b:2 ", ["a:1", "b:2"], ("a:1", "b:2")], ids=["text", "spaces", "list", "tuple"]
)
def test_several_addresses(url):
    assert parse_addresses(url) == ["a:1", "b:2"]


def test_an_address_of_ipv6_stays_whole():
    assert parse_addresses("[::1]:8001,b:2") == ["[::1]:8001", "b:2"]


@pytest.mark.parametrize(("url", "shown"), [("a:1,", "''"), ([], "''"), (["a:1", 5], "5"), ("a:1,b:x", "'b:x'")])
def test_a_wrong_address_is_named(url, shown):
    with pytest.raises(ConfigError, match=f"url is {shown}; expected host:port without a scheme"):
        parse_addresses(url)


def test_requests_go_to_all_servers_in_turn(clock):
    addresses = addresses_of(3, clock)
    assert Counter(addresses.choose(set()) for _ in range(300)) == {0: 100, 1: 100, 2: 100}


def test_the_others_share_what_a_dead_server_would_get(clock):
    addresses = addresses_of(3, clock)
    addresses.missed(1)
    assert Counter(addresses.choose(set()) for _ in range(300)) == {0: 150, 2: 150}


def test_one_request_at_a_time_tries_a_dead_server_again_until_it_answers(clock):
    addresses = addresses_of(2, clock)
    addresses.missed(0)
    for _ in range(2):
        clock.now_s += LONGEST_WAIT_S
        assert Counter(addresses.choose(set()) for _ in range(10)) == {0: 1, 1: 9}
    addresses.answered(0)
    assert Counter(addresses.choose(set()) for _ in range(10)) == {0: 5, 1: 5}


def test_if_no_server_answers_each_is_asked_all_the_same(clock):
    addresses = addresses_of(2, clock)
    addresses.missed(0)
    addresses.missed(1)
    assert Counter(addresses.choose(set()) for _ in range(10)) == {0: 5, 1: 5}


def test_waits_double_up_to_a_limit(clock):
    assert [addresses_of(1, clock).wait_s(times) for times in (0, 1, 2, 50)] == [
        FIRST_WAIT_S,
        2 * FIRST_WAIT_S,
        4 * FIRST_WAIT_S,
        LONGEST_WAIT_S,
    ]
    assert addresses_of(1, clock, lambda: 0.0).wait_s(1) == FIRST_WAIT_S, "half of a wait is chance"


def test_every_server_is_asked_before_the_first_wait(clock):
    attempts = Attempts(addresses_of(3, clock), 10.0, retry=True)
    places, waits = [], []
    for _ in range(7):
        places.append(attempts.start()[0])
        waits.append(attempts.failed(GONE))
    assert [sorted(places[:3]), sorted(places[3:6])] == [[0, 1, 2], [0, 1, 2]]
    assert waits == [0, 0, FIRST_WAIT_S, 0, 0, 2 * FIRST_WAIT_S, 0]


def test_attempts_end_with_the_timeout_and_get_what_is_left_of_it(clock):
    attempts = Attempts(addresses_of(1, clock), 1.0, retry=True)
    assert attempts.start() == (0, 1.0)
    clock.now_s += 0.25
    wait_s = attempts.failed(GONE)
    assert attempts.start()[1] == pytest.approx(0.75 - wait_s)
    clock.now_s += 0.74
    with pytest.raises(ServerUnavailable, match="gone"):
        attempts.failed(GONE)  # a wait would end behind the timeout


@given(
    timeout_s=st.floats(0.01, 20),
    steps=st.lists(st.floats(0, 2), max_size=60),
    servers=st.integers(1, 4),
    seed=st.floats(0, 1, exclude_max=True),
)
def test_no_attempt_begins_after_the_timeout(timeout_s, steps, servers, seed):
    clock = Clock()
    attempts = Attempts(addresses_of(servers, clock, lambda: seed), timeout_s, retry=True)
    ends = clock.now_s + timeout_s
    for took_s in steps:
        _, left_s = attempts.start()
        assert 0 < left_s <= ends - clock.now_s + 1e-9
        clock.now_s += took_s
        try:
            clock.now_s += attempts.failed(GONE)
        except ServerUnavailable:
            return


def test_without_retries_each_address_is_asked_once(clock):
    attempts = Attempts(addresses_of(2, clock), 10.0, retry=False)
    first, _ = attempts.start()
    assert attempts.failed(GONE) == 0
    assert attempts.start()[0] == 1 - first
    with pytest.raises(ServerUnavailable, match="gone"):
        attempts.failed(GONE)


def test_an_overloaded_server_is_not_asked_again_but_the_others_are(clock):
    addresses = addresses_of(2, clock)
    attempts = Attempts(addresses, 10.0, retry=True)
    busy, _ = attempts.start()
    attempts.failed(ServerOverloaded("busy"))
    for _ in range(3):
        assert attempts.start()[0] == 1 - busy
        attempts.failed(GONE)
    attempts.start()
    with pytest.raises(ServerOverloaded, match="busy too"):
        attempts.failed(ServerOverloaded("busy too"))
    assert addresses.choose({1 - busy}) == busy, "it answers: it keeps its place"

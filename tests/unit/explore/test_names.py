"""Search as you type over names."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from nann.explore.names import NameIndex

NAMES = ["Milk chocolate", "Chocolate milk, 1 l", "Milk", "Almond milk", "Crème brûlée", "milky way", "", "Café 日本"]
WORDS = st.lists(st.sampled_from(["milk", "milky", "mi", "almond", "x", "Tea"]), max_size=4).map(" ".join)


def found(text: str, limit: int = 10) -> list[str]:
    return [NAMES[item] for item in NameIndex(NAMES).search(text, limit)]


def test_every_typed_word_begins_a_word_of_the_name():
    assert set(found("mi choc")) == {"Milk chocolate", "Chocolate milk, 1 l"}
    assert found("choc mi") == ["Chocolate milk, 1 l", "Milk chocolate"], "the one that begins so is first"
    assert found("ilk") == []


def test_whole_words_come_first_then_short_names():
    assert found("milk") == ["Milk", "Milk chocolate", "Almond milk", "Chocolate milk, 1 l", "milky way"]
    assert found("milk", 2) == ["Milk", "Milk chocolate"]


def test_case_accents_and_scripts():
    assert found("CRÈME br") == ["Crème brûlée"]
    assert found("日") == ["Café 日本"]


def test_nothing_typed_finds_nothing():
    assert found("") == found(" ,.") == []


@given(st.lists(WORDS, max_size=12), WORDS)
def test_as_if_every_name_were_read(names, typed):
    def fits(name: str) -> bool:
        words = re.findall(r"\w+", name.lower())
        return all(any(word.startswith(one) for word in words) for one in re.findall(r"\w+", typed.lower()))

    wanted = {place for place, name in enumerate(names) if typed.split() and fits(name)}
    assert set(NameIndex(names).search(typed, 100)) == wanted

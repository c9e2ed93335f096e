"""Registries refuse duplicates and help with wrong names."""

from __future__ import annotations

import pytest

from trpexport.errors import TrpexportError
from trpexport.registry import Registry


@pytest.fixture
def fruit() -> Registry[int]:
    registry: Registry[int] = Registry("fruit")
    registry.register("apple", 1)
    registry.register("pear", 2)
    return registry


def test_entries_are_found_in_order(fruit: Registry[int]) -> None:
    assert fruit["pear"] == 2
    assert list(fruit) == ["apple", "pear"]
    assert list(fruit.items()) == [("apple", 1), ("pear", 2)]
    assert len(fruit) == 2
    assert "apple" in fruit
    assert "plum" not in fruit


def test_a_duplicate_is_a_programming_error(fruit: Registry[int]) -> None:
    with pytest.raises(ValueError, match="'apple' is registered twice"):
        fruit.register("apple", 3)
    assert fruit["apple"] == 1


@pytest.mark.parametrize(
    ("name", "says"), [("aple", "did you mean apple"), ("xyz", "choose from apple, pear")]
)
def test_a_wrong_name_is_answered_with_the_near_ones(
    fruit: Registry[int], name: str, says: str
) -> None:
    with pytest.raises(TrpexportError, match=f"unknown fruit '{name}': {says}"):
        fruit[name]

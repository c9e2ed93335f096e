"""Numbers that depend on the place in the run alone."""

from __future__ import annotations

import torch

from trpexport.training.randomness import generator_at, numpy_generator_at, seed_of


def test_a_place_has_its_numbers() -> None:
    first = torch.rand(4, generator=generator_at(0, 3, 7))
    torch.rand(100)  # what others draw changes nothing
    assert torch.equal(first, torch.rand(4, generator=generator_at(0, 3, 7)))
    assert numpy_generator_at(0, 3, 7).random() == numpy_generator_at(0, 3, 7).random()


def test_places_differ() -> None:
    places = [(seed, epoch, step) for seed in range(5) for epoch in range(5) for step in range(40)]
    assert len({seed_of(*place) for place in places}) == len(places)
    assert len({numpy_generator_at(*place).random() for place in places}) == len(places)
    assert all(0 <= seed_of(*place) < 2**63 for place in places)

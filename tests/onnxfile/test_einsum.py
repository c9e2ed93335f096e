"""The cost of an einsum against what PyTorch runs for it."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode

from trpexport.onnxfile.einsum import einsum_macs

SIZES = {letter: size for size, letter in enumerate("abcdefgh", start=2)}


def counted(equation: str, *shapes: tuple[int, ...]) -> int:
    """MACs of the products that PyTorch runs."""
    with FlopCounterMode(display=False) as counter:
        torch.einsum(equation, *(torch.ones(shape) for shape in shapes))
    return int(counter.get_total_flops()) // 2


@pytest.mark.parametrize(
    ("equation", "shapes", "macs"),
    [
        ("bnd,bmd->bnm", ((2, 3, 4), (2, 5, 4)), 2 * 3 * 4 * 5),
        ("bnd , bmd -> bnm", ((2, 3, 4), (2, 5, 4)), 2 * 3 * 4 * 5),
        ("ij,jk", ((2, 3), (3, 4)), 24),
        ("...ij,...jk->...ik", ((5, 6, 2, 3), (5, 6, 3, 4)), 30 * 24),
        ("...ij,jk->...ik", ((5, 6, 2, 3), (3, 4)), 30 * 24),
        ("i,i->", ((7,), (7,)), 7),
        ("ij->ji", ((2, 3),), 0),
        ("ii->i", ((3, 3),), 0),
        ("bi,bi->bi", ((2, 3), (2, 3)), 0),  # elementwise
        ("i,j->ij", ((2,), (3,)), 0),
        ("bij,bk->bk", ((2, 3, 4), (2, 5)), 0),  # i and j are summed up first
        ("ij,jk,kl->il", ((2, 3), (3, 4), (4, 5)), 2 * 3 * 4 + 2 * 4 * 5),
    ],
)
def test_macs_by_hand(equation: str, shapes: tuple[tuple[int, ...], ...], macs: int) -> None:
    assert einsum_macs(equation, shapes) == macs


@pytest.mark.parametrize(("equation", "shapes"), [("ij,jk", ((2, 3),)), ("ij,jk", ((2,), (3, 4)))])
def test_an_equation_of_other_shapes_has_no_cost(
    equation: str, shapes: tuple[tuple[int, ...], ...]
) -> None:
    assert einsum_macs(equation, shapes) is None


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_two_operands_cost_what_pytorch_runs(data: st.DataObject) -> None:
    letters = st.lists(st.sampled_from(sorted(SIZES)), unique=True, max_size=4)
    one, other = data.draw(letters), data.draw(letters)
    known = sorted({*one, *other})
    wanted = data.draw(st.lists(st.sampled_from(known), unique=True)) if known else []
    equation = f"{''.join(one)},{''.join(other)}->{''.join(wanted)}"
    shapes = [tuple(SIZES[letter] for letter in term) for term in (one, other)]
    assert einsum_macs(equation, shapes) == counted(equation, *shapes)

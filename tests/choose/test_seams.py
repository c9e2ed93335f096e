"""Precisions, ranks and the price of seams in one choice: the program against all choices."""

from __future__ import annotations

from itertools import pairwise, product

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from trpexport.choose.seams import Entry, Follower, Program, Scarce, Seam, Sums
from trpexport.errors import NothingToDoError

AMOUNTS = st.integers(0, 1000).map(lambda n: n / 64)


@st.composite
def programs(draw: st.DrawFn) -> Program:
    """Draw a small network: layers, what follows them, and any seams."""
    entries = st.builds(Entry, st.booleans(), AMOUNTS, AMOUNTS)
    layers = draw(st.lists(st.lists(entries, min_size=1, max_size=4), min_size=1, max_size=4))
    followers: list[Follower] = []
    for _ in range(draw(st.integers(0, 2))):
        known = st.one_of(st.none(), st.integers(0, len(layers) + len(followers) - 1))
        sources = tuple(draw(st.lists(known, max_size=3)))
        followers.append(Follower(sources, draw(AMOUNTS), draw(AMOUNTS)))
    place = st.one_of(st.none(), st.integers(0, len(layers) + len(followers) - 1))
    users = st.lists(place, min_size=1, max_size=3).map(tuple)
    seams = draw(st.lists(st.builds(Seam, place, users, AMOUNTS, AMOUNTS), max_size=4))
    return Program(layers, followers, seams, draw(AMOUNTS))


def all_choices(program: Program) -> list[Sums]:
    """Return what each choice takes and loses, by the definition alone."""
    found = []
    for entries in product(*program.layers):
        int8 = {place: entry.is_int8 for place, entry in enumerate(entries)}
        seconds = program.fixed + sum(entry.seconds for entry in entries)
        error = sum(entry.error for entry in entries)
        for follower in program.followers:
            given = [source is not None and int8[source] for source in follower.sources]
            int8[len(int8)] = bool(given) and all(given)
            seconds += follower.seconds * int8[len(int8) - 1]
            error += follower.error * int8[len(int8) - 1]
        for seam in program.seams:
            ends = [end is not None and int8[end] for end in (seam.source, *seam.users)]
            seconds += seam.into * (any(ends[1:]) and not ends[0])
            seconds += seam.out * (ends[0] and not all(ends))
        found.append(Sums(seconds, error))
    return found


@given(programs(), st.sampled_from(("seconds", "error")), st.floats(0, 1))
@settings(max_examples=50, deadline=None)
@example(Program([[Entry(False, 1, 0)]]), "seconds", 0.0)
def test_no_choice_is_better(program: Program, what: Scarce, share: float) -> None:
    choices = all_choices(program)
    scarce = "error" if what == "seconds" else "seconds"
    amounts = sorted(getattr(one, scarce) for one in choices)
    # Between two amounts, so that no rounding decides what fits.
    limit = amounts[int(share * (len(amounts) - 1))] + 1 / 256
    best = min(getattr(one, what) for one in choices if getattr(one, scarce) <= limit)
    found = program.sums(program.least(what, limit))
    assert getattr(found, scarce) <= limit
    assert getattr(found, what) == pytest.approx(best, rel=1e-5, abs=1e-5)


@given(programs())
@settings(max_examples=25, deadline=None)
def test_sums_are_those_of_the_definition(program: Program) -> None:
    choices = product(*(range(len(row)) for row in program.layers))
    for chosen, expected in zip(choices, all_choices(program), strict=True):
        assert program.sums(chosen) == pytest.approx(expected)


def chain(price: float) -> Program:
    """Return four layers in a row, of which the second and the fourth gain by 8 bits."""
    float32, int8 = Entry(False, 10, 0), [7, 4, 7, 4]
    rows = [[float32, Entry(True, seconds, 0.1)] for seconds in int8]
    rows[2] = [float32, Entry(True, 11, 0.1)]
    places = [None, 0, 1, 2, 3, None]
    seams = [Seam(a, (b,), price, price) for a, b in pairwise(places)]
    return Program(rows, seams=seams)


@pytest.mark.parametrize(
    ("price", "best"),
    [
        (0, [1, 1, 0, 1]),  # each layer for itself
        (1, [1, 1, 1, 1]),  # what loses alone stays between what gains
        (8, [0, 0, 0, 0]),  # 14 are gained, and a way in and a way out take 16
    ],
)
def test_what_seams_cost_decides_which_layers_go_together(price: float, best: list[int]) -> None:
    assert chain(price).least("seconds", 1.0) == best


def test_changing_to_and_fro_is_dearer_than_its_parts() -> None:
    program = chain(2)
    parts = [program.sums(one).seconds for one in ([0, 1, 0, 0], [0, 0, 0, 1])]
    both = program.sums([0, 1, 0, 1]).seconds
    assert both == 10 + 4 + 10 + 4 + 4 * 2
    saved = [40 - seconds for seconds in parts]
    assert 40 - both == sum(saved)  # nothing between them is shared ...
    together = program.sums([0, 1, 1, 1]).seconds
    assert together == 10 + 4 + 11 + 4 + 2 * 2 < both  # ... and a layer that loses joins them


def test_one_conversion_serves_all_that_take_a_tensor() -> None:
    rows = [[Entry(False, 0, 0)], [Entry(True, 0, 0)], [Entry(True, 0, 0)]]
    assert Program(rows, seams=[Seam(0, (1, 2), 3.0, 9.0)]).sums([0, 0, 0]).seconds == 3


def test_a_sum_is_in_8_bits_where_both_parts_are() -> None:
    rows = [[Entry(False, 0, 0), Entry(True, 0, 0)]] * 2
    program = Program(rows, [Follower((0, 1), 5.0, 0.5)])
    assert program.sums([1, 1]) == (5.0, 0.5)
    assert program.sums([0, 1]) == (0.0, 0.0)


def test_a_limit_is_kept_to_beside_entries_that_are_far_beyond_it() -> None:
    row = [Entry(False, 10, 0), Entry(True, 5, 0.9e-4), Entry(True, 1, 100)]
    program = Program([row, row])
    found = program.sums(program.least("seconds", 1e-4))
    assert found == pytest.approx((15, 0.9e-4))


def test_what_can_not_be_is_told() -> None:
    with pytest.raises(NothingToDoError, match="within the limit"):
        Program([[Entry(False, 2, 0)]]).least("error", 1.0)


def test_nothing_is_written_to_standard_output(capfd: pytest.CaptureFixture[str]) -> None:
    rows = [
        [Entry(n % 2 == 1, (layer * 7 + n * 13) % 31 + 1, (n * 5 + layer) % 17) for n in range(6)]
        for layer in range(8)
    ]
    seams = [Seam(place, (place + 1,), 2.0, 2.0) for place in range(7)]
    program = Program(rows, seams=seams)
    program.least("error", 0.4 * program.sums([0] * 8).seconds)
    assert capfd.readouterr() == ("", "")

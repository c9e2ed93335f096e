"""Which columns fit, derived by hand: widths, and two characters between columns."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from trpexport.report.render.layout import GAP, Extent, arrange


def test_what_fits_is_as_wide_as_it_wants() -> None:
    layout = arrange([Extent(4, 9), Extent(5, 5)], 16)
    assert layout.groups == ({0: 9, 1: 5},)
    assert layout.left_out == ()


def test_spare_room_goes_to_the_first_that_wants_it() -> None:
    assert arrange([Extent(4, 9), Extent(5, 8)], 14).groups == ({0: 7, 1: 5},)


def test_optional_columns_go_first_to_last_and_no_more_than_needed() -> None:
    extents = [Extent(4, 4), Extent(5, 5, True), Extent(6, 6), Extent(7, 7, True)]
    assert arrange(extents, 28).left_out == ()  # 4 + 5 + 6 + 7 and 3 gaps
    layout = arrange(extents, 27)
    assert (layout.left_out, layout.groups) == ((1,), ({0: 4, 2: 6, 3: 7},))
    layout = arrange(extents, 20)
    assert (layout.left_out, layout.groups) == ((1, 3), ({0: 4, 2: 6},))


def test_what_does_not_fit_goes_on_below_with_the_first_column() -> None:
    extents = [Extent(4, 4), Extent(5, 5), Extent(6, 6), Extent(7, 7)]
    assert arrange(extents, 19).groups == ({0: 4, 1: 5, 2: 6}, {0: 4, 3: 7})
    assert arrange(extents, 13).groups == ({0: 4, 1: 5}, {0: 4, 2: 6}, {0: 4, 3: 7})


def test_a_long_name_makes_room_for_a_number() -> None:
    assert arrange([Extent(50, 50), Extent(7, 7)], 40).groups == ({0: 31, 1: 7},)
    # Nothing is made narrower than 12; the terminal breaks the rest.
    assert arrange([Extent(50, 50), Extent(7, 7)], 10).groups == ({0: 12, 1: 7},)


def test_names_are_broken_where_fewer_columns_go_on_below_then() -> None:
    name, numbers = Extent(50, 50, broken=20), [Extent(8, 8), Extent(8, 8), Extent(8, 8, True)]
    # As the optional column goes, the others fit beside the whole name.
    assert arrange([name, *numbers], 70).groups == ({0: 50, 1: 8, 2: 8},)
    assert arrange([name, *numbers], 69).groups == ({0: 49, 1: 8, 2: 8},)
    assert arrange([name, *numbers], 40).groups == ({0: 20, 1: 8, 2: 8},)
    # Where a broken one saves no table, it stays whole.
    few = [Extent(30, 30, broken=28), Extent(8, 8), Extent(8, 8)]
    assert arrange(few, 42).groups == ({0: 30, 1: 8}, {0: 30, 2: 8})


@given(
    st.lists(st.tuples(st.integers(1, 12), st.integers(0, 20), st.booleans()), min_size=1),
    st.integers(30, 130),
)
def test_every_column_is_shown_or_optional_and_none_is_cut(
    columns: list[tuple[int, int, bool]], room: int
) -> None:
    extents = [Extent(least, least + more, optional) for least, more, optional in columns]
    extents[0] = Extent(extents[0].least, extents[0].most)
    layout = arrange(extents, room)
    shown = {index for group in layout.groups for index in group}
    assert shown | set(layout.left_out) == set(range(len(extents)))
    assert not shown & set(layout.left_out)
    assert all(extents[index].optional for index in layout.left_out)
    for group in layout.groups:
        assert sum(group.values()) + GAP * (len(group) - 1) <= room
        for index, width in group.items():
            assert extents[index].least <= width <= extents[index].most

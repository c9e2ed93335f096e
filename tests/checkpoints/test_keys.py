"""Names: stripping prefixes, and comparing two sets of names and shapes."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trpexport.checkpoints.keys import KeyDifference, Reading, key_difference, readings
from trpexport.errors import ArchitectureError

PLAIN = ("conv1.weight", "layer1.0.conv1.weight", "layer1.0.bn1.num_batches_tracked", "fc.bias")
WRAPPERS = ("module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")


def reading_as(names: list[str], wanted: tuple[str, ...]) -> Reading:
    """The first reading of names that gives the wanted ones."""
    found = [reading for reading in readings(names) if set(reading.names) == set(wanted)]
    assert found, f"{names} can't be read as {wanted}"
    return found[0]


def test_names_are_first_read_as_they_stand() -> None:
    names = ["module.conv.weight", "module.model.fc.weight"]
    first = next(readings(names))
    assert first == Reading({name: name for name in names}, None)


@pytest.mark.parametrize(
    "prefix",
    [
        "module.",
        "_orig_mod.",
        "model.",
        "net.",
        "resnet.",
        "module.model.",
        "_orig_mod.module.",
        "model._orig_mod.",
        "ema.model.",
    ],
)
def test_leading_prefixes(prefix: str) -> None:
    reading = reading_as([prefix + name for name in PLAIN], PLAIN)
    assert dict(reading.names) == {name: prefix + name for name in PLAIN}
    assert reading.note is not None


@pytest.mark.parametrize("segment", [*WRAPPERS, "model"])
def test_segments_in_the_middle(segment: str) -> None:
    def wrap(name: str) -> str:
        return name.replace("layer1.0.", f"layer1.{segment}.0.")

    reading = reading_as([wrap(name) for name in PLAIN], PLAIN)
    assert dict(reading.names) == {name: wrap(name) for name in PLAIN}


def test_mixed_wrappers_around_single_layers() -> None:
    names = [
        "module.conv1.weight",
        "module.layer1.module._orig_mod.0.conv1.weight",
        "module.layer1.module._orig_mod.0.bn1.num_batches_tracked",
        "module.fc.module.bias",
    ]
    reading = reading_as(names, PLAIN)
    assert reading.note == "stripped 'module.', '_orig_mod.' from the names"


def test_what_lies_beside_the_network_is_left_out_and_said() -> None:
    names = ["criterion.weight", *(f"model.net.{name}" for name in PLAIN)]
    reading = reading_as(names, PLAIN)
    assert reading.note == (
        "took only the names under 'model.', ignored criterion.weight; "
        "stripped 'net.' from the names"
    )


def test_two_names_that_become_one_are_an_error_only_when_that_matters() -> None:
    names = ["conv.weight", "module.conv.weight"]
    ways = readings(names)
    assert set(next(ways).names) == set(names)
    with pytest.raises(ArchitectureError, match=r"conv\.weight and module\.conv\.weight are both"):
        next(ways)


def test_renaming() -> None:
    reading = Reading({"linear.weight": "a", "linear.bias": "b", "conv.weight": "c"}, "before")
    renamed = reading.renamed(lambda name: name.replace("linear", "fc"), "read")
    assert renamed is not None
    assert dict(renamed.names) == {"fc.weight": "a", "fc.bias": "b", "conv.weight": "c"}
    assert renamed.note == "before; read linear.weight as fc.weight, and 1 more likewise"
    assert reading.renamed(lambda name: name, "read") is reading
    assert reading.renamed(lambda name: name.partition(".")[0], "read") is None


segment = st.sampled_from(["conv1", "layer1", "0", "weight", "bias", "model", "net", *WRAPPERS])
name_sets = st.lists(st.lists(segment, min_size=1, max_size=5).map(".".join), unique=True)


@given(name_sets)
def test_no_reading_loses_doubles_or_invents_a_tensor(names: list[str]) -> None:
    try:
        ways = list(readings(names))
    except ArchitectureError:
        stripped = [tuple(p for p in n.split(".") if p not in WRAPPERS) or n for n in names]
        assert len(set(stripped)) < len(names)
        return
    for reading in ways:
        sources = list(reading.names.values())
        assert len(sources) == len(set(sources))
        assert set(sources) <= set(names)
        ignores = reading.note is not None and "ignored" in reading.note
        assert (len(sources) < len(names)) == ignores
        assert all(name for name in reading.names)
        for name, source in reading.names.items():  # names only ever lose segments
            rest = iter(source.split("."))
            assert all(part in rest for part in name.split("."))


@given(name_sets)
def test_readings_of_readings_end(names: list[str]) -> None:
    with contextlib.suppress(ArchitectureError):
        assert len(list(readings(names))) < 30


def test_key_difference_by_hand() -> None:
    expected = {"a": (1, 2), "b": (3,), "c": (4, 4), "d": (), "bn.num_batches_tracked": ()}
    actual = {"a": (1, 2), "b": (5,), "d": (), "x": (7,)}
    difference = key_difference(expected, actual)
    assert difference == KeyDifference(
        missing=("c",), unexpected=("x",), mismatched=(("b", (3,), (5,)),), matching=2
    )
    # Of the four names on either side, two agree.
    assert difference.share == 0.5
    assert str(difference) == (
        "the file lacks c; the network has no x; b is 5 in the file and 3 in the network"
    )


def test_batch_counters_never_differ() -> None:
    with_counter = {"bn.weight": (3,), "bn.num_batches_tracked": ()}
    for one, other in ((with_counter, {"bn.weight": (3,)}), ({"bn.weight": (3,)}, with_counter)):
        difference = key_difference(one, other)
        assert not difference
        assert difference.share == 1
        assert str(difference) == "no difference"


def test_a_long_difference_is_cut_short() -> None:
    expected = {f"conv{i}.weight": (16, 3, 3, 3) for i in range(20)}
    assert str(key_difference(expected, {})) == (
        "the file lacks conv0.weight, conv1.weight, conv2.weight and 17 more"
    )
    other = dict.fromkeys(expected, (16, 1, 3, 3))
    text = str(key_difference(expected, other))
    assert text.startswith("conv0.weight is 16x1x3x3 in the file and 16x3x3x3 in the network, ")
    assert text.endswith(" and 17 more")


shape_maps = st.dictionaries(
    st.sampled_from(["a", "b", "c", "d", "e"]), st.tuples(st.integers(1, 2)), max_size=5
)


@given(shape_maps, shape_maps)
def test_key_difference_properties(
    expected: dict[str, tuple[int]], actual: dict[str, tuple[int]]
) -> None:
    difference = key_difference(expected, actual)
    mirrored = key_difference(actual, expected)
    assert bool(difference) == (expected != actual)
    assert difference.missing == mirrored.unexpected or set(difference.missing) == set(
        mirrored.unexpected
    )
    assert difference.share == mirrored.share
    assert 0 <= difference.share <= 1
    assert difference.matching == len(expected.items() & actual.items())

"""A pickle is data: it is read as far as it is one, and can't run, grow or kill."""

from __future__ import annotations

import collections
import datetime
import io
import os
import pickle
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest

from trpexport import pickles
from trpexport.pickles import (
    DataUnpickler,
    ForbiddenGlobalError,
    Global,
    PickleError,
    StandIn,
    plain_dict,
)

MAKERS: dict[str, Callable[..., Any]] = {
    "_codecs.encode": lambda text, encoding: text.encode(encoding),
    "builtins.bytearray": bytearray,
    "builtins.float": StandIn,
    "builtins.frozenset": frozenset,
    "builtins.set": set,
    "collections.OrderedDict": plain_dict,
    "datetime.datetime": StandIn,
}


def read(content: bytes) -> Any:
    return DataUnpickler(io.BytesIO(content), MAKERS).load()


@pytest.mark.parametrize("protocol", range(6))
def test_data_come_out_as_they_went_in(protocol: int) -> None:
    data = {
        "plain": [1, -(2**70), 2.5, b"\xffx", "ä", None, True, {1, 2}, (), bytearray(b"3")],
        "ordered": collections.OrderedDict(z=1, a=[2]),
        (1, "pair"): frozenset([3]),
    }
    file = io.BytesIO(pickle.dumps(data, protocol) + b"what follows")
    assert DataUnpickler(file, MAKERS).load() == data
    assert file.read() == b"what follows"


def test_other_objects_leave_stand_ins() -> None:
    now = datetime.datetime(2024, 5, 17)
    read_back = read(pickle.dumps({"when": now, "kind": float}))
    assert type(read_back["when"]) is StandIn
    assert isinstance(read_back["kind"], Global) and read_back["kind"].name == "builtins.float"


def test_attributes_of_a_dict_are_dropped() -> None:
    ordered = collections.OrderedDict(a=1)
    ordered.metadata = {"version": 1}  # type: ignore[attr-defined]
    assert read(pickle.dumps(ordered)) == {"a": 1}


@pytest.mark.parametrize(
    ("content", "name"),
    [
        (b"cposix\nsystem\n(X\x04\x00\x00\x00truetR.", "posix.system"),
        (b"(S'true'\niposix\nsystem\n.", "posix.system"),
        (b"\x8c\x05posix\x8c\x06system\x93.", "posix.system"),
        (b"c__builtin__\neval\n.", "builtins.eval"),
    ],
)
def test_what_is_no_data_is_refused_by_name(content: bytes, name: str) -> None:
    with pytest.raises(ForbiddenGlobalError, match=f"^{name}$"):
        read(content)


@pytest.mark.parametrize(
    "content",
    [
        b"X\x03\x00\x00\x00abc)R.",  # a text is called
        b"X\x03\x00\x00\x00abcQ.",  # a persistent id
        b"\x82\x01.",  # an extension code
        b"X\x01\x00\x00\x00a(K\x01K\x02u.",  # items for a text
        b"}]K\x01s.",  # a list as key
        b"\x96" + (2**40).to_bytes(8, "little") + b"abc.",  # a terabyte, of which three are there
        b"}",
        b"",
    ],
)
def test_damaged_pickles(content: bytes) -> None:
    with pytest.raises(PickleError):
        read(content)


DEEP_TUPLE = b"(t" + b"\x85" * 200_000


@pytest.mark.parametrize(
    "content",
    [
        b"}" + DEEP_TUPLE + b"K\x01s.",
        b"}(" + DEEP_TUPLE + b"K\x01u.",
        b"(" + DEEP_TUPLE + b"K\x01d.",
        b"\x8f(" + DEEP_TUPLE + b"\x90.",
        b"(" + DEEP_TUPLE + b"\x91.",
        b"ccollections\nOrderedDict\n](]" + DEEP_TUPLE + b"aK\x01aea\x85R.",
    ],
    ids=["item", "items", "dict", "set", "frozenset", "ordered"],
)
def test_no_depth_is_walked_through_by_recursion(content: bytes) -> None:
    """In a child, because it would be killed."""
    code = (
        "import io, sys; from trpexport.pickles import *\n"
        "makers = {'collections.OrderedDict': plain_dict}\n"
        "try: DataUnpickler(io.BytesIO(sys.stdin.buffer.read()), makers).load()\n"
        "except PickleError as error: print(error)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], input=content, capture_output=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout


@pytest.mark.parametrize("opcode", [b"]", b"\x8f", b"}", b"("])
def test_steps_are_limited(opcode: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pickles, "MAX_STEPS", 10_000)
    tracemalloc.start()
    with pytest.raises(PickleError, match="more than 10,000 Python objects"):
        read(opcode * 1_000_000)
    assert tracemalloc.get_traced_memory()[1] < 10_000 * 250 + 2_000_000
    tracemalloc.stop()


def test_calls_can_not_copy_the_same_items_again_and_again() -> None:
    text = b"X" + (500_000).to_bytes(4, "little") + b"a" * 500_000
    calls = (
        b"c_codecs\nencode\nq\x00" + text + b"X\x06\x00\x00\x00latin1\x86q\x01" + b"h\x00h\x01R" * 9
    )
    with pytest.raises(PickleError, match="more items than it holds"):
        read(calls + b".")


def test_nothing_is_called(tmp_path: Any) -> None:
    class Runs:
        def __reduce__(self) -> Any:
            return os.system, (f"touch {tmp_path / 'marker'}",)

    with pytest.raises(ForbiddenGlobalError, match=r"(posix|nt)\.system"):
        read(pickle.dumps([Runs()]))
    assert not (tmp_path / "marker").exists()

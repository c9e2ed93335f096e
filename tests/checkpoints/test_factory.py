"""A user's own network by package.module:factory."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from trpexport.checkpoints.factory import build_from_factory
from trpexport.errors import CheckpointError

SOURCE = """
import torch
from torch import nn

def small():
    from userpack.layers import make   # found only while the folder can be imported
    return make()

class Own(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(2, dtype=torch.float64))

class Needy(nn.Module):
    def __init__(self, width):
        super().__init__()

def broken():
    raise KeyError("width\\nsecond line")

def leaves():
    raise SystemExit(2)

def lazy():
    return nn.LazyLinear(3)

def nothing():
    return {"not": "a network"}

class Hides(nn.Linear):
    def __init__(self):
        super().__init__(2, 3)
        self.parameters, self.modules = {"depth": 3}, []

def hides():
    return Hides()

def compiled():
    return torch.compile(nn.Linear(2, 3), backend="eager")

number = 3
"""


@pytest.fixture(autouse=True)
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "userpack"
    folder.mkdir()
    (folder / "__init__.py").touch()
    (folder / "nets.py").write_text(SOURCE)
    (folder / "layers.py").write_text("from torch import nn\ndef make(): return nn.Linear(2, 3)\n")
    (folder / "script.py").write_text("import sys\nsys.exit('usage: train.py')\n")
    (folder / "wrong.py").write_text("def f(:\n")
    (folder / "needs.py").write_text("import package_that_nobody_has\n")
    monkeypatch.chdir(tmp_path)
    return folder


def test_a_factory_in_the_working_directory() -> None:
    before = list(sys.path)
    network = build_from_factory("userpack.nets:small")
    assert isinstance(network, nn.Linear)
    assert sys.path == before


def test_a_class_and_a_nested_name_are_factories_too() -> None:
    network = build_from_factory("userpack.nets:Own")
    assert network.get_parameter("weight").dtype == torch.float32
    assert isinstance(build_from_factory("userpack.nets:nn.Identity"), nn.Identity)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("userpack.nets", "must be package.module:factory, as in"),
        ("userpack/nets.py:small", "must be package.module:factory"),
        ("userpack.nets:", "must be package.module:factory"),
        (":small", "must be package.module:factory"),
        ("userpack.nowhere:small", "there is no module userpack.nowhere: run from the folder"),
        ("nopack.nets:small", "there is no module nopack: run from the folder"),
        ("userpack.needs:f", "userpack.needs needs the module package_that_nobody_has: install"),
        (
            "userpack.nets:smal",
            "has no smal; it has Hides, Needy, Own, broken, compiled, hides, lazy, leaves",
        ),
        ("userpack.nets:number", "number is a int, not a function or class"),
        ("userpack.nets:Needy", "raised TypeError: .*missing 1 required .*'width'"),
        ("userpack.nets:broken", r"raised KeyError: 'width\\nsecond line', userpack/nets.py:19"),
        ("userpack.nets:leaves", "calling it without arguments raised SystemExit: 2"),
        ("userpack.nets:nothing", "must return a torch.nn.Module, not dict"),
        ("userpack.nets:lazy", "has lazy parameters"),
        ("userpack.script:main", r"usage: train.py, userpack/script.py:2; keep what runs a train"),
        ("userpack.wrong:f", r"importing userpack.wrong raised SyntaxError: .*wrong.py, line 1"),
    ],
)
@pytest.mark.filterwarnings("ignore:Lazy modules are a new feature:UserWarning")
def test_what_can_go_wrong_is_said_in_one_line(text: str, says: str) -> None:
    before = list(sys.path)
    with pytest.raises(CheckpointError, match=says) as caught:
        build_from_factory(text)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith("model ")
    assert caught.value.parameters == ("model",)
    assert sys.path == before


@pytest.mark.filterwarnings("ignore:Lazy modules are a new feature:UserWarning")
def test_lazy_modules_get_their_parameters_from_an_input() -> None:
    network = build_from_factory("userpack.nets:lazy", (1, 7))
    assert network.get_parameter("weight").shape == (3, 7)


def test_a_compiled_network_is_what_it_was() -> None:
    assert type(build_from_factory("userpack.nets:compiled")) is nn.Linear


def test_a_network_that_hides_methods_can_be_filled() -> None:
    network = build_from_factory("userpack.nets:hides")
    assert [tuple(p.shape) for p in network.parameters()] == [(3, 2), (3,)]

"""The tree of exceptions and its exit codes."""

from __future__ import annotations

import pickle

import pytest

from trpexport import errors
from trpexport.errors import TrpexportError

TREE = {
    name: kind
    for name, kind in vars(errors).items()
    if isinstance(kind, type) and issubclass(kind, Exception)
}


@pytest.mark.parametrize("name", TREE)
def test_the_drawing_shows_every_exception_and_its_code(name: str) -> None:
    kind = TREE[name]
    assert issubclass(kind, TrpexportError)
    assert errors.__doc__ is not None
    assert name in errors.__doc__
    special = {"NothingToDoError": 3, "VerificationError": 4}
    assert kind.exit_code == special.get(name, 2)
    assert kind.__doc__


def test_an_error_names_the_parameters_that_mend_it() -> None:
    assert TrpexportError("a").parameters == ()
    error = errors.DataError("a", parameters=["size", "resize"])
    assert (str(error), error.parameters) == ("a", ("size", "resize"))
    assert errors.OccupiedError("a").parameters == ("out", "replace")
    assert errors.OccupiedError("a", parameters=("out",)).parameters == ("out",)
    again = pickle.loads(pickle.dumps(error))  # as one process raises what another one met
    assert (type(again), str(again), again.parameters) == (type(error), "a", ("size", "resize"))


def test_names_from_files_can_not_write_to_the_terminal_or_hide_the_remedy() -> None:
    error = TrpexportError(f"the layer \x1b[2J\n{'x' * 10**6} is not there: choose another")
    assert str(error).isprintable()
    assert str(error).startswith(r"the layer \x1b[2J xxx")
    assert str(error).endswith("x is not there: choose another")
    assert len(str(error)) == 1000
